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
//! - *Proof* is mail from outside that got its 250 over the family, or arrived in full under TLS that passes through, an encrypted
//!   session from outside that was completed, or a vantage that reached us. A connection to oneself proves a socket, not the path.
//! - *Bad* is: a number of failed probes in a row (unless mail arrived within the last `min_hold`: then the vantage's own path
//!   is at fault), no upstream for sessions of the family, or sessions that stall while the other family delivers (a PMTU black
//!   hole passes handshake and commands). Stalls from `agreeing_networks` different networks must agree, and a vantage whose
//!   large segments pass, or any large message, outranks them.
//! - Where `spam_parity` says so, it is also bad that canaries over the family are accepted and then marked as spam or lost, while
//!   those over the other family are not. Only the owner of a key makes canaries.
//! - *Unproven* is neither: a quiet night is not an outage. It closes the door only where `when_unproven` says so, and not
//!   while a vantage that should prove it gives no results. The passing of time is never bad.
//! - No client network alone can change the door but by proof: whatever one network sends, the door is in the state in which
//!   it would be without that network. Tests generate such networks.
//! - A *sign* is shown and changes nothing: mail of the family is missing ([`SilenceDetector`]).
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
#[cfg(test)]
mod one_network;
mod proof;
mod signals;
mod silence;
mod stalls;
mod state;
#[cfg(test)]
mod tests;
mod upstream;
mod vantage;

pub use self::inbound::{
    EncryptedExchange, FamilyEvidence, InboundEvidence, InboundSession, SessionEnd,
};
pub use self::inputs::{DoorInputs, FamilyInputs, ProbeResult, signals_of};
pub use self::machine::Door;
pub use self::proof::{PathProof, ProofSource};
pub use self::signals::{
    Alternatives, OtherFamily, ProbeResults, Signals, StalledSessions, receive_path,
};
pub use self::silence::{SilenceDetector, SilenceSign};
pub use self::state::{
    DoorReason, DoorReport, DoorSettings, DoorState, DoorStatus, DoorTransition, OperatorMode,
    SpamParity, WhenUnproven,
};
pub use self::upstream::UpstreamContact;
pub use self::vantage::VantageStatus;
