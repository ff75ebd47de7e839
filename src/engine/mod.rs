//! One SMTP session: bytes, time and answers in; actions and events out. No socket, no clock, no metric library.
//!
//! Layer 3. Two kinds of session share the transaction, the checks, the policy and the record: the [`Proxy`] takes part in
//! the dialogue, as the live relay does; the [`Observer`] follows it, as in a capture. The same dialogue leads to the same
//! record and, by [`evaluate_record`], to the same verdict.

mod canary_reader;
mod delegation_event;
mod event;
mod message_reader;
mod observe;
mod observer;
mod options;
mod output;
mod policy;
mod proxy;
mod record;

pub use self::delegation_event::{DelegatedAction, DelegationEvent, DelegationFault};
pub use self::event::{
    Anomaly, AttemptOutcome, Desync, Direction, Event, Outcome, Phase, Refusal, ReplySource,
    Starttls, TlsHandshake, TlsVersion, UpstreamFailure, UpstreamTlsResult,
};
pub use self::observe::Observe;
pub use self::observer::Observer;
pub use self::options::{
    EarlyData, Limits, ListenerProfiles, PathSyntax, Pregreet, Profile, RefuseAt, SmtpOptions,
    Timeouts, TlsMode, UpstreamTls,
};
pub use self::output::{Action, Output};
pub use self::policy::{
    AskedAt, DelegatedQuestion, DelegatedReply, DelegatedSession, Evaluated, evaluate_record,
    external_path,
};
pub use self::proxy::Proxy;
pub use self::record::{
    ClientTlsFacts, EncryptedBytes, Endpoint, MessageProgress, Phases, PolicyQuestion,
    RecipientRecord, SessionRecord, ShadowRecord, SmtpFacts, TcpFacts, TlsFacts, TlsFailure,
    TransactionRecord, TranscriptEntry, TranscriptItem, UpstreamTlsFailure, VerdictRecord,
};
pub use crate::addr::Side;
pub use crate::smtp::{BareNewlines, TlsState};
