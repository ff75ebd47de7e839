//! Whom a rule is about, and whom it leaves alone.

use std::net::SocketAddr;

use super::{PolicyStage, Subject};
use crate::addr::{Family, Networks};
use crate::label::labels;
use crate::policy::facts::{DomainName, DomainOrLiteral};

/// Conditions; all of those given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    pub family: Option<Family>,
    /// The client's; empty is every address.
    pub networks: Networks,
    /// Where the client connected to; empty is anywhere.
    pub listeners: Vec<SocketAddr>,
    /// What it named itself; empty is anything.
    pub helo: Domains,
    /// The domain of MAIL FROM; empty is any.
    pub sender: Domains,
    /// The domain of RCPT TO; empty is any.
    pub recipient: Domains,
    /// Within TLS; the gateway sees only whether STARTTLS was offered and refused, or the connection was plain.
    pub tls: Option<bool>,
    /// After an AUTH that succeeded.
    pub auth: Option<bool>,
}

impl When {
    /// When all that it asks about is known.
    pub fn moment(&self) -> PolicyStage {
        if !self.recipient.is_empty() {
            PolicyStage::Rcpt
        } else if !self.sender.is_empty() || self.auth.is_some() || self.tls.is_some() {
            PolicyStage::Mail
        } else if !self.helo.is_empty() {
            PolicyStage::Helo
        } else {
            PolicyStage::Connect
        }
    }

    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let path = |path: Option<&str>| path.and_then(DomainOrLiteral::of_path);
        self.family.is_none_or(|family| family == Family::of(subject.client))
            && (self.networks.is_empty() || self.networks.contains(subject.client))
            && (self.listeners.is_empty() || self.listeners.contains(&subject.listener))
            && self.helo.cover(|| subject.helo.and_then(DomainOrLiteral::parse))
            && self.sender.cover(|| path(subject.sender))
            && self.recipient.cover(|| path(subject.recipient))
            && self.tls.is_none_or(|tls| tls == subject.tls)
            && self.auth.is_none_or(|auth| auth == subject.authenticated)
    }
}

/// Domains: exact ones (`a.example`), and those with all below them (`.a.example`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    pub exact: Vec<DomainName>,
    /// What is below each; not the domain itself.
    pub below: Vec<DomainName>,
}

impl Domains {
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    pub fn contain(&self, domain: &DomainName) -> bool {
        self.exact.contains(domain)
            || self.below.iter().any(|above| domain != above && domain.is_within(above))
    }

    /// Whether there is no condition, or `said` fulfils it.
    fn cover(&self, said: impl FnOnce() -> Option<DomainOrLiteral>) -> bool {
        if self.is_empty() {
            return true;
        }
        match said() {
            Some(DomainOrLiteral::Domain(domain)) => self.contain(&domain),
            Some(DomainOrLiteral::Literal(_)) | None => false,
        }
    }
}

labels! {
    /// Whom a rule leaves alone unless its `exempt` says otherwise.
    pub enum Exemption {
        /// `MAIL FROM:<>`: bounces.
        NullSender = "null-sender",
        /// `postmaster` at any domain or none (RFC 5321 §4.5.1).
        Postmaster = "postmaster",
        /// `abuse` at any domain (RFC 2142 §4).
        Abuse = "abuse",
        /// A client whose AUTH succeeded.
        Authenticated = "authenticated",
    }
}

impl Exemption {
    pub fn covers(self, subject: &Subject<'_>) -> bool {
        // Every rule asks this of every recipient, and hardly any begins so.
        let mailbox = |name: &str| {
            let split = subject.recipient.and_then(|path| path.split_at_checked(name.len()));
            split.is_some_and(|(local, rest)| {
                local.eq_ignore_ascii_case(name) && (rest.is_empty() || rest.rfind('@') == Some(0))
            })
        };
        match self {
            Self::NullSender => subject.sender == Some(""),
            Self::Postmaster => mailbox("postmaster"),
            Self::Abuse => mailbox("abuse"),
            Self::Authenticated => subject.authenticated,
        }
    }
}
