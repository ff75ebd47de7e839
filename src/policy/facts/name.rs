//! Domain names as the DNS compares them, and domains or address literals in SMTP arguments.
//!
//! RFC 1035 §2.3.3 (case), RFC 5890 (U-labels become A-labels), RFC 5321 §4.1.3 (address literals).

use std::fmt;
use std::net::IpAddr;

use hickory_proto::rr::Name;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An absolute domain name in lower case. Names that differ only in case or in a final dot are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DomainName(Name);

impl DomainName {
    /// A host or mail domain in an SMTP argument, with or without a final dot. `None` for empty or long labels, characters
    /// other than letters, digits, `-` and `_` (found in real host names), and an all-numeric last label (an address,
    /// RFC 3696 §2).
    pub fn parse(text: &str) -> Option<Self> {
        // Of the characters beyond ASCII, IDNA accepts those that may be in a name.
        let is_name =
            |c: char| c.is_ascii_alphanumeric() || !c.is_ascii() || matches!(c, '-' | '_' | '.');
        if text.is_empty() || !text.chars().all(is_name) {
            return None;
        }
        // IDNA processing is slow and changes nothing but the case of ASCII.
        let ascii = text.is_ascii();
        let name = if ascii { Name::from_ascii(text) } else { Name::from_str_relaxed(text) };
        let name = Self::from(name.ok()?);
        let last = name.0.iter().next_back()?;
        let ascii = name.0.iter().flatten().all(u8::is_ascii);
        (ascii && !last.iter().all(u8::is_ascii_digit)).then_some(name)
    }

    /// The name under `in-addr.arpa` or `ip6.arpa` that holds the PTR records of `ip`.
    pub fn reverse(ip: IpAddr) -> Self {
        Self::from(Name::from(ip.to_canonical()))
    }

    pub fn root() -> Self {
        Self::from(Name::root())
    }

    /// The root: as an MX it means that the domain accepts no mail (RFC 7505).
    pub fn is_root(&self) -> bool {
        self.0.is_root()
    }

    /// The name without its first label; the root is its own parent.
    #[must_use]
    pub fn parent(&self) -> Self {
        Self(self.0.base_name())
    }

    /// This name or one below it.
    pub fn is_within(&self, domain: &Self) -> bool {
        domain.0.zone_of(&self.0)
    }

    /// `*` below this name; `None` if the result is too long for a name.
    pub fn wildcard(&self) -> Option<Self> {
        self.0.prepend_label("*").ok().map(Self)
    }

    pub fn as_dns(&self) -> &Name {
        &self.0
    }
}

impl From<Name> for DomainName {
    fn from(name: Name) -> Self {
        let is_lower = name.iter().flatten().all(|octet| !octet.is_ascii_uppercase());
        let mut name = if is_lower { name } else { name.to_lowercase() };
        name.set_fqdn(true);
        Self(name)
    }
}

/// Without the final dot; the root is `.`.
impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_ascii();
        f.write_str(if self.is_root() { "." } else { text.trim_end_matches('.') })
    }
}

impl Serialize for DomainName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Accepts any DNS name in the form of [`fmt::Display`].
impl<'de> Deserialize<'de> for DomainName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Name::from_ascii(&text).map(Self::from).map_err(serde::de::Error::custom)
    }
}

/// `Domain / address-literal` (RFC 5321 §4.1.2): the argument of EHLO, and the part of a path after `@`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DomainOrLiteral {
    Domain(DomainName),
    /// `[192.0.2.1]` or `[IPv6:2001:db8::1]`. Not canonicalised, so that a v4-mapped address can be recognised.
    Literal(IpAddr),
}

impl DomainOrLiteral {
    /// `None` if `text` is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(literal) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return DomainName::parse(text).map(Self::Domain);
        };
        let v6 = literal.split_at_checked(5).filter(|(tag, _)| tag.eq_ignore_ascii_case("IPv6:"));
        let address = match v6 {
            Some((_, address)) => address.parse().map(IpAddr::V6),
            None => literal.parse().map(IpAddr::V4),
        };
        address.ok().map(Self::Literal)
    }

    /// Of a path without angle brackets: `user@domain`. `None` if there is no `@` or neither form after it.
    pub fn of_path(path: &str) -> Option<Self> {
        path.rsplit_once('@').and_then(|(_, domain)| Self::parse(domain))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_compare_without_case_and_final_dot() {
        let name = |text| DomainName::parse(text).unwrap();
        assert_eq!(name("MX.A.Example."), name("mx.a.example"));
        assert_eq!(name("MX.A.Example.").to_string(), "mx.a.example");
        assert_eq!(name("büro.example").to_string(), "xn--bro-hoa.example");
        assert_eq!(name("host_1.a.example").to_string(), "host_1.a.example");
        assert!(name("mx.a.example").is_within(&name("A.example")));
        assert!(name("a.example").is_within(&name("a.example")));
        assert!(!name("ba.example").is_within(&name("a.example")));
        assert_eq!(DomainName::from(Name::root()).to_string(), ".");
        let ip = "2001:db8::1".parse().unwrap();
        assert!(DomainName::reverse(ip).to_string().ends_with("8.b.d.0.1.0.0.2.ip6.arpa"));
        let mapped = "::ffff:192.0.2.7".parse().unwrap();
        assert_eq!(DomainName::reverse(mapped).to_string(), "7.2.0.192.in-addr.arpa");
    }

    #[test]
    fn malformed_domains_are_refused() {
        let long = "a".repeat(64);
        let longer = format!("{}example", "abcdefgh.".repeat(30));
        for not in [
            "",
            ".",
            "a..b",
            ".a",
            "a b",
            "a@b",
            "192.0.2.1",
            "a.1",
            "a\\.b",
            "[a]",
            "a/b",
            "*.a",
            &long,
            &longer,
        ] {
            assert_eq!(DomainName::parse(not), None, "{not}");
        }
    }

    proptest! {
        /// The fast path for ASCII gives the same names as IDNA processing.
        #[test]
        fn ascii_and_idna_parsing_agree(
            text in "((xn--|XN--)?[-_A-Za-z0-9]{0,8}[.]?){0,6}|[-_a-z0-9]{60,66}|([a-z]{30}[.]){6,9}[a-z]{0,9}"
        ) {
            let read = Name::from_str_relaxed(&text).map(DomainName::from).ok();
            let is_number = |label: &[u8]| label.iter().all(u8::is_ascii_digit);
            let host = |name: &DomainName| name.0.iter().next_back().is_some_and(|last| !is_number(last));
            prop_assert_eq!(DomainName::parse(&text), read.filter(host));
        }
    }

    #[test]
    fn literals_follow_rfc_5321() {
        let literal = |ip: &str| Some(DomainOrLiteral::Literal(ip.parse().unwrap()));
        assert_eq!(DomainOrLiteral::parse("[192.0.2.1]"), literal("192.0.2.1"));
        assert_eq!(DomainOrLiteral::parse("[ipv6:2001:db8::1]"), literal("2001:db8::1"));
        assert_eq!(DomainOrLiteral::of_path("a@b@[IPv6:::1]"), literal("::1"));
        for not in ["[2001:db8::1]", "[IPv6:192.0.2.1]", "[192.0.2.1", "[]", "[IPv6:]", "192.0.2.1"]
        {
            assert_eq!(DomainOrLiteral::parse(not), None, "{not}");
        }
        assert_eq!(DomainOrLiteral::of_path("postmaster"), None);
    }
}
