//! The door of one family: whether new sessions of it are let in, as a pure function of signs and time.
//!
//! It closes when mail over its family is known not to work, so that a sender is refused at once and goes to the other
//! family. It never closes where there is no other way in: it says so instead.
//!
//! ```text
//!            bad signs                   for `confirm`, and `dwell` after it opened
//!   open ──────────────▶ closing ───────────────────────────▶ closed
//!    ▲  ◀──────────────     │ ▲                                 │ after `dwell`: probes come through again, the
//!    │     signs turn good  │ │ bad signs                       │ upstream is back, or it is time for a trial
//!    └──────────────────────┴─┴── opening ◀─────────────────────┘
//!        a message or a probe came through since
//! ```
//!
//! Only `closed` refuses. What the signs mean:
//!
//! - *Proof* is mail from outside that came to its 250 over the family, or a prober elsewhere (a vantage) that reached us.
//!   Nothing else proves the way: connecting to oneself proves a socket.
//! - *Bad* is what tells against it: so many probes in a row that failed (unless mail came through within the last `dwell`:
//!   then it is the vantage's way that is broken), no upstream for sessions of the family, or sessions that reach DATA and then stall
//!   (a PMTU black hole passes handshake and commands) while the other family delivers.
//! - *Unproven* is neither: no mail on a quiet night is no outage. It closes only where `when_unproven` says so. Time alone is
//!   never bad.
//! - At the start nothing is proven. The door begins in `opening`, on trial: it admits, the first proof opens it, and
//!   bad signs close it.
//! - No proof can come through a closed door but that of a vantage, which must be exempt. Without one, or when it is silent, the
//!   door opens on trial after `retry`, and after each trial that closes again waits twice as long, up to `retry_longest`.
//! - *Held open*: our MX has no address in the other family, the other family is down or shut or not served. Then closing
//!   would mean no mail at all. A closed door that comes to be held opens at once, whatever `dwell` says. That the DNS does not say
//!   what addresses our MX has holds nothing.
//! - The operator's word (`open`, `close`) is above all of it, at once. On `auto` the door goes on from the state it is in.
//!
//! Time does not go back here: what is earlier than what was seen counts as now.

mod machine;
mod signs;
#[cfg(test)]
mod tests;
mod words;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::machine::Door;
pub use self::signs::{Around, Other, Probes, Proof, ProofBy, Signs, Stalled, receive_path};
use crate::addr::Family;
use crate::time::Timestamp;

/// `[door.ipv6]`, `[door.ipv4]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub when_unproven: WhenUnproven,
    /// A proof that is older is none any more.
    pub fresh: Duration,
    /// So many probes in a row that failed are bad, and so many that came through open a closed door.
    pub failures: u32,
    pub successes: u32,
    /// So many sessions that stalled, over so long, are bad.
    pub stalls: u32,
    pub stalled_for: Duration,
    /// Signs must be bad for so long.
    pub confirm: Duration,
    /// At least so long it refuses, or admits, once it began to.
    pub dwell: Duration,
    /// A closed door opens on trial after that time, later up to the other.
    pub retry: Duration,
    pub retry_longest: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            when_unproven: WhenUnproven::Open,
            fresh: minutes(24 * 60),
            failures: 3,
            successes: 2,
            stalls: 3,
            stalled_for: minutes(10),
            confirm: minutes(1),
            dwell: minutes(5),
            retry: minutes(10),
            retry_longest: minutes(120),
        }
    }
}

/// What to do when nothing has proved the way lately, and nothing tells against it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenUnproven {
    #[default]
    Open,
    Close,
}

/// Declares an enum with its words.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word in logs, metrics and JSON.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    State {
        Open = "open",
        /// Signs are bad; it still admits.
        Closing = "closing",
        Closed = "closed",
        /// On trial: it admits, and waits for a proof.
        Opening = "opening",
    }
}

impl State {
    /// Whether new sessions come in.
    pub const fn admits(self) -> bool {
        !matches!(self, Self::Closed)
    }
}

words! {
    /// What the operator wants.
    Mode {
        Auto = "auto",
        Open = "open",
        Close = "close",
    }
}

words! {
    /// Why a door is in its state.
    Reason {
        /// Nothing is proven since the start.
        Started = "started",
        Proven = "proven",
        /// The last proof is too old, or there is none.
        Unproven = "unproven",
        ProbesFailed = "probes_failed",
        UpstreamDown = "upstream_down",
        Stalled = "stalled",
        /// To see whether it works again.
        Trial = "trial",
        Operator = "operator",
        /// Held open: our MX has no address in the other family.
        NoOtherAddress = "no_other_address",
        /// Held open: the other family does not work either, or its door is closed.
        OtherFamilyDown = "other_family_down",
        /// Held open: the gateway does not listen in the other family.
        OtherNotServed = "other_not_served",
    }
}

/// A door went from one state to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub from: State,
    pub to: State,
    pub at: Timestamp,
    pub reason: Reason,
    /// For people.
    pub detail: String,
}

/// How a door is. The serde form is that of `gatepost door --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub family: Family,
    pub state: State,
    pub admits: bool,
    pub since: Timestamp,
    pub mode: Mode,
    pub reason: Reason,
    /// The reason in words.
    pub detail: String,
    /// Null without any.
    pub proof: Option<Proof>,
    /// What would change the state, in words.
    pub next: String,
    /// The earliest time of it, where that is known.
    pub next_at: Option<Timestamp>,
    pub at: Timestamp,
}

/// What is told of one family's door: the JSON form of `gatepost door`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub family: Family,
    /// Null where nothing guards the family: it is always open.
    pub status: Option<Status>,
    /// Who refuses while it is closed: `syn`, the kernel, or `smtp`, the relay.
    pub refuses: String,
    /// How many were refused since the start.
    pub refused: u64,
}
