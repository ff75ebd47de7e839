//! Evaluates the conditions of nftables rules for a hypothetical packet. An expression that is not listed here is unknown.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::listing::{Listing, TableName};
use super::packet::{ACK, FIN, FieldValue, MailPacket, RST, SYN};
use super::truth::Truth;
use crate::addr::is_global;

/// What an evaluation refers to.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) listing: &'a Listing,
    pub(super) table: &'a TableName,
    pub(super) packet: &'a MailPacket,
}

const TCP: &[&str] = &["tcp", "6"];
const ORIGINAL: &[&str] = &["original", "0"];
const UNICAST: &[&str] = &["unicast", "1"];
const TO_HOST: &[&str] = &["host", "unicast", "0"];

impl Scope<'_> {
    /// A `match` statement.
    pub(super) fn condition(self, statement: &Value) -> Truth {
        let field = self.field(&statement["left"]);
        if field == FieldValue::Absent {
            return Truth::No;
        }
        let right = &statement["right"];
        match statement["op"].as_str() {
            Some("==") => self.equals(&field, right),
            Some("in") => self.has(&field, right),
            Some("!=") => self.has_or_equals(&field, right).not(),
            Some(order @ ("<" | ">" | "<=" | ">=")) => ordered(&field, order, right),
            _ => Truth::Unknown,
        }
    }

    /// The value of an expression.
    pub(super) fn field(self, expression: &Value) -> FieldValue {
        let Some((kind, inner)) = expression.as_object().and_then(|object| object.iter().next())
        else {
            return FieldValue::Unknown;
        };
        match kind.as_str() {
            "meta" => self.meta(inner["key"].as_str().unwrap_or_default()),
            "payload" => self.payload(inner),
            "ct" => self.tracked(inner),
            "fib" => self.route(inner),
            "socket" => match inner["key"].as_str() {
                Some("transparent" | "wildcard") if self.packet.is_ours => FieldValue::number(1),
                Some("transparent" | "wildcard") => FieldValue::Absent,
                _ => FieldValue::Unknown,
            },
            "&" | "|" => self.combined(kind == "&", inner),
            "concat" => {
                let parts = inner.as_array().map_or(&[][..], Vec::as_slice);
                let parts: Vec<FieldValue> = parts.iter().map(|part| self.field(part)).collect();
                if parts.contains(&FieldValue::Absent) {
                    FieldValue::Absent
                } else {
                    FieldValue::Concatenation(parts)
                }
            }
            _ => FieldValue::Unknown,
        }
    }

    fn meta(self, key: &str) -> FieldValue {
        let packet = self.packet;
        match key {
            "iif" | "iifname" => packet.incoming.clone(),
            "oif" | "oifname" => packet.outgoing.clone(),
            "l4proto" => FieldValue::Words(TCP),
            "nfproto" | "protocol" => FieldValue::Words(packet.words_of_family()),
            "mark" => packet.mark.clone(),
            "pkttype" => FieldValue::Words(TO_HOST),
            _ => FieldValue::Unknown,
        }
    }

    fn payload(self, payload: &Value) -> FieldValue {
        let packet = self.packet;
        let is_ipv4 = packet.words_of_family().contains(&"ipv4");
        let name = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
        match (name("protocol").as_str(), name("field").as_str()) {
            ("ip", _) if !is_ipv4 => FieldValue::Absent,
            ("ip6", _) if is_ipv4 => FieldValue::Absent,
            ("ip" | "ip6", "saddr") => packet.source.clone(),
            ("ip" | "ip6", "daddr") => packet.destination.clone(),
            ("ip", "protocol") | ("ip6", "nexthdr") => FieldValue::Words(TCP),
            ("ip", "version") => FieldValue::number(4),
            ("tcp" | "th", "sport") => packet.source_port.clone(),
            ("tcp" | "th", "dport") => packet.destination_port.clone(),
            // Those of ECN may be set.
            ("tcp", "flags") => FieldValue::Bits { value: packet.tcp_flags, known: !0xc0 },
            (
                "udp" | "udplite" | "sctp" | "dccp" | "icmp" | "icmpv6" | "igmp" | "esp" | "ah"
                | "comp" | "arp" | "gre",
                _,
            ) => FieldValue::Absent,
            _ => FieldValue::Unknown,
        }
    }

    fn tracked(self, expression: &Value) -> FieldValue {
        match expression["key"].as_str() {
            Some("state") if self.listing.uses(&["notrack", "CT"]) => FieldValue::Unknown,
            Some("state") => FieldValue::Words(self.packet.state),
            Some("direction") if self.packet.state.contains(&"new") => FieldValue::Words(ORIGINAL),
            Some("status")
                if !self.listing.uses(&["dnat", "redirect", "DNAT", "REDIRECT", "NETMAP"]) =>
            {
                // Other bits, such as that of a confirmed connection, are not looked at by filters.
                FieldValue::Bits { value: 0, known: DNAT }
            }
            _ => FieldValue::Unknown,
        }
    }

    /// The destination is not an address of this host: that is another finding.
    fn route(self, expression: &Value) -> FieldValue {
        let flags = &expression["flags"];
        let of_destination = flags == "daddr" || flags == &serde_json::json!(["daddr"]);
        if expression["result"] == "type"
            && of_destination
            && matches!(self.packet.destination, FieldValue::Network(_))
        {
            FieldValue::Words(UNICAST)
        } else {
            FieldValue::Unknown
        }
    }

    fn combined(self, is_and: bool, operands: &Value) -> FieldValue {
        let (FieldValue::Bits { value, known }, Some(mask)) =
            (self.field(&operands[0]), number(&operands[1]))
        else {
            return FieldValue::Unknown;
        };
        if is_and {
            FieldValue::Bits { value: value & mask, known: known | !mask }
        } else {
            FieldValue::Bits { value: value | mask, known: known | mask }
        }
    }

    /// `in` tests bits, and the values of a list.
    fn has(self, field: &FieldValue, right: &Value) -> Truth {
        match (field, number(right)) {
            (FieldValue::Bits { value, known }, Some(mask)) if value & known & mask != 0 => {
                Truth::Yes
            }
            (FieldValue::Bits { known, .. }, Some(mask)) if !known & mask != 0 => Truth::Unknown,
            (FieldValue::Bits { .. }, Some(_)) => Truth::No,
            _ => self.equals(field, right),
        }
    }

    fn has_or_equals(self, field: &FieldValue, right: &Value) -> Truth {
        match right {
            Value::Array(_) if !matches!(field, FieldValue::Bits { .. }) => self.has(field, right),
            _ => self.equals(field, right),
        }
    }

    /// Whether it is the value on the right, or one of the set on the right.
    pub(super) fn equals(self, field: &FieldValue, right: &Value) -> Truth {
        match field {
            FieldValue::Unknown => return Truth::Unknown,
            FieldValue::Absent => return Truth::No,
            _ => {}
        }
        let any =
            |values: &[Value]| Truth::any(values.iter().map(|value| self.equals(field, value)));
        match right {
            Value::String(text) => match text.strip_prefix('@') {
                Some(_) if *field == FieldValue::Client => Truth::SomeClients,
                Some(name) => self.listing.set(self.table, name).map_or(Truth::Unknown, any),
                None => self.is(field, right),
            },
            // The flags of TCP are one number.
            Value::Array(_) if matches!(field, FieldValue::Bits { .. }) => self.is(field, right),
            Value::Array(values) => any(values),
            Value::Object(object) => match object.iter().next() {
                Some((kind, set)) if kind == "set" => match set {
                    Value::Array(values) => any(values),
                    one => self.equals(field, one),
                },
                Some((kind, element)) if kind == "elem" => self.equals(field, &element["val"]),
                _ => self.is(field, right),
            },
            _ => self.is(field, right),
        }
    }

    fn is(self, field: &FieldValue, right: &Value) -> Truth {
        match field {
            FieldValue::Bits { value, known } => {
                if let Some([first, last]) = range(right) {
                    return match (number(first), number(last)) {
                        (Some(first), Some(last)) if *known == u64::MAX => {
                            Truth::of((first..=last).contains(value))
                        }
                        _ => Truth::Unknown,
                    };
                }
                match number(right) {
                    Some(right) if (value ^ right) & known != 0 => Truth::No,
                    Some(_) if *known == u64::MAX => Truth::Yes,
                    _ => Truth::Unknown,
                }
            }
            FieldValue::Words(words) => match right {
                Value::String(text) => Truth::of(words.contains(&text.as_str())),
                Value::Number(number) => Truth::of(words.contains(&number.to_string().as_str())),
                _ => Truth::Unknown,
            },
            FieldValue::Interface(name) => match right.as_str() {
                Some(pattern) => Truth::of(match pattern.strip_suffix('*') {
                    Some(start) => name.starts_with(start),
                    None => name == pattern,
                }),
                None => Truth::Unknown,
            },
            FieldValue::Network(network) => in_addresses(*network, right),
            FieldValue::Client => of_client(right),
            FieldValue::Concatenation(parts) => match right["concat"].as_array() {
                Some(values) if values.len() == parts.len() => Truth::all(
                    parts.iter().zip(values).map(|(part, value)| self.equals(part, value)),
                ),
                _ => Truth::Unknown,
            },
            FieldValue::Absent | FieldValue::Unknown => Truth::Unknown,
        }
    }
}

/// The lowest port from which programs without privileges connect.
const EPHEMERAL: u64 = 1024;

/// IPS_DST_NAT
const DNAT: u64 = 1 << 5;

/// A number, also as the names of flags.
fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => Some(match text.as_str() {
            "fin" => FIN,
            "syn" => SYN,
            "rst" => RST,
            "psh" => 8,
            "ack" => ACK,
            "urg" => 32,
            "ecn" => 64,
            "cwr" => 128,
            "dnat" => DNAT,
            "snat" => 1 << 4,
            text => text.parse().ok()?,
        }),
        Value::Array(values) => values.iter().try_fold(0, |sum, value| Some(sum | number(value)?)),
        Value::Object(object) => number(object.get("|")?),
        _ => None,
    }
}

fn ordered(field: &FieldValue, order: &str, right: &Value) -> Truth {
    let (FieldValue::Bits { value, known: u64::MAX }, Some(right)) = (field, number(right)) else {
        return if *field == FieldValue::Client { Truth::SomeClients } else { Truth::Unknown };
    };
    Truth::of(match order {
        "<" => *value < right,
        "<=" => *value <= right,
        ">" => *value > right,
        _ => *value >= right,
    })
}

fn range(value: &Value) -> Option<[&Value; 2]> {
    match value["range"].as_array()?.as_slice() {
        [first, last] => Some([first, last]),
        _ => None,
    }
}

/// The first and last address of an address, a prefix or a range.
fn addresses(value: &Value) -> Option<(IpAddr, IpAddr)> {
    let parse = |value: &Value| value.as_str()?.parse::<IpAddr>().ok();
    if let Some([first, last]) = range(value) {
        return Some((parse(first)?, parse(last)?));
    }
    if let Some(prefix) = value.get("prefix") {
        let length = prefix["len"].as_u64().and_then(|length| u8::try_from(length).ok())?;
        let network = IpNet::new(parse(&prefix["addr"])?, length).ok()?;
        return Some((network.network(), network.broadcast()));
    }
    parse(value).map(|address| (address, address))
}

/// Nobody outside has a private address, and clients connect from ephemeral ports.
fn of_client(right: &Value) -> Truth {
    if let Some((first, last)) = addresses(right) {
        return if is_global(first) || is_global(last) { Truth::SomeClients } else { Truth::No };
    }
    let ports = match range(right) {
        Some([first, last]) => number(first).zip(number(last)),
        None => number(right).map(|port| (port, port)),
    };
    match ports {
        Some((_, last)) if last < EPHEMERAL => Truth::No,
        Some((first, last)) if first <= EPHEMERAL && last >= u16::MAX.into() => Truth::Yes,
        _ => Truth::SomeClients,
    }
}

fn in_addresses(network: IpNet, right: &Value) -> Truth {
    let Some((first, last)) = addresses(right) else { return Truth::Unknown };
    let (own_first, own_last) = (network.network(), network.broadcast());
    if first.is_ipv4() != own_first.is_ipv4() || last < own_first || first > own_last {
        Truth::No
    } else if first <= own_first && own_last <= last {
        Truth::Yes
    } else {
        Truth::Unknown
    }
}
