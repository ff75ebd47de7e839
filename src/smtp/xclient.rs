//! XCLIENT: reports the client's address and name to Postfix (XCLIENT_README; attributes are xtext, RFC 3461 §4).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Bytes of one XCLIENT command with its CRLF (XCLIENT_README: "limited to 512 characters").
const MAX_COMMAND: usize = 512;
/// RFC 1035 §2.3.4, and the limit of Postfix.
const MAX_LABEL: usize = 63;
const MAX_HOSTNAME: usize = 255;
/// Octets of a HELO name; upstream receives a longer one from the client itself.
const MAX_HELO: usize = 255;

/// A host name of the client, as far as it is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum XclientName {
    Known(String),
    /// There is none.
    Unavailable,
    /// The lookup failed: upstream defers what it would otherwise reject.
    #[default]
    TemporarilyUnavailable,
}

impl XclientName {
    /// A name from the DNS. One that is no host name is none: upstream would reject the whole command.
    pub fn known(name: String) -> Self {
        if is_hostname(&name) { Self::Known(name) } else { Self::Unavailable }
    }

    fn value(&self) -> &str {
        match self {
            Self::Known(name) => name,
            Self::Unavailable => "[UNAVAILABLE]",
            Self::TemporarilyUnavailable => "[TEMPUNAVAIL]",
        }
    }
}

/// Both names of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XclientNames {
    /// The PTR name that resolves back to the client's address.
    pub confirmed: XclientName,
    /// The PTR name, confirmed or not.
    pub reverse: XclientName,
}

/// The attributes of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XclientAttributes {
    pub client: SocketAddr,
    /// The original destination.
    pub destination: SocketAddr,
}

/// The attributes that upstream accepts: the argument of its XCLIENT keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XclientOffer<'a>(&'a str);

impl<'a> XclientOffer<'a> {
    /// `None` without ADDR: every client would look like the gateway.
    pub fn new(attributes: &'a str) -> Option<Self> {
        let offer = Self(attributes);
        offer.has("ADDR").then_some(offer)
    }

    /// Whether a client's name can be reported.
    pub fn has_names(self) -> bool {
        self.has("NAME") || self.has("REVERSE_NAME")
    }

    fn has(self, name: &str) -> bool {
        self.0.split_ascii_whitespace().any(|offered| offered.eq_ignore_ascii_case(name))
    }
}

impl XclientAttributes {
    /// The commands for all attributes that are offered, each with CRLF; several if one would be too long.
    ///
    /// Postfix resets protocol and HELO name with each command, so these are in the last one.
    pub fn commands(
        &self,
        offer: XclientOffer<'_>,
        names: &XclientNames,
        helo: Option<&str>,
        esmtp: bool,
    ) -> Vec<Vec<u8>> {
        let helo = helo.filter(|helo| !helo.is_empty() && helo.len() <= MAX_HELO);
        let attributes = [
            ("NAME", Some(names.confirmed.value().to_owned())),
            ("REVERSE_NAME", Some(names.reverse.value().to_owned())),
            ("ADDR", Some(address(self.client.ip()))),
            ("PORT", Some(self.client.port().to_string())),
            ("DESTADDR", Some(address(self.destination.ip()))),
            ("DESTPORT", Some(self.destination.port().to_string())),
            ("PROTO", Some(if esmtp { "ESMTP" } else { "SMTP" }.to_owned())),
            ("HELO", helo.map(str::to_owned)),
        ];
        let word = |(name, value): (&str, Option<String>)| {
            let value = value.filter(|_| offer.has(name))?;
            let word = format!(" {name}={}", xtext(&value));
            // A HELO of hundreds of escaped bytes: upstream receives it from the client itself.
            ("XCLIENT\r\n".len() + word.len() <= MAX_COMMAND).then_some(word)
        };
        let mut words: Vec<String> = attributes.into_iter().filter_map(word).collect();
        // Together, if they fit: see above.
        if let [.., protocol, helo] = words.as_mut_slice()
            && protocol.starts_with(" PROTO=")
            && "XCLIENT\r\n".len() + protocol.len() + helo.len() <= MAX_COMMAND
        {
            protocol.push_str(helo);
            words.pop();
        }
        let mut commands = Vec::new();
        let mut command = String::from("XCLIENT");
        for word in words {
            if command.len() + word.len() + "\r\n".len() > MAX_COMMAND {
                commands.push(finish(&command));
                command = String::from("XCLIENT");
            }
            command.push_str(&word);
        }
        commands.push(finish(&command));
        commands
    }
}

fn finish(command: &str) -> Vec<u8> {
    format!("{command}\r\n").into_bytes()
}

/// IPv6 with the `IPV6:` that XCLIENT wants before it.
fn address(ip: IpAddr) -> String {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("IPV6:{v6}"),
    }
}

/// As Postfix checks it (`valid_hostname`): labels of letters, digits, `_` and inner hyphens, and not only of digits.
fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    name.len() <= MAX_HOSTNAME && !is_number && name.split('.').all(is_label)
}

/// RFC 3461 §4: `+`, `=` and everything outside `!` to `~` as `+XX`.
fn xtext(value: &str) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, b| {
        if matches!(b, b'!'..=b'~') && b != b'+' && b != b'=' {
            out.push(char::from(b));
        } else {
            let _infallible = write!(out, "+{b:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const POSTFIX: &str = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";

    fn commands(client: &str, offered: &str, name: &str, helo: Option<&str>) -> Vec<String> {
        let attributes = XclientAttributes {
            client: client.parse().unwrap(),
            destination: "[2001:db8::25]:25".parse().unwrap(),
        };
        let names = XclientNames {
            confirmed: XclientName::known(name.to_owned()),
            reverse: XclientName::known(name.to_owned()),
        };
        let offer = XclientOffer::new(offered).unwrap();
        let commands = attributes.commands(offer, &names, helo, true);
        commands.into_iter().map(|c| String::from_utf8(c).unwrap()).collect()
    }

    #[test]
    fn all_that_postfix_offers_is_sent() {
        assert_eq!(
            commands("[2001:db8::1]:4000", POSTFIX, "mx.a.example", Some("mx+1.example")),
            [
                "XCLIENT NAME=mx.a.example REVERSE_NAME=mx.a.example ADDR=IPV6:2001:db8::1 PORT=4000 \
              DESTADDR=IPV6:2001:db8::25 DESTPORT=25 PROTO=ESMTP HELO=mx+2B1.example\r\n"
            ]
        );
        assert_eq!(
            commands("192.0.2.1:4000", "ADDR HELO", "mx.a.example", None),
            ["XCLIENT ADDR=192.0.2.1\r\n"]
        );
        assert_eq!(XclientOffer::new("NAME"), None);
        assert!(XclientOffer::new("addr name").unwrap().has_names());
        assert!(!XclientOffer::new("ADDR HELO").unwrap().has_names());
    }

    #[test]
    fn a_name_that_is_not_known_has_its_reason() {
        for (name, expected) in [
            (XclientName::Unavailable, "[UNAVAILABLE]"),
            (XclientName::TemporarilyUnavailable, "[TEMPUNAVAIL]"),
        ] {
            assert_eq!(name.value(), expected);
        }
        // Names of hostile PTR records, which Postfix would answer with 501.
        for name in [
            "",
            ".",
            "192.0.2.1",
            "12345",
            "a..example",
            "-a.example",
            "a-.example",
            "a b.example",
            "a\r\nRSET\r\n.example",
            "*.example",
            "[UNAVAILABLE]",
            "b\u{fc}cher.example",
            &format!("{}.example", "a".repeat(64)),
            &["a".repeat(63).as_str(); 5].join("."),
        ] {
            assert_eq!(XclientName::known(name.to_owned()), XclientName::Unavailable, "{name:?}");
        }
        for name in ["a", "a_b.example", "1.2.3.4.example", "xn--bcher-kva.example"] {
            assert_eq!(XclientName::known(name.to_owned()), XclientName::Known(name.to_owned()));
        }
    }

    #[test]
    fn never_over_512_octets_and_never_a_second_line() {
        let longest = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)].join(".");
        let hostile = "\r\n".repeat(100);
        let plain = "h".repeat(255);
        for (name, helo) in [
            ("mx.a.example", hostile.as_str()),
            ("mx.a.example", &"\r\n".repeat(300)),
            ("mx.a.example", &plain),
            (&longest, &plain),
            (&longest, "mx.a.example"),
        ] {
            let sent = commands(
                "[2001:db8:1111:2222:3333:4444:5555:6666]:40000",
                POSTFIX,
                name,
                Some(helo),
            );
            let mut attributes = Vec::new();
            for command in &sent {
                assert!(command.len() <= 512, "{command}");
                assert_eq!(command.matches("\r\n").count(), 1, "{command}");
                let words = command.trim_end().strip_prefix("XCLIENT ").unwrap().split(' ');
                attributes.extend(words.map(|word| word.split_once('=').unwrap().0));
            }
            let mut all =
                vec!["NAME", "REVERSE_NAME", "ADDR", "PORT", "DESTADDR", "DESTPORT", "PROTO"];
            if helo.len() <= 255 && xtext(helo).len() < 490 {
                all.push("HELO");
                let last = sent.last().unwrap();
                assert!(last.contains(" PROTO=ESMTP HELO="), "{last}");
            }
            assert_eq!(attributes, all, "each once, in this order");
        }
    }
}
