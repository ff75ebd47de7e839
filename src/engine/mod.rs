//! One conversation: bytes, time and answers in; actions and events out. Knows no socket, clock or metric library.
//!
//! Layer 3.

mod event;
mod options;
mod record;

pub use event::{
    Anomaly, AttemptOutcome, Direction, Event, Observe, Outcome, Phase, Refusal, ReplySource,
    Starttls,
};
pub use options::{BareNewlines, Limits, Pregreet, RefuseAt, SmtpOptions, Timeouts};
pub use record::{
    Endpoint, MAX_RECIPIENTS, MAX_TRANSACTIONS, RecipientRecord, SessionRecord, SmtpFacts,
    TcpFacts, Tls, TransactionRecord, VerdictRecord,
};
