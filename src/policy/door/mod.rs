//! The door of one family: whether new sessions over it are admitted, as a pure function of signals and time.
//!
//! It closes when mail over its family is known not to work, so that a sender is refused at once and retries over the
//! other family. It stays open, and reports why, where the other family is no alternative.
//!
//! ```text
//!            bad signals                  for `grace`, and `min_hold` after it opened
//!   open ──────────────▶ closing ───────────────────────────▶ closed
//!    ▲  ◀──────────────     │ ▲                                 │ after `min_hold`: probes succeed again, the upstream
//!    │   signals are good   │ │ bad signals                     │ is back, or a trial is due
//!    └──────────────────────┴─┴── opening ◀─────────────────────┘
//!        a message or a probe succeeded since
//! ```
//!
//! Only `closed` refuses. The signals (rules 14 and 15 of ARCHITECTURE.md):
//!
//! - *Proof* is mail from outside that got its 250 over the family, or a vantage that reached us. A connection to oneself
//!   proves a socket, not the path.
//! - *Bad* is: a number of failed probes in a row (unless mail was accepted within the last `min_hold`: then the vantage's
//!   own path is at fault), no upstream for sessions of the family, or sessions that reach DATA and stall (a PMTU black hole
//!   passes handshake and commands) while the other family delivers.
//! - *Unproven* is neither: a quiet night is not an outage. It closes the door only where `when_unproven` says so. The
//!   passing of time is never bad.
//! - At start nothing is proven. The door begins in `opening`, on trial: it admits, the first proof opens it, and bad
//!   signals close it.
//! - The only proof that can pass a closed door is that of a vantage, which must be exempt. Without a vantage, or if it
//!   does not respond, the door opens on trial after `retry`; the wait doubles after each failed trial, up to
//!   `retry_max`.
//! - *Held open*: our MX has no address in the other family, or the other family is down, closed or not served. Closing
//!   would then stop all mail. A closed door for which this becomes true opens at once, whatever `min_hold` is. An unknown
//!   MX address holds nothing.
//! - The operator's `open` and `close` override all of this at once. On `auto` the door continues from its present state.
//!
//! Time does not go back: an earlier time than the last counts as the last.

mod inbound;
mod inputs;
mod machine;
mod proof;
mod signals;
mod state;
#[cfg(test)]
mod tests;

pub use self::inbound::{FamilyEvidence, InboundEvidence, InboundSession, SessionEnd};
pub use self::inputs::{DoorInputs, FamilyInputs, ProbeResult, signals_of};
pub use self::machine::Door;
pub use self::proof::{PathProof, ProofSource};
pub use self::signals::{
    Alternatives, OtherFamily, ProbeResults, Signals, StalledSessions, receive_path,
};
pub use self::state::{
    DoorReason, DoorReport, DoorSettings, DoorState, DoorStatus, DoorTransition, OperatorMode,
    WhenUnproven,
};
