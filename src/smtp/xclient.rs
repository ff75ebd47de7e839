//! XCLIENT: reports the client's address to Postfix (XCLIENT_README; attributes are xtext, RFC 3461 §4).

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Bytes of one XCLIENT command with its CRLF (XCLIENT_README: "limited to 512 characters").
const MAX_COMMAND: usize = 512;

/// The attributes of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct XclientAttributes {
    pub client: SocketAddr,
    /// The original destination.
    pub destination: SocketAddr,
}

impl XclientAttributes {
    /// The commands for all attributes, each with CRLF; several if one would be too long. `offered` is the
    /// argument of upstream's XCLIENT keyword: an attribute that is not offered is not sent. `None` if upstream does not accept ADDR, since
    /// without it every client would look like the gateway.
    pub fn commands(&self, offered: &str, helo: Option<&str>, esmtp: bool) -> Option<Vec<Vec<u8>>> {
        let offers =
            |name: &str| offered.split_ascii_whitespace().any(|o| o.eq_ignore_ascii_case(name));
        if !offers("ADDR") {
            return None;
        }
        let attributes = [
            // The gateway has not looked the name up: "temporarily unavailable" makes Postfix defer, not reject.
            ("NAME", Some("[TEMPUNAVAIL]".to_owned())),
            ("ADDR", Some(address(self.client.ip()))),
            ("PORT", Some(self.client.port().to_string())),
            ("PROTO", Some(if esmtp { "ESMTP" } else { "SMTP" }.to_owned())),
            (
                "HELO",
                helo.filter(|helo| !helo.is_empty()).map(|helo| helo.chars().take(255).collect()),
            ),
            ("DESTADDR", Some(address(self.destination.ip()))),
            ("DESTPORT", Some(self.destination.port().to_string())),
        ];
        let mut commands = Vec::new();
        let mut command = String::from("XCLIENT");
        for (name, value) in attributes {
            let Some(value) = value.filter(|_| offers(name)) else {
                continue;
            };
            let word = format!(" {name}={}", xtext(&value));
            if "XCLIENT\r\n".len() + word.len() > MAX_COMMAND {
                continue; // A HELO of hundreds of escaped bytes: upstream receives it from the client itself.
            }
            if command.len() + word.len() + 2 > MAX_COMMAND && command != "XCLIENT" {
                commands.push(finish(&command));
                command = String::from("XCLIENT");
            }
            command.push_str(&word);
        }
        commands.push(finish(&command));
        Some(commands)
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

    fn commands(client: &str, offered: &str, helo: Option<&str>) -> Option<Vec<String>> {
        let attributes = XclientAttributes {
            client: client.parse().unwrap(),
            destination: "[2001:db8::25]:25".parse().unwrap(),
        };
        let commands = attributes.commands(offered, helo, true)?;
        Some(commands.into_iter().map(|c| String::from_utf8(c).unwrap()).collect())
    }

    #[test]
    fn says_what_postfix_takes() {
        assert_eq!(
            commands("[2001:db8::1]:4000", POSTFIX, Some("mx+1.example")).unwrap(),
            [
                "XCLIENT NAME=[TEMPUNAVAIL] ADDR=IPV6:2001:db8::1 PORT=4000 PROTO=ESMTP HELO=mx+2B1.example \
              DESTADDR=IPV6:2001:db8::25 DESTPORT=25\r\n"
            ]
        );
        assert_eq!(
            commands("192.0.2.1:4000", "ADDR HELO", None).unwrap(),
            ["XCLIENT ADDR=192.0.2.1\r\n"]
        );
        assert_eq!(commands("192.0.2.1:4000", "NAME", None), None);
    }

    #[test]
    fn never_over_512_octets_and_never_a_second_line() {
        let helo = "\r\n".repeat(300);
        let sent = commands("192.0.2.1:4000", POSTFIX, Some(&helo)).unwrap();
        assert_eq!(
            sent.iter().map(|c| c.matches("\r\n").count()).collect::<Vec<_>>(),
            vec![1; sent.len()]
        );
        let plain = "h".repeat(255);
        for command in commands("192.0.2.1:4000", POSTFIX, Some(&plain)).unwrap() {
            assert!(command.len() <= 512, "{command}");
        }
    }
}
