//! Statistics of lookups: kinds, resolutions, kinds of answers, and the observer that counts them.
//!
//! This stands in layer 2 because `lookup`, which reports, and `metrics`, which counts, must not import each other.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Lookup, LookupResult};
use crate::label::labels;

labels! {
    /// The kind of a [`Lookup`], without its subject.
    pub enum LookupKind {
        Reverse = "reverse",
        Addresses = "addresses",
        MailExchanges = "mail_exchanges",
        Texts = "texts",
        Connect = "connect",
        Greet = "greet",
        Callout = "callout",
        Recipient = "recipient",
        ReceivePath = "receive_path",
    }
}

impl Lookup {
    pub const fn kind(&self) -> LookupKind {
        match self {
            Self::Reverse(_) => LookupKind::Reverse,
            Self::Addresses(..) => LookupKind::Addresses,
            Self::MailExchanges(_) => LookupKind::MailExchanges,
            Self::Texts(_) => LookupKind::Texts,
            Self::Connect(_) => LookupKind::Connect,
            Self::Greet(_) => LookupKind::Greet,
            Self::Callout(..) => LookupKind::Callout,
            Self::Recipient(_) => LookupKind::Recipient,
            Self::ReceivePath(_) => LookupKind::ReceivePath,
        }
    }
}

impl LookupKind {
    /// Whether it connects to a server of another site.
    pub const fn is_probe(self) -> bool {
        matches!(self, Self::Connect | Self::Greet | Self::Callout)
    }
}

labels! {
    /// How a lookup was resolved.
    pub enum Resolution {
        /// By observed traffic, without a query.
        Traffic = "traffic",
        CacheHit = "cache_hit",
        /// By another caller's query for the same, which was in flight.
        Coalesced = "coalesced",
        /// By a query of its own.
        Queried = "queried",
        /// Not at all: a limit on queries is reached.
        RateLimited = "rate_limited",
        /// The deadline passed before the answer arrived.
        Timeout = "timeout",
    }
}

labels! {
    pub enum AnswerKind {
        /// Records, or yes.
        Positive = "positive",
        /// No records, or no.
        Negative = "negative",
        Unknown = "unknown",
    }
}

impl Answer {
    pub const fn kind(&self) -> AnswerKind {
        match self {
            Self::Records(_) | Self::Yes(_) => AnswerKind::Positive,
            Self::NoData | Self::NxDomain | Self::No(..) => AnswerKind::Negative,
            Self::Unknown(_) => AnswerKind::Unknown,
        }
    }
}

/// Receives the statistics of lookups.
pub trait LookupObserver: Send + Sync {
    /// A caller got its answer after waiting for `waited`, zero if the answer was known.
    fn on_answer(&self, kind: LookupKind, how: Resolution, answer: AnswerKind, waited: Duration);
    /// An answer that was not cached before. Observed traffic is not reported here.
    fn on_new_answer(&self, lookup: &Lookup, result: &LookupResult) {
        let _unused = (lookup, result);
    }
    /// A cached answer is queried again before it expires.
    fn on_refresh(&self, kind: LookupKind);
    /// An answer was taken from the store that several gateways share.
    fn on_shared_hit(&self, kind: LookupKind);
    /// Whether the shared store responds.
    fn on_store_state(&self, up: bool);
    /// Cached answers, and the memory for them in bytes (an estimate).
    fn on_cache_size(&self, entries: u64, bytes: u64);
    /// Lookups in flight.
    fn on_in_flight(&self, count: usize);
    /// Answers of the cache on disk that were damaged, and dropped.
    fn on_damaged_rows(&self, count: usize) {
        let _unused = count;
    }
}

/// Discards everything.
impl LookupObserver for () {
    fn on_answer(&self, _: LookupKind, _: Resolution, _: AnswerKind, _: Duration) {}
    fn on_refresh(&self, _: LookupKind) {}
    fn on_shared_hit(&self, _: LookupKind) {}
    fn on_store_state(&self, _: bool) {}
    fn on_cache_size(&self, _: u64, _: u64) {}
    fn on_in_flight(&self, _: usize) {}
}

/// Forwards to both, in order.
impl<A: LookupObserver, B: LookupObserver> LookupObserver for (Arc<A>, Arc<B>) {
    fn on_answer(&self, kind: LookupKind, how: Resolution, answer: AnswerKind, waited: Duration) {
        self.0.on_answer(kind, how, answer, waited);
        self.1.on_answer(kind, how, answer, waited);
    }

    fn on_new_answer(&self, lookup: &Lookup, result: &LookupResult) {
        self.0.on_new_answer(lookup, result);
        self.1.on_new_answer(lookup, result);
    }

    fn on_refresh(&self, kind: LookupKind) {
        self.0.on_refresh(kind);
        self.1.on_refresh(kind);
    }

    fn on_shared_hit(&self, kind: LookupKind) {
        self.0.on_shared_hit(kind);
        self.1.on_shared_hit(kind);
    }

    fn on_store_state(&self, up: bool) {
        self.0.on_store_state(up);
        self.1.on_store_state(up);
    }

    fn on_cache_size(&self, entries: u64, bytes: u64) {
        self.0.on_cache_size(entries, bytes);
        self.1.on_cache_size(entries, bytes);
    }

    fn on_in_flight(&self, count: usize) {
        self.0.on_in_flight(count);
        self.1.on_in_flight(count);
    }

    fn on_damaged_rows(&self, count: usize) {
        self.0.on_damaged_rows(count);
        self.1.on_damaged_rows(count);
    }
}
