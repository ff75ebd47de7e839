//! The syntax of an SPF record (RFC 7208 §4.5, §4.6, §5, §6).

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::macros::DomainSpec;

const MECHANISMS: [&str; 8] = ["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"];

/// A parsed record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpfRecord {
    pub directives: Vec<Directive>,
    pub redirect: Option<DomainSpec>,
    has_exp: bool,
    /// Each makes the evaluation a permanent error.
    pub errors: Vec<String>,
    /// Valid, but probably not intended.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    pub qualifier: Qualifier,
    pub mechanism: Mechanism,
    /// The term in the record.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qualifier {
    Pass,
    Fail,
    SoftFail,
    Neutral,
}

/// Without a domain-spec the domain itself is used. The numbers are prefix lengths of IPv4 and IPv6.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mechanism {
    All,
    Include(DomainSpec),
    A(Option<DomainSpec>, (u8, u8)),
    Mx(Option<DomainSpec>, (u8, u8)),
    Ptr(Option<DomainSpec>),
    Network(IpNet),
    Exists(DomainSpec),
}

/// An SPF record, valid or not.
pub fn is_spf(text: &[u8]) -> bool {
    has_version(text, b"v=spf1").is_some_and(|rest| rest.is_empty() || rest.starts_with(b" "))
}

/// A Sender ID record (RFC 4406).
pub fn is_sender_id(text: &[u8]) -> bool {
    has_version(text, b"spf2.0").is_some_and(|rest| rest.starts_with(b"/"))
}

fn has_version<'a>(text: &'a [u8], version: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = text.split_at_checked(version.len())?;
    start.eq_ignore_ascii_case(version).then_some(rest)
}

impl SpfRecord {
    /// `text` must pass [`is_spf`].
    pub fn parse(text: &[u8]) -> Self {
        let mut record = Self::default();
        if !text.is_ascii() {
            record.errors.push("characters other than ASCII".to_owned());
        }
        let text = String::from_utf8_lossy(text);
        for term in text.split(' ').skip(1).filter(|term| !term.is_empty()) {
            if let Err(why) = record.term(term) {
                record.errors.push(format!("{term}: {why}"));
            }
        }
        let all = record.directives.iter().position(|one| one.mechanism == Mechanism::All);
        if let Some(after) = all.and_then(|all| record.directives.get(all + 1)) {
            record.warnings.push(format!("{}: ignored after \"all\"", after.text));
        }
        if all.is_some() && record.redirect.is_some() {
            record.warnings.push("redirect=: ignored beside \"all\"".to_owned());
        }
        record
    }

    fn term(&mut self, term: &str) -> Result<(), String> {
        let end = term.find([':', '=', '/']).unwrap_or(term.len());
        let (name, rest) = term.split_at(end);
        if let Some(value) = rest.strip_prefix('=') {
            return self.modifier(name, value);
        }
        let (qualifier, name) = match name.split_at_checked(1) {
            Some(("+", name)) => (Qualifier::Pass, name),
            Some(("-", name)) => (Qualifier::Fail, name),
            Some(("~", name)) => (Qualifier::SoftFail, name),
            Some(("?", name)) => (Qualifier::Neutral, name),
            _ => (Qualifier::Pass, name),
        };
        let mechanism = mechanism(&name.to_ascii_lowercase(), rest)?;
        self.directives.push(Directive { qualifier, mechanism, text: term.to_owned() });
        Ok(())
    }

    fn modifier(&mut self, name: &str, value: &str) -> Result<(), String> {
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            "redirect" if self.redirect.is_some() => return Err("occurs twice".to_owned()),
            "redirect" => self.redirect = Some(DomainSpec::parse(value)?),
            "exp" if self.has_exp => return Err("occurs twice".to_owned()),
            "exp" => {
                DomainSpec::parse(value)?;
                self.has_exp = true;
            }
            _ if name.trim_start_matches(['+', '-', '~', '?']) != name => {
                return Err("mechanism with \"=\"; write \":\"".to_owned());
            }
            _ if MECHANISMS.contains(&name.as_str()) => {
                self.warnings.push(format!(
                    "{name}={value}: ignored as an unknown modifier; write {name}:{value}"
                ));
            }
            _ if !name.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                return Err("neither a mechanism nor a modifier".to_owned());
            }
            // RFC 7208 §6: unknown modifiers are ignored, but must be valid.
            _ => DomainSpec::check_macros(value)?,
        }
        Ok(())
    }
}

fn mechanism(name: &str, rest: &str) -> Result<Mechanism, String> {
    let value = rest.strip_prefix(':');
    let needed =
        || value.filter(|value| !value.is_empty()).ok_or_else(|| "value missing".to_owned());
    Ok(match name {
        "all" if rest.is_empty() => Mechanism::All,
        "all" => return Err("value after \"all\" not allowed".to_owned()),
        "include" => Mechanism::Include(DomainSpec::parse(needed()?)?),
        "exists" => Mechanism::Exists(DomainSpec::parse(needed()?)?),
        "ip4" => Mechanism::Network(ip4(needed()?)?.into()),
        "ip6" => Mechanism::Network(ip6(needed()?)?.into()),
        "ptr" if rest.is_empty() => Mechanism::Ptr(None),
        "ptr" if rest.starts_with('/') => return Err("prefix length not allowed".to_owned()),
        "ptr" => Mechanism::Ptr(Some(DomainSpec::parse(needed()?)?)),
        "a" | "mx" => {
            let (before, lengths) = lengths(rest)?;
            let spec = match before {
                "" => None,
                named => Some(DomainSpec::parse(named.strip_prefix(':').unwrap_or(named))?),
            };
            if name == "a" { Mechanism::A(spec, lengths) } else { Mechanism::Mx(spec, lengths) }
        }
        "ipv4" | "ip" => return Err("unknown mechanism; write ip4:".to_owned()),
        "ipv6" => return Err("unknown mechanism; write ip6:".to_owned()),
        _ => return Err("unknown mechanism".to_owned()),
    })
}

fn ip4(value: &str) -> Result<Ipv4Net, String> {
    let (address, length) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
    let length = length.map_or(Ok(32), |length| prefix(length, 32))?;
    let address = address.parse().map_err(|_no_address| match address {
        v6 if v6.parse::<std::net::Ipv6Addr>().is_ok() => "an IPv6 address; write ip6:".to_owned(),
        _ => format!("{address:?} is not an IPv4 address"),
    })?;
    Ipv4Net::new(address, length).map_err(|error| error.to_string())
}

fn ip6(value: &str) -> Result<Ipv6Net, String> {
    let (address, length) = value.split_once('/').map_or((value, None), |(a, b)| (a, Some(b)));
    let length = length.map_or(Ok(128), |length| prefix(length, 128))?;
    let address = address.parse().map_err(|_no_address| match address {
        bracketed if bracketed.starts_with('[') => {
            "write the IPv6 address without brackets".to_owned()
        }
        v4 if v4.parse::<std::net::Ipv4Addr>().is_ok() => "an IPv4 address; write ip4:".to_owned(),
        _ => format!("{address:?} is not an IPv6 address"),
    })?;
    Ipv6Net::new(address, length).map_err(|error| error.to_string())
}

/// `[:name][/LENGTH][//LENGTH]`: the part before the lengths, and the lengths.
fn lengths(rest: &str) -> Result<(&str, (u8, u8)), String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (rest, v6) = match rest.rsplit_once("//") {
        Some((before, number)) if is_number(number) => (before, prefix(number, 128)?),
        _ => (rest, 128),
    };
    let (rest, v4) = match rest.rsplit_once('/') {
        Some((before, number)) if is_number(number) => (before, prefix(number, 32)?),
        _ => (rest, 32),
    };
    Ok((rest, (v4, v6)))
}

fn prefix(text: &str, longest: u8) -> Result<u8, String> {
    let plain = !text.starts_with('0') || text == "0";
    let length = text.parse().ok().filter(|length| plain && *length <= longest);
    length.ok_or_else(|| format!("prefix length /{text} is not a number from 0 to {longest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_records_have_no_errors() {
        for good in [
            "v=spf1",
            "v=spf1 -all",
            "v=spf1 a mx:a.example/24 a/24//64 mx//64 -all",
            "V=SPF1 IP4:192.0.2.0/24 ip6:2001:db8::/32 ~all",
            "v=spf1 include:_spf.example.org exists:%{ir}.%{v}.a.example ?all",
            "v=spf1 redirect=_spf.a.example exp=why.a.example unknown=a/b",
        ] {
            assert!(is_spf(good.as_bytes()), "{good}");
            let record = SpfRecord::parse(good.as_bytes());
            assert_eq!((record.errors, record.warnings), (vec![], vec![]), "{good}");
        }
        for other in ["v=spf10 -all", "v=spf2.0/pra", "v=DMARC1; p=none", ""] {
            assert!(!is_spf(other.as_bytes()), "{other}");
        }
        assert!(is_sender_id(b"spf2.0/mfrom,pra -all") && !is_sender_id(b"v=spf1 -all"));
    }

    #[test]
    fn each_error_is_reported() {
        let mut report = String::new();
        for wrong in [
            "ip6:2001:db8::/129",
            "ip6:2001:db8:::1",
            "ip6:[2001:db8::1]",
            "ip6:192.0.2.1",
            "ip6:2001:db8::1/064",
            "ip6:",
            "ip6=2001:db8::1",
            "+ip6=2001:db8::1",
            "ip4:2001:db8::1",
            "ip4:192.0.2.1:25",
            "ip4:192.0.2.256",
            "ip4:192.0.2.0/33",
            "ipv6:2001:db8::1",
            "a:localhost",
            "a:a.example/33",
            "mx//129",
            "ptr/24",
            "include",
            "include:",
            "exists:%{z}.example",
            "all:x",
            "-all ip6:2001:db8::1",
            "-all redirect=a.example",
            "redirect=a.example redirect=b.example",
            "mailto:postmaster",
            "exp=a.example exp=b.example",
            "other=%abc",
            "\u{2013}all",
        ] {
            let record = SpfRecord::parse(format!("v=spf1 {wrong}").as_bytes());
            let faults: Vec<String> = record
                .errors
                .into_iter()
                .chain(record.warnings.into_iter().map(|warning| format!("(warning) {warning}")))
                .collect();
            assert!(!faults.is_empty(), "{wrong}");
            report += &format!("{wrong}\n    {}\n", faults.join("\n    "));
        }
        insta::assert_snapshot!(report);
    }
}
