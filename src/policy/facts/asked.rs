//! What is counted of lookups: their kinds, how each was answered, and who is told.
//!
//! It stands here, below those who answer and those who count, since these do not know each other.

use std::sync::Arc;
use std::time::Duration;

use super::{Answer, Lookup, LookupResult};

/// The kind of a [`Lookup`], without whom it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LookupKind {
    Reverse,
    Addresses,
    MailExchanges,
    Connect,
    Greet,
    Callout,
    Recipient,
    ReceivePath,
}

impl LookupKind {
    pub const ALL: [Self; 8] = [
        Self::Reverse,
        Self::Addresses,
        Self::MailExchanges,
        Self::Connect,
        Self::Greet,
        Self::Callout,
        Self::Recipient,
        Self::ReceivePath,
    ];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in metrics, and in `gatepost cache show`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reverse => "reverse",
            Self::Addresses => "addresses",
            Self::MailExchanges => "mail_exchanges",
            Self::Connect => "connect",
            Self::Greet => "greet",
            Self::Callout => "callout",
            Self::Recipient => "recipient",
            Self::ReceivePath => "receive_path",
        }
    }
}

impl Lookup {
    pub const fn kind(&self) -> LookupKind {
        match self {
            Self::Reverse(_) => LookupKind::Reverse,
            Self::Addresses(..) => LookupKind::Addresses,
            Self::MailExchanges(_) => LookupKind::MailExchanges,
            Self::Connect(_) => LookupKind::Connect,
            Self::Greet(_) => LookupKind::Greet,
            Self::Callout(..) => LookupKind::Callout,
            Self::Recipient(_) => LookupKind::Recipient,
            Self::ReceivePath(_) => LookupKind::ReceivePath,
        }
    }
}

/// How an answer was come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Obtained {
    /// Passing traffic had shown it.
    Traffic,
    /// It was known.
    Cache,
    /// Somebody else had asked the same and the answer was under way.
    Joined,
    /// Whoever knows was asked.
    Asked,
    /// Nobody was asked: a limit is reached.
    Limited,
    /// The deadline came before the answer.
    Timeout,
}

impl Obtained {
    pub const ALL: [Self; 6] =
        [Self::Traffic, Self::Cache, Self::Joined, Self::Asked, Self::Limited, Self::Timeout];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traffic => "traffic",
            Self::Cache => "cache",
            Self::Joined => "joined",
            Self::Asked => "asked",
            Self::Limited => "limited",
            Self::Timeout => "timeout",
        }
    }
}

/// What an answer comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    /// Records, or yes.
    Positive,
    /// None, or no.
    Negative,
    Unknown,
}

impl Told {
    pub const ALL: [Self; 3] = [Self::Positive, Self::Negative, Self::Unknown];

    /// Position in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Unknown => "unknown",
        }
    }
}

impl Answer {
    pub const fn told(&self) -> Told {
        match self {
            Self::Records(_) | Self::Yes(_) => Told::Positive,
            Self::NoData | Self::NxDomain | Self::No(..) => Told::Negative,
            Self::Unknown(_) => Told::Unknown,
        }
    }
}

/// Who is told of lookups.
pub trait ObserveLookups: Send + Sync {
    /// One was answered; `took` is the time that the asker waited: zero for what was known.
    fn answered(&self, kind: LookupKind, how: Obtained, told: Told, took: Duration);
    /// An answer came that was not known before; of what traffic shows, none.
    fn learnt(&self, lookup: &Lookup, answered: &LookupResult) {
        let _nobody_keeps = (lookup, answered);
    }
    /// An answer is asked for anew before it ends.
    fn renewed(&self, kind: LookupKind);
    /// What the store that gateways share held was taken.
    fn taken_over(&self, kind: LookupKind);
    /// Whether the store that gateways share answers.
    fn store_up(&self, up: bool);
    /// Answers that are kept, and the octets that they take, about.
    fn kept(&self, entries: u64, octets: u64);
    /// Answers under way.
    fn under_way(&self, flights: usize);
}

/// Nobody.
impl ObserveLookups for () {
    fn answered(&self, _: LookupKind, _: Obtained, _: Told, _: Duration) {}
    fn renewed(&self, _: LookupKind) {}
    fn taken_over(&self, _: LookupKind) {}
    fn store_up(&self, _: bool) {}
    fn kept(&self, _: u64, _: u64) {}
    fn under_way(&self, _: usize) {}
}

/// Both are told, in order.
impl<A: ObserveLookups, B: ObserveLookups> ObserveLookups for (Arc<A>, Arc<B>) {
    fn answered(&self, kind: LookupKind, how: Obtained, told: Told, took: Duration) {
        self.0.answered(kind, how, told, took);
        self.1.answered(kind, how, told, took);
    }

    fn learnt(&self, lookup: &Lookup, answered: &LookupResult) {
        self.0.learnt(lookup, answered);
        self.1.learnt(lookup, answered);
    }

    fn renewed(&self, kind: LookupKind) {
        self.0.renewed(kind);
        self.1.renewed(kind);
    }

    fn taken_over(&self, kind: LookupKind) {
        self.0.taken_over(kind);
        self.1.taken_over(kind);
    }

    fn store_up(&self, up: bool) {
        self.0.store_up(up);
        self.1.store_up(up);
    }

    fn kept(&self, entries: u64, octets: u64) {
        self.0.kept(entries, octets);
        self.1.kept(entries, octets);
    }

    fn under_way(&self, flights: usize) {
        self.0.under_way(flights);
        self.1.under_way(flights);
    }
}
