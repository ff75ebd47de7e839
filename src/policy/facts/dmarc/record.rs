//! DMARC records (RFC 9989 §4.7).

use crate::dkim::{tags, value};
use crate::label::labels;
use crate::policy::facts::DomainName;

labels! {
    /// The handling that a domain asks for, of mail that fails DMARC. In order of severity.
    pub enum DmarcPolicy {
        None = "none",
        Quarantine = "quarantine",
        Reject = "reject",
    }
}

impl DmarcPolicy {
    /// The policy of a record in test mode.
    const fn lowered(self) -> Self {
        match self {
            Self::Reject => Self::Quarantine,
            Self::Quarantine | Self::None => Self::None,
        }
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|policy| policy.as_str().eq_ignore_ascii_case(word))
    }
}

/// The author's domain, as the domain with the record sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DmarcScope {
    /// The domain with the record: `p=`.
    Domain,
    /// A subdomain: `sp=`.
    Subdomain,
    /// A subdomain without address and MX records: `np=`.
    MissingSubdomain,
}

/// `psd=`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PublicSuffix {
    Yes,
    No,
    NotStated,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmarcRecord {
    /// The domain whose `_dmarc` has it.
    pub domain: DomainName,
    pub text: String,
    tags: Vec<(String, String)>,
}

impl DmarcRecord {
    /// `None` for a text that is no DMARC record: it does not begin with `v=DMARC1`. Parts that are no tags, and unknown tags,
    /// are ignored.
    pub fn parse(domain: &DomainName, text: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(text).into_owned();
        let tags = tags(&text);
        let is_dmarc = tags.first().is_some_and(|(name, value)| name == "v" && value == "DMARC1");
        is_dmarc.then(|| Self { domain: domain.clone(), text, tags })
    }

    /// The value of the first tag with this name.
    pub fn tag(&self, name: &str) -> Option<&str> {
        value(&self.tags, name)
    }

    /// The policy for a domain. `None`: DMARC does not apply, as without a record (§4.10.1: a policy is malformed, and there is
    /// no address for reports).
    pub fn policy(&self, scope: DmarcScope) -> Option<DmarcPolicy> {
        let [p, sp, np] = ["p", "sp", "np"].map(|name| self.tag(name).map(DmarcPolicy::parse));
        if [p, sp, np].contains(&Some(None)) {
            return self.has_report_address().then_some(DmarcPolicy::None);
        }
        let own = p.flatten().unwrap_or(DmarcPolicy::None);
        let of_subdomains = sp.flatten().unwrap_or(own);
        let policy = match scope {
            DmarcScope::Domain => own,
            DmarcScope::Subdomain => of_subdomains,
            DmarcScope::MissingSubdomain => np.flatten().unwrap_or(of_subdomains),
        };
        Some(if self.is_test() { policy.lowered() } else { policy })
    }

    /// `t=y` (§4.7). RFC 9989 removed `pct=`; of its values only 0 is common, and meant the same. Others are ignored.
    fn is_test(&self) -> bool {
        self.has("t", "y") || self.has("pct", "0")
    }

    pub(super) fn is_strict_for_dkim(&self) -> bool {
        self.has("adkim", "s")
    }

    pub(super) fn is_strict_for_spf(&self) -> bool {
        self.has("aspf", "s")
    }

    pub(super) fn public_suffix(&self) -> PublicSuffix {
        if self.has("psd", "y") {
            PublicSuffix::Yes
        } else if self.has("psd", "n") {
            PublicSuffix::No
        } else {
            PublicSuffix::NotStated
        }
    }

    fn has(&self, name: &str, word: &str) -> bool {
        self.tag(name).is_some_and(|value| value.eq_ignore_ascii_case(word))
    }

    /// A URI in `rua=`.
    fn has_report_address(&self) -> bool {
        let is_uri = |uri: &str| {
            uri.trim().split_once(':').is_some_and(|(scheme, rest)| {
                let mut letters = scheme.bytes();
                letters.next().is_some_and(|first| first.is_ascii_alphabetic())
                    && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
                    && !rest.is_empty()
                    && rest.bytes().all(|b| b.is_ascii_graphic())
            })
        };
        self.tag("rua").is_some_and(|uris| uris.split(',').any(is_uri))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> DmarcRecord {
        DmarcRecord::parse(&DomainName::parse("a.example").unwrap(), text.as_bytes()).unwrap()
    }

    #[test]
    fn policies() {
        use DmarcPolicy::{None as No, Quarantine as Quar, Reject as Rej};
        let none = [None; 3];
        for (text, expected) in [
            ("v=DMARC1; p=reject", [Some(Rej); 3]),
            ("v=DMARC1;p=REJECT;sp=quarantine;np=none", [Some(Rej), Some(Quar), Some(No)]),
            ("v=DMARC1; p=none; np=reject", [Some(No), Some(No), Some(Rej)]),
            ("v=DMARC1; p=none; sp=reject", [Some(No), Some(Rej), Some(Rej)]),
            ("v = DMARC1 ; p = quarantine", [Some(Quar); 3]),
            ("v=DMARC1", [Some(No); 3]),
            ("v=DMARC1; sp=reject", [Some(No), Some(Rej), Some(Rej)]),
            // The first of a tag counts.
            ("v=DMARC1; p=none; p=reject", [Some(No); 3]),
            // Test mode lowers each by one.
            ("v=DMARC1; p=reject; t=y", [Some(Quar); 3]),
            ("v=DMARC1; p=quarantine; t=Y; sp=reject", [Some(No), Some(Quar), Some(Quar)]),
            ("v=DMARC1; p=reject; t=n", [Some(Rej); 3]),
            ("v=DMARC1; p=reject; pct=0", [Some(Quar); 3]),
            ("v=DMARC1; p=reject; pct=10", [Some(Rej); 3]),
            // A malformed policy.
            ("v=DMARC1; p=rejct", none),
            ("v=DMARC1; p=reject; sp=all", none),
            ("v=DMARC1; p=reject; np=", none),
            ("v=DMARC1; p=rejct; rua=reports", none),
            ("v=DMARC1; p=rejct; rua=mailto:d@a.example", [Some(No); 3]),
            ("v=DMARC1; p=rejct; rua=x, https://a.example/d", [Some(No); 3]),
            // Parts that are no tags, and unknown tags.
            ("v=DMARC1; reject; p=reject; x=1;;", [Some(Rej); 3]),
        ] {
            use DmarcScope::{Domain, MissingSubdomain, Subdomain};
            let record = record(text);
            let found = [Domain, Subdomain, MissingSubdomain].map(|scope| record.policy(scope));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn other_texts_are_no_records() {
        let domain = DomainName::parse("a.example").unwrap();
        for text in
            ["", "v=spf1 -all", "v=DMARC2; p=reject", "v=dmarc1; p=none", "p=none; v=DMARC1"]
        {
            assert_eq!(DmarcRecord::parse(&domain, text.as_bytes()), None, "{text}");
        }
        // Octets that are no UTF-8 spoil one tag only.
        let found = DmarcRecord::parse(&domain, b"v=DMARC1; p=reject; rua=\xff").unwrap();
        assert_eq!(found.policy(DmarcScope::Domain), Some(DmarcPolicy::Reject));
    }

    #[test]
    fn flags() {
        let strict = record("v=DMARC1; adkim=s; aspf=S; psd=y");
        assert!(strict.is_strict_for_dkim() && strict.is_strict_for_spf());
        assert_eq!(strict.public_suffix(), PublicSuffix::Yes);
        let relaxed = record("v=DMARC1; adkim=r; aspf=strict; psd=u");
        assert!(!relaxed.is_strict_for_dkim() && !relaxed.is_strict_for_spf());
        assert_eq!(relaxed.public_suffix(), PublicSuffix::NotStated);
        assert_eq!(record("v=DMARC1; psd=N").public_suffix(), PublicSuffix::No);
    }
}
