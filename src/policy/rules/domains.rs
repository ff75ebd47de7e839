//! Lists of domains in conditions.

use crate::policy::facts::{DomainName, DomainOrLiteral};

/// Exact domains (`a.example`), and domains whose subdomains match (`.a.example`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Domains {
    pub exact: Vec<DomainName>,
    /// Subdomains of each match, the domain itself does not.
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

    pub(super) fn match_or_empty(&self, domain: impl FnOnce() -> Option<DomainOrLiteral>) -> bool {
        if self.is_empty() {
            return true;
        }
        match domain() {
            Some(DomainOrLiteral::Domain(domain)) => self.contain(&domain),
            Some(DomainOrLiteral::Literal(_)) | None => false,
        }
    }
}
