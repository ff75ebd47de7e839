//! Lists of hosts that it trusts: `mynetworks`, and who may say by XCLIENT or XFORWARD who the client is.

use ipnet::IpNet;

use super::{Postfix, bare, words};
use crate::addr::is_global;
use crate::readiness::CheckRequest;
use crate::readiness::finding::{CheckName, Findings};

/// A network that is larger than this is no site's own.
const SHORTEST_V4: u8 = 8;
const SHORTEST_V6: u8 = 20;

pub(super) fn judge(postfix: &Postfix, asked: &CheckRequest, findings: &mut Findings) {
    mynetworks(postfix, asked, findings);
    for parameter in ["smtpd_authorized_xclient_hosts", "smtpd_authorized_xforward_hosts"] {
        xclient(postfix, parameter, findings);
    }
}

/// A word of such a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Network(IpNet),
    /// IPv6 without brackets, which Postfix takes for a table.
    Unbracketed(IpNet),
    /// A table, a name, an exception.
    Other,
}

fn entry(word: &str) -> Entry {
    let network = |text: &str| {
        let single = || text.parse::<std::net::IpAddr>().map(IpNet::from);
        text.parse::<IpNet>().or_else(|_not_with_length| single()).ok()
    };
    if word.starts_with('[') {
        let without: String = word.chars().filter(|c| !matches!(c, '[' | ']')).collect();
        return network(&without).map_or(Entry::Other, Entry::Network);
    }
    match network(word) {
        Some(net @ IpNet::V4(_)) => Entry::Network(net),
        Some(net @ IpNet::V6(_)) => Entry::Unbracketed(net),
        None => Entry::Other,
    }
}

/// As Postfix wants it.
fn written(net: IpNet) -> String {
    match net {
        IpNet::V4(net) => net.to_string(),
        IpNet::V6(net) => format!("[{}]/{}", net.addr(), net.prefix_len()),
    }
}

const fn is_open(net: IpNet) -> bool {
    match net {
        IpNet::V4(net) => net.prefix_len() < SHORTEST_V4,
        IpNet::V6(net) => net.prefix_len() < SHORTEST_V6,
    }
}

/// Whoever is in the list, without what is wrong with it: open networks go, brackets come.
fn mended(list: &str) -> Vec<String> {
    let keep = |word: &str| match entry(word) {
        Entry::Network(net) if is_open(net) => None,
        Entry::Unbracketed(net) => (!is_open(net)).then(|| written(net)),
        Entry::Other if word == "static:all" => None,
        Entry::Network(_) | Entry::Other => Some(word.to_owned()),
    };
    words(list).filter_map(keep).collect()
}

fn open(list: &str) -> Vec<&str> {
    let is_open = |word: &&str| match entry(word) {
        Entry::Network(net) | Entry::Unbracketed(net) => is_open(net),
        Entry::Other => *word == "static:all",
    };
    words(list).filter(is_open).collect()
}

fn unbracketed(list: &str) -> Option<&str> {
    words(list).find(|word| matches!(entry(word), Entry::Unbracketed(_)))
}

fn mynetworks(postfix: &Postfix, asked: &CheckRequest, findings: &mut Findings) {
    let check = CheckName::PostfixMynetworks;
    let list = postfix.main("mynetworks");
    let seen = format!("mynetworks = {list}");
    let open = open(list);
    let set = |words: Vec<String>| vec![postfix.set_main("mynetworks", &words.join(" "))];
    let lacking = lacking(list, asked);
    let with = |mut words: Vec<String>| {
        words.extend(lacking.iter().map(|net| written(*net)));
        words
    };
    if !open.is_empty() {
        let seen = format!(
            "mynetworks has {}: everybody there may send through this host",
            open.join(" ")
        );
        let advice = "Remove it: this is an open relay.";
        findings.fail(check, "main.cf", seen, advice).commands = set(with(mended(list)));
    } else if let Some(word) = unbracketed(list) {
        let seen = format!(
            "mynetworks has {word}: without brackets Postfix takes it for a table, and refuses mail"
        );
        findings.fail(check, "main.cf", seen, "Write IPv6 addresses in brackets.").commands =
            set(with(mended(list)));
    } else if !lacking.is_empty() {
        let advice = "Trust over IPv6 whom it trusts over IPv4, or hosts of this site cannot send through it once they \
                      come over IPv6.";
        let seen = format!("{seen}: IPv4 networks whose IPv6 side is not there");
        findings.warn(check, "main.cf", seen, advice).commands = set(with(mended(list)));
    } else {
        findings.pass(check, "main.cf", seen);
    }
}

/// IPv6 networks that belong beside the IPv4 ones: loopback, and what is on the same link.
fn lacking(list: &str, asked: &CheckRequest) -> Vec<IpNet> {
    let networks: Vec<IpNet> = words(list)
        .filter_map(|word| match entry(word) {
            Entry::Network(net) | Entry::Unbracketed(net) => Some(net),
            Entry::Other => None,
        })
        .collect();
    // Tables may hold anything.
    if words(list).any(|word| entry(word) == Entry::Other) {
        return Vec::new();
    }
    let trusted = |net: &IpNet| networks.iter().any(|network| network.contains(net));
    let loopback = IpNet::from(std::net::IpAddr::from(std::net::Ipv6Addr::LOCALHOST));
    let mut wanted = Vec::new();
    if networks.iter().any(|net| matches!(net, IpNet::V4(net) if net.addr().is_loopback())) {
        wanted.push(loopback);
    }
    for interface in &asked.interfaces {
        let is_ours = interface.addresses.iter().any(|net| {
            let host = IpNet::from(net.addr());
            // Its network is trusted, not its own address only.
            matches!(net, IpNet::V4(net) if net.prefix_len() < 32 && !net.addr().is_loopback())
                && networks
                    .iter()
                    .any(|network| network.contains(&host) && network.prefix_len() < 32)
        });
        let v6 =
            interface.addresses.iter().filter(|net| net.addr().is_ipv6() && is_global(net.addr()));
        wanted.extend(v6.filter(|_| is_ours).map(IpNet::trunc));
    }
    wanted.dedup();
    wanted.retain(|net| !trusted(net));
    wanted
}

fn xclient(postfix: &Postfix, parameter: &str, findings: &mut Findings) {
    let check = CheckName::PostfixXclient;
    let own = postfix.own.iter().filter(|((_, name), _)| name == parameter);
    let own = own.map(|((service, _), value)| (service.as_str(), value.as_str()));
    let mut all = vec![("main.cf", postfix.main(parameter))];
    all.extend(own);
    for (place, list) in all {
        let seen = format!("{parameter} = {list}");
        let open = open(list);
        let set = || vec![postfix.set(place, parameter, &mended(list).join(" "))];
        if !open.is_empty() {
            let seen = format!(
                "{parameter} has {}: whoever is there may claim to be any client",
                open.join(" ")
            );
            findings.fail(check, place, seen, "Name the gateway's addresses only.").commands =
                set();
        } else if let Some(word) = unbracketed(list) {
            let seen =
                format!("{parameter} has {word}: without brackets Postfix takes it for a table");
            findings.fail(check, place, seen, "Write IPv6 addresses in brackets.").commands = set();
        } else {
            let seen = if list.is_empty() { format!("{parameter} is empty: nobody") } else { seen };
            findings.pass(check, place, seen);
        }
    }
}

/// It lets this host, by loopback, say who the client is.
pub(super) fn trusts_loopback(list: &str) -> bool {
    words(list).any(|word| {
        let is_network = matches!(entry(word), Entry::Network(net) if net.addr().is_loopback());
        is_network || bare(word).is_some_and(|ip| ip.is_loopback() && ip.is_ipv4())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_lists() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        for (word, expected) in [
            ("192.0.2.0/24", Entry::Network(net("192.0.2.0/24"))),
            ("192.0.2.1", Entry::Network(net("192.0.2.1/32"))),
            ("[::1]", Entry::Network(net("::1/128"))),
            ("[2001:db8::]/32", Entry::Network(net("2001:db8::/32"))),
            ("[2001:db8::/32]", Entry::Network(net("2001:db8::/32"))),
            ("2001:db8::/32", Entry::Unbracketed(net("2001:db8::/32"))),
            ("::1", Entry::Unbracketed(net("::1/128"))),
            ("hash:/etc/postfix/nets", Entry::Other),
            ("!192.0.2.1", Entry::Other),
            ("[::1", Entry::Network(net("::1/128"))),
            ("example.org", Entry::Other),
        ] {
            assert_eq!(entry(word), expected, "{word}");
        }
        assert_eq!(
            mended("::1, [::]/0 10.0.0.0/8 static:all hash:x").join(" "),
            "[::1]/128 10.0.0.0/8 hash:x"
        );
    }
}
