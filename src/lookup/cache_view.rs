//! Cached answers as `gatepost cache` shows them.

use serde::{Deserialize, Serialize};

use super::cache_entry::CacheEntry;
use crate::policy::facts::{Answer, DnsRecord, Lookup};

/// One cached answer. The serde form is that of `gatepost cache show --format json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheRow {
    pub lookup: Lookup,
    #[serde(flatten)]
    pub entry: CacheEntry,
}

impl CacheRow {
    /// The answer as text.
    pub fn answer(&self) -> String {
        let with = |word: String, detail: &Option<String>| match detail {
            Some(detail) => format!("{word}, {detail}"),
            None => word,
        };
        match &self.entry.result.answer {
            Answer::Records(records) => {
                let texts = records.iter().map(|record| match record {
                    DnsRecord::Name(name) => name.to_string(),
                    DnsRecord::Address(ip) => ip.to_string(),
                    DnsRecord::Exchange { preference, host } => format!("{preference} {host}"),
                    DnsRecord::Text(text) => {
                        String::from_utf8_lossy(text).escape_debug().to_string()
                    }
                });
                texts.collect::<Vec<_>>().join(", ")
            }
            Answer::NoData => String::from("no data"),
            Answer::NxDomain => String::from("no such name"),
            Answer::Yes(detail) => with(String::from("yes"), detail),
            Answer::No(reason, detail) => with(format!("no: {}", reason.as_str()), detail),
            Answer::Unknown(reason) => format!("unknown: {}", reason.as_str()),
        }
    }
}

/// The address, name or mailbox of a lookup, as text.
pub fn subject(lookup: &Lookup) -> String {
    match lookup {
        Lookup::Reverse(ip) | Lookup::Connect(ip) | Lookup::Greet(ip) => ip.to_string(),
        Lookup::Addresses(name, family) => format!("{name} {family}"),
        Lookup::MailExchanges(name) | Lookup::Texts(name) => name.to_string(),
        Lookup::Callout(ip, path) => format!("{path} at {ip}"),
        Lookup::Recipient(path) => path.clone(),
        Lookup::ReceivePath(family) => family.to_string(),
    }
}

/// Whether `pattern` occurs in the kind and the subject of `lookup`, joined by a space; ignores case. Without a pattern every
/// lookup matches.
pub fn matches_pattern(pattern: Option<&str>, lookup: &Lookup) -> bool {
    let Some(pattern) = pattern else { return true };
    let text = format!("{} {}", lookup.kind().as_str(), subject(lookup));
    text.to_lowercase().contains(&pattern.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_kind_and_subject() {
        let ip = "2001:db8::25".parse().unwrap();
        let greet = Lookup::Greet(ip);
        let callout = Lookup::Callout(ip, String::from("Joe@a.example"));
        for (pattern, of_greet, of_callout) in [
            (None, true, true),
            (Some("greet"), true, false),
            (Some("2001:DB8::"), true, true),
            (Some("joe@"), false, true),
            (Some("greet 2001"), true, false),
            (Some("connect"), false, false),
        ] {
            assert_eq!(matches_pattern(pattern, &greet), of_greet, "{pattern:?}");
            assert_eq!(matches_pattern(pattern, &callout), of_callout, "{pattern:?}");
        }
    }
}
