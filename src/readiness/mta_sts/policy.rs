//! The policy file of MTA-STS (RFC 8461 §3.2).

use crate::label::labels;
use crate::policy::facts::DomainName;
use crate::readiness::versioned_text::is_field_name;

/// RFC 8461 §3.2, in seconds: about a year.
const MAX_MAX_AGE: u64 = 31_557_600;

labels! {
    pub(super) enum PolicyMode {
        None = "none",
        Testing = "testing",
        Enforce = "enforce",
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StsPolicy {
    pub(super) mode: PolicyMode,
    /// Seconds.
    pub(super) max_age: u64,
    pub(super) patterns: Vec<MxPattern>,
    /// Fields that are repeated though only their first value counts.
    pub(super) repeated: Vec<String>,
}

/// A host name, or `*.` and a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MxPattern {
    is_wildcard: bool,
    name: DomainName,
    pub(super) text: String,
}

impl MxPattern {
    fn parse(text: &str) -> Result<Self, String> {
        let (is_wildcard, name) = match text.strip_prefix("*.") {
            Some(domain) => (true, domain),
            None => (false, text),
        };
        if !name.is_ascii() {
            return Err(format!("mx: {text} is not ASCII: write the A-label (xn--…)"));
        }
        if name.ends_with('.') {
            return Err(format!("mx: {text} ends with a dot: write it without"));
        }
        let Some(name) = DomainName::parse(name) else {
            return Err(format!("mx: {text} is neither a host name nor \"*.\" before a domain"));
        };
        Ok(Self { is_wildcard, name, text: text.to_owned() })
    }

    /// RFC 8461 §4.1: a wildcard stands for exactly one label, the first.
    pub(super) fn matches(&self, host: &DomainName) -> bool {
        match self.is_wildcard {
            false => self.name == *host,
            true => !host.is_root() && host.parent() == self.name,
        }
    }
}

impl StsPolicy {
    /// # Errors
    /// All faults, each in words.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Vec<String>> {
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(vec!["not text in UTF-8".to_owned()]);
        };
        if text.starts_with('\u{feff}') {
            return Err(vec!["the file begins with a byte order mark".to_owned()]);
        }
        let mut fields = PolicyFields::default();
        let mut faults = Vec::new();
        for (number, line) in text.split('\n').enumerate() {
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches([' ', '\t']);
            if line.is_empty() {
                continue;
            }
            if let Err(why) = fields.add(line) {
                faults.push(format!("line {}: {why}", number + 1));
                // A page in HTML has hundreds.
                if faults.len() == 3 {
                    return Err(faults);
                }
            }
        }
        fields.finish(faults)
    }
}

#[derive(Debug, Default)]
struct PolicyFields<'a> {
    version: Option<&'a str>,
    mode: Option<&'a str>,
    max_age: Option<&'a str>,
    patterns: Vec<MxPattern>,
    repeated: Vec<String>,
}

impl<'a> PolicyFields<'a> {
    fn add(&mut self, line: &'a str) -> Result<(), String> {
        if line.contains('\r') {
            return Err("a CR without LF: end lines in LF or CRLF".to_owned());
        }
        let field = line.split_once(':').filter(|(name, _)| is_field_name(name));
        let Some((name, value)) = field else {
            return Err(format!("{line:?} is not \"name: value\""));
        };
        let value = value.trim_start_matches([' ', '\t']);
        let first = match name {
            "version" => &mut self.version,
            "mode" => &mut self.mode,
            "max_age" => &mut self.max_age,
            "mx" => {
                let pattern = MxPattern::parse(value)?;
                self.patterns.push(pattern);
                return Ok(());
            }
            other => {
                let lower = other.to_ascii_lowercase();
                return match lower.as_str() {
                    "version" | "mode" | "max_age" | "mx" if lower != other => {
                        Err(format!("{other} must be in lower case: {lower}"))
                    }
                    // An extension, which senders ignore.
                    _ => Ok(()),
                };
            }
        };
        if first.is_some() {
            self.repeated.push(name.to_owned());
        } else {
            *first = Some(value);
        }
        Ok(())
    }

    fn finish(self, mut faults: Vec<String>) -> Result<StsPolicy, Vec<String>> {
        match self.version {
            Some("STSv1") => {}
            Some(other) => faults.push(format!("version: {other} is not STSv1")),
            None => faults.push("version is missing".to_owned()),
        }
        let mode = self
            .mode
            .and_then(|word| PolicyMode::ALL.into_iter().find(|mode| mode.as_str() == word));
        match self.mode {
            Some(_) if mode.is_some() => {}
            Some(other) => faults.push(format!("mode: {other} is not enforce, testing or none")),
            None => faults.push("mode is missing".to_owned()),
        }
        let digits = self.max_age.filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()));
        let max_age = digits.and_then(|text| text.parse().ok()).filter(|age| *age <= MAX_MAX_AGE);
        match self.max_age {
            Some(_) if max_age.is_some() => {}
            Some(other) => faults
                .push(format!("max_age: {other} is not a number of seconds up to {MAX_MAX_AGE}")),
            None => faults.push("max_age is missing".to_owned()),
        }
        let has_mx_fault = faults.iter().any(|fault| fault.contains(": mx: "));
        if self.patterns.is_empty() && mode != Some(PolicyMode::None) && !has_mx_fault {
            faults.push("mx is missing".to_owned());
        }
        match (mode, max_age) {
            (Some(mode), Some(max_age)) if faults.is_empty() => {
                Ok(StsPolicy { mode, max_age, patterns: self.patterns, repeated: self.repeated })
            }
            _ => Err(faults),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_parsed() {
        let good =
            "version: STSv1\nmode: enforce\nmx: mx.a.example\nmx: *.b.example\nmax_age: 86400\n";
        let parsed = StsPolicy::parse(good.as_bytes()).unwrap();
        assert_eq!((parsed.mode, parsed.max_age), (PolicyMode::Enforce, 86_400));
        let texts: Vec<&str> = parsed.patterns.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(texts, ["mx.a.example", "*.b.example"]);
        for same in [
            good.replace('\n', "\r\n"),
            good.trim_end().to_owned(),
            good.replace(": ", ":"),
            good.replace('\n', " \t\n"),
            format!("{good}\n\nodd_name.x: ünd so weiter\n"),
        ] {
            assert_eq!(StsPolicy::parse(same.as_bytes()).as_ref(), Ok(&parsed), "{same}");
        }
        let twice = StsPolicy::parse(format!("{good}mode: none\nmax_age: 1\n").as_bytes()).unwrap();
        assert_eq!(twice.mode, PolicyMode::Enforce);
        assert_eq!(twice.repeated, ["mode", "max_age"]);
        assert!(StsPolicy::parse(b"version: STSv1\nmode: none\nmax_age: 0").is_ok());
    }

    #[test]
    fn faults_are_named() {
        for (change, to, expected) in [
            ("version: STSv1\n", "", "version is missing"),
            ("STSv1", "stsv1", "version: stsv1 is not STSv1"),
            ("enforce", "Enforce", "mode: Enforce is not enforce, testing or none"),
            ("mode", "Mode", "line 2: Mode must be in lower case: mode; mode is missing"),
            ("mode: enforce\n", "", "mode is missing"),
            (
                "mode:",
                "mode :",
                "line 2: \"mode : enforce\" is not \"name: value\"; mode is missing",
            ),
            ("mx: mx.a.example\n", "", "mx is missing"),
            (
                "mx.a.example",
                "mx.a.example.",
                "line 3: mx: mx.a.example. ends with a dot: write it without",
            ),
            (
                "mx.a.example",
                "mx.*.example",
                "line 3: mx: mx.*.example is neither a host name nor \"*.\" before a domain",
            ),
            (
                "mx.a.example",
                ".a.example",
                "line 3: mx: .a.example is neither a host name nor \"*.\" before a domain",
            ),
            (
                "mx.a.example",
                "bücher.example",
                "line 3: mx: bücher.example is not ASCII: write the A-label (xn--…)",
            ),
            ("86400", "1 day", "max_age: 1 day is not a number of seconds up to 31557600"),
            ("86400", "31557601", "max_age: 31557601 is not a number of seconds up to 31557600"),
            ("86400", "", "max_age:  is not a number of seconds up to 31557600"),
            (
                "\n",
                "\r",
                "line 1: a CR without LF: end lines in LF or CRLF; version is missing; mode is missing; max_age is missing; mx is missing",
            ),
            ("version", "\u{feff}version", "the file begins with a byte order mark"),
        ] {
            let good = "version: STSv1\nmode: enforce\nmx: mx.a.example\nmax_age: 86400\n";
            let text = good.replace(change, to);
            let faults = StsPolicy::parse(text.as_bytes()).unwrap_err();
            assert_eq!(faults.join("; "), expected, "{text}");
        }
        assert_eq!(StsPolicy::parse(b"\xff").unwrap_err(), ["not text in UTF-8"]);
        let page = "<html>\n".repeat(100);
        assert_eq!(StsPolicy::parse(page.as_bytes()).unwrap_err().len(), 3);
    }

    #[test]
    fn a_wildcard_is_one_label() {
        let matches = |pattern: &str, host: &str| {
            MxPattern::parse(pattern).unwrap().matches(&DomainName::parse(host).unwrap())
        };
        assert!(matches("MX.a.example", "mx.a.Example"));
        assert!(matches("*.a.example", "mx.a.example"));
        assert!(!matches("*.a.example", "a.example"));
        assert!(!matches("*.a.example", "x.mx.a.example"));
        assert!(!matches("mx.a.example", "x.mx.a.example"));
    }
}
