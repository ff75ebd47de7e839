//! The matches and targets of iptables in a rule. `nft -j` prints their names only; as text nft prints most of them as its
//! own expressions.

use serde_json::{Value, json};

use super::expression::Scope;
use super::truth::Truth;

/// Whether a rule's match of iptables holds.
pub(super) fn matches(scope: Scope<'_>, name: &str, text: &str) -> Truth {
    let conditions = match name {
        "comment" => return Truth::Yes,
        // The packet has no such header.
        "rt" | "frag" | "hbh" | "dst" | "mh" | "ah" | "esp" | "udp" | "icmp" | "icmp6" => {
            return Truth::No;
        }
        "conntrack" | "state" => tracked(text),
        "addrtype" => after(text, &["fib", "daddr", "type"])
            .map(|words| compared(json!({"fib": {"result": "type", "flags": ["daddr"]}}), &words))
            .collect(),
        "multiport" => ports(text),
        "pkttype" => after(text, &["pkttype"])
            .map(|words| compared(json!({"meta": {"key": "pkttype"}}), &words))
            .collect(),
        _ => Vec::new(),
    };
    if conditions.is_empty() {
        return Truth::Unknown;
    }
    let condition = |one: Option<Value>| one.map_or(Truth::Unknown, |one| scope.condition(&one));
    Truth::all(conditions.into_iter().map(condition))
}

/// What a target of iptables does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    GoesOn,
    Accepts,
    Drops,
    /// A program decides, or it is not known.
    Unknown,
}

pub(super) fn target(name: &str) -> Target {
    match name {
        "REJECT" | "TARPIT" | "DELUDE" => Target::Drops,
        "MASQUERADE" | "SNAT" | "DNAT" | "REDIRECT" | "NETMAP" => Target::Accepts,
        "LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "SET" | "TRACE" | "CLASSIFY"
        | "DSCP" | "TOS" | "TTL" | "HL" | "AUDIT" | "CHECKSUM" | "SECMARK" | "CONNSECMARK"
        | "RATEEST" | "LED" | "ACCOUNT" => Target::GoesOn,
        _ => Target::Unknown,
    }
}

/// `None`: another condition on the connection, which is not evaluated.
fn tracked(text: &str) -> Vec<Option<Value>> {
    after(text, &["ct"])
        .map(|words| {
            let (key, rest) = words.split_first()?;
            let key = ["state", "status"].into_iter().find(|known| known == key)?;
            compared(json!({"ct": {"key": key}}), rest)
        })
        .collect()
}

fn ports(text: &str) -> Vec<Option<Value>> {
    ["dport", "sport"]
        .into_iter()
        .flat_map(|field| {
            after(text, &["tcp", field]).map(move |words| {
                compared(json!({"payload": {"protocol": "tcp", "field": field}}), &words)
            })
        })
        .collect()
}

/// The words behind each place where `wanted` stands.
fn after<'a>(text: &'a str, wanted: &[&str]) -> std::vec::IntoIter<Vec<&'a str>> {
    // Without what is quoted, such as comments.
    let words: Vec<&str> = text.split('"').step_by(2).flat_map(str::split_whitespace).collect();
    let mut found = Vec::new();
    for at in 0..words.len() {
        let (here, rest) = (words.iter().skip(at), words.iter().skip(at + wanted.len()));
        if here.take(wanted.len()).eq(wanted) {
            found.push(rest.copied().collect());
        }
    }
    found.into_iter()
}

/// `a`, `!= a,b` or `{ a, b-c }`, in the form of `nft -j`.
fn compared(left: Value, words: &[&str]) -> Option<Value> {
    let (op, words) = match words {
        ["!=", rest @ ..] => ("!=", rest),
        words => ("==", words),
    };
    let list = match words {
        ["{", rest @ ..] => {
            let end = rest.iter().position(|word| *word == "}")?;
            rest.get(..end)?.concat()
        }
        [list, ..] => (*list).to_owned(),
        [] => return None,
    };
    let values: Vec<Value> = list.split(',').map(value).collect();
    Some(json!({"op": op, "left": left, "right": {"set": values}}))
}

/// A number, a range of numbers or a word.
fn value(text: &str) -> Value {
    let number = |text: &str| text.parse::<u64>().ok();
    if let Some((first, last)) = text.split_once('-')
        && let (Some(first), Some(last)) = (number(first), number(last))
    {
        return json!({"range": [first, last]});
    }
    number(text).map_or_else(|| json!(text), |number| json!(number))
}
