//! Match conditions and exemptions of a rule.

use std::net::IpAddr;

use super::client_certificate::CertificateCondition;
use super::domains::Domains;
use super::subject::{PolicyStage, Subject};
use crate::addr::{Family, Networks};
use crate::label::labels;
use crate::policy::facts::{DomainName, DomainOrLiteral};
use crate::policy::listener::ListenerCondition;

/// All given conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    pub family: Option<Family>,
    /// Of the client; empty matches every address.
    pub networks: Networks,
    pub listeners: ListenerCondition,
    /// The HELO name; empty matches every name.
    pub helo: Domains,
    /// The domain of MAIL FROM; empty matches every domain.
    pub sender: Domains,
    /// The domain of RCPT TO; empty matches every domain.
    pub recipient: Domains,
    /// The session is encrypted. In passthrough the gateway only sees sessions before STARTTLS.
    pub tls: Option<bool>,
    /// AUTH succeeded.
    pub auth: Option<bool>,
    /// Evaluated with the answers, see `CertificateCondition::state`.
    pub client_certificate: CertificateCondition,
}

impl When {
    /// The first stage at which all conditions can be evaluated.
    pub fn stage(&self) -> PolicyStage {
        if !self.recipient.is_empty() {
            PolicyStage::Rcpt
        } else if !self.sender.is_empty()
            || self.auth.is_some()
            || self.tls.is_some()
            || !self.client_certificate.is_empty()
        {
            PolicyStage::Mail
        } else if !self.helo.is_empty() {
            PolicyStage::Helo
        } else {
            PolicyStage::Connect
        }
    }

    /// Whether the conditions on the client's address hold.
    pub(super) fn matches_client(&self, client: IpAddr) -> bool {
        self.family.is_none_or(|family| family == Family::of(client))
            && (self.networks.is_empty() || self.networks.contains(client))
    }

    /// All but that on the client's certificate.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let domain = |path: Option<&str>| path.and_then(DomainOrLiteral::of_path);
        self.matches_client(subject.client)
            && self.listeners.matches(subject.listener, subject.destination)
            && self.helo.match_or_empty(|| subject.helo.and_then(DomainOrLiteral::parse))
            && self.sender.match_or_empty(|| domain(subject.sender))
            && self.recipient.match_or_empty(|| domain(subject.recipient))
            && self.tls.is_none_or(|tls| tls == subject.tls)
            && self.auth.is_none_or(|auth| auth == subject.authenticated)
    }
}

labels! {
    /// Sessions and recipients that a rule skips by default (rule 10 of ARCHITECTURE.md). `<>` is none of them: it passes
    /// `return_path`, and nothing else.
    pub enum Exemption {
        /// `postmaster` at a domain of the site, or without domain (RFC 5321 §4.5.1).
        Postmaster = "postmaster",
        /// `abuse` at a domain of the site (RFC 2142 §4).
        Abuse = "abuse",
        /// A client whose AUTH succeeded.
        Authenticated = "authenticated",
    }
}

impl Exemption {
    /// `site`: the domains that the site accepts mail for.
    pub fn matches(self, subject: &Subject<'_>, site: &[DomainName]) -> bool {
        match self {
            Self::Postmaster => {
                let alone = || {
                    let recipient = subject.recipient.unwrap_or_default();
                    recipient.eq_ignore_ascii_case("postmaster")
                };
                alone() || is_mailbox_of_site("postmaster", subject, site)
            }
            Self::Abuse => is_mailbox_of_site("abuse", subject, site),
            Self::Authenticated => subject.authenticated,
        }
    }
}

/// Only exactly `name@domain`: a server may read anything else as another mailbox.
fn is_mailbox_of_site(name: &str, subject: &Subject<'_>, site: &[DomainName]) -> bool {
    // Compares without allocating first: this runs for every recipient and rule.
    let split = subject.recipient.and_then(|path| path.split_at_checked(name.len()));
    let named = split.filter(|(local, _)| local.eq_ignore_ascii_case(name));
    let domain = named.and_then(|(_, rest)| DomainName::parse(rest.strip_prefix('@')?));
    domain.is_some_and(|domain| site.contains(&domain))
}
