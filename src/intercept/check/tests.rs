//! The evaluator, on rules in the form in which nft prints them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::chain_order;
use super::evaluator::decisions;
use super::filters::{Fate, fate};
use super::finding::InterceptCheckReport;
use super::listing::{Hook, Listing};
use super::packet::MailPacket;
use super::remedy;
use crate::addr::Family;
use crate::intercept::settings::tests::settings;

/// A table `inet filter`: chain `input` with that policy and rules, and others.
fn listing(policy: &str, rules: &[Value], others: &[(&str, &[Value])]) -> Listing {
    let at = json!({"family": "inet", "table": "filter"});
    let object = |kind: &str, more: Value| {
        let mut fields = at.as_object().unwrap().clone();
        fields.extend(more.as_object().unwrap().clone());
        json!({kind: fields})
    };
    let mut objects = vec![
        object(
            "chain",
            json!({"name": "input", "type": "filter", "hook": "input", "prio": 0, "policy": policy}),
        ),
        object("set", json!({"name": "servers", "type": "ipv4_addr", "elem": ["192.0.2.25"]})),
        object(
            "set",
            json!({"name": "bad", "elem": [{"prefix": {"addr": "198.51.100.0", "len": 24}}]}),
        ),
    ];
    let mut handle = 10;
    let chains = [("input", rules)].into_iter().chain(others.iter().copied());
    for (name, rules) in chains {
        if name != "input" {
            objects.push(object("chain", json!({"name": name})));
        }
        for rule in rules {
            let rule = json!({"chain": name, "handle": handle, "expr": rule});
            objects.push(object("rule", rule));
            handle += 1;
        }
    }
    Listing::parse(&json!({"nftables": objects}), &["gatepost"])
}

fn matches(left: Value, op: &str, right: Value) -> Value {
    json!({"match": {"left": left, "op": op, "right": right}})
}

fn meta(key: &str, value: &str) -> Value {
    matches(json!({"meta": {"key": key}}), "==", json!(value))
}

fn field(protocol: &str, field: &str, op: &str, right: Value) -> Value {
    matches(json!({"payload": {"protocol": protocol, "field": field}}), op, right)
}

fn state(states: Value) -> Value {
    matches(json!({"ct": {"key": "state"}}), "in", states)
}

fn marked(mask: u32, mark: u32) -> Value {
    matches(json!({"&": [{"meta": {"key": "mark"}}, mask]}), "==", json!(mark))
}

fn verdict(name: &str) -> Value {
    json!({name: null})
}

fn jump(target: &str) -> Value {
    json!({"jump": {"target": target}})
}

/// Of mail to 192.0.2.25 that arrives on eth0.
fn fate_in(listing: &Listing) -> (Fate, Option<u64>) {
    let destination = "192.0.2.25/32".parse().unwrap();
    let packet = MailPacket::arriving(&settings(), "eth0", destination, 25);
    let [(chain, base)] = listing.at(Hook::Input, Family::Ipv4)[..] else { panic!("one chain") };
    let (fate, cause) = fate(&decisions(listing, chain, base, &packet));
    (fate, cause.and_then(|cause| cause.handle))
}

#[test]
fn conditions_that_are_known_decide() {
    let (accept, drop) = (verdict("accept"), verdict("drop"));
    let dropped = (Fate::Dropped, None);
    let accepted = (Fate::Accepted, None);
    for (name, conditions, expected) in [
        ("nothing", vec![], accepted),
        ("its mark", vec![marked(0xc0, 0x40)], accepted),
        ("the gateway's mark", vec![marked(0xc0, 0x80)], dropped),
        ("a part of its mark", vec![marked(0x40, 0x40)], accepted),
        ("new", vec![state(json!(["established", "new"]))], accepted),
        ("established", vec![state(json!(["established", "related"]))], dropped),
        ("invalid", vec![state(json!("invalid"))], dropped),
        ("a set of states", vec![state(json!({"set": ["new", "related"]}))], accepted),
        ("its interface", vec![meta("iifname", "eth0")], accepted),
        ("interfaces by their start", vec![meta("iifname", "eth*")], accepted),
        ("loopback", vec![meta("iifname", "lo")], dropped),
        ("TCP", vec![meta("l4proto", "tcp")], accepted),
        ("UDP", vec![field("udp", "dport", "==", json!(25))], dropped),
        ("its port", vec![field("tcp", "dport", "==", json!({"set": [22, 25]}))], accepted),
        ("a range", vec![field("tcp", "dport", "==", json!({"range": [1, 24]}))], dropped),
        ("not its port", vec![field("tcp", "dport", "!=", json!(25))], dropped),
        ("IPv6", vec![field("ip6", "daddr", "!=", json!("2001:db8::1"))], dropped),
        ("a named set", vec![field("ip", "daddr", "==", json!("@servers"))], accepted),
        (
            "a network",
            vec![field("ip", "daddr", "==", json!({"prefix": {"addr": "192.0.2.0", "len": 24}}))],
            accepted,
        ),
        (
            "an address of this host",
            vec![matches(
                json!({"fib": {"result": "type", "flags": ["daddr"]}}),
                "==",
                json!("local"),
            )],
            dropped,
        ),
        (
            "a SYN",
            vec![matches(
                json!({"&": [{"payload": {"protocol": "tcp", "field": "flags"}}, ["fin", "syn", "rst", "ack"]]}),
                "==",
                json!("syn"),
            )],
            accepted,
        ),
        ("a system port of the client", vec![field("tcp", "sport", "==", json!(25))], dropped),
        (
            "an ephemeral port",
            vec![field("tcp", "sport", "==", json!({"range": [1024, 65535]}))],
            accepted,
        ),
        ("a private source", vec![field("ip", "saddr", "==", json!("10.1.1.1"))], dropped),
    ] {
        let mut rule = conditions;
        rule.push(json!({"counter": {"packets": 0, "bytes": 0}}));
        rule.push(accept.clone());
        let found = fate_in(&listing("drop", &[json!(rule)], &[]));
        assert_eq!(found, expected, "{name}, accepted");
        // The same rule drops in a chain that accepts.
        *rule.last_mut().unwrap() = drop.clone();
        let (found, _) = fate_in(&listing("accept", &[json!(rule)], &[]));
        let opposite = if expected == accepted { Fate::Dropped } else { Fate::Accepted };
        assert_eq!(found, opposite, "{name}, dropped");
    }
}

#[test]
fn conditions_on_the_client_are_for_some() {
    let bad = field("ip", "saddr", "==", json!("@bad"));
    let found = fate_in(&listing("accept", &[json!([bad, verdict("drop")])], &[]));
    assert_eq!(found, (Fate::DroppedForSome, Some(10)));
    let found = fate_in(&listing("drop", &[json!([bad, verdict("accept")])], &[]));
    assert_eq!(found, (Fate::AcceptedForSome, None));
}

#[test]
fn what_is_not_understood_is_never_certain() {
    let odd = json!({"osf": {"name": "Linux"}});
    let odd = matches(odd, "==", json!("x"));
    let found = fate_in(&listing("drop", &[json!([odd, verdict("accept")])], &[]));
    assert_eq!(found, (Fate::PerhapsDropped, Some(10)));
    let found = fate_in(&listing("accept", &[json!([odd, verdict("drop")])], &[]));
    assert_eq!(found, (Fate::PerhapsDropped, Some(10)));
    let rate = json!({"limit": {"rate": 10, "per": "second"}});
    let found = fate_in(&listing("drop", &[json!([rate, verdict("accept")])], &[]));
    assert_eq!(found, (Fate::PerhapsDropped, Some(10)));
    // Another mark may be set in the bits that are not ours.
    let found = fate_in(&listing("drop", &[json!([marked(0xff, 0x40), verdict("accept")])], &[]));
    assert_eq!(found, (Fate::PerhapsDropped, Some(10)));
    let found = fate_in(&listing("drop", &[json!([{"queue": {"num": 0}}])], &[]));
    assert_eq!(found, (Fate::PerhapsDropped, Some(10)));
}

#[test]
fn chains_are_followed() {
    let (accept, drop) = (json!([verdict("accept")]), json!([verdict("drop")]));
    let to_mail: &[Value] = &[json!([jump("mail")])];
    let input =
        |rules: &[Value], mail: &[Value]| fate_in(&listing("drop", rules, &[("mail", mail)]));
    assert_eq!(input(to_mail, std::slice::from_ref(&accept)).0, Fate::Accepted);
    assert_eq!(input(to_mail, std::slice::from_ref(&drop)), (Fate::Dropped, Some(11)));
    assert_eq!(input(to_mail, &[]), (Fate::Dropped, None), "returns at its end");
    let returned = [json!([verdict("return")]), accept.clone()];
    assert_eq!(input(to_mail, &returned), (Fate::Dropped, None));
    // After a goto the policy decides, after a jump the next rule.
    let jump_then_accept = [json!([jump("mail")]), accept.clone()];
    assert_eq!(input(&jump_then_accept, &[]).0, Fate::Accepted);
    let goto_then_accept = [json!([{"goto": {"target": "mail"}}]), accept.clone()];
    assert_eq!(input(&goto_then_accept, &[]), (Fate::Dropped, None));

    let map = |elements: Value| {
        let key = json!({"meta": {"key": "iifname"}});
        [json!([{"vmap": {"key": key, "data": {"set": elements}}}])]
    };
    let elements = json!([["lo", {"accept": null}], ["eth0", {"jump": {"target": "mail"}}]]);
    assert_eq!(input(&map(elements), &[accept]).0, Fate::Accepted);
    let elements = json!([["lo", {"accept": null}], ["eth0", {"drop": null}]]);
    assert_eq!(input(&map(elements), &[]), (Fate::Dropped, Some(10)));
}

#[test]
fn matches_of_iptables_are_read_from_the_text() {
    let counter = json!({"counter": {"packets": 0, "bytes": 0}});
    let xt = |kind: &str, name: &str| json!({"xt": {"type": kind, "name": name}});
    let found = |text: &str, names: &[&str], verdict_name: &str| {
        let mut rule: Vec<Value> = names.iter().map(|name| xt("match", name)).collect();
        rule.extend([counter.clone(), verdict(verdict_name)]);
        let policy = if verdict_name == "accept" { "drop" } else { "accept" };
        let mut listing = listing(policy, &[json!(rule)], &[]);
        let text = format!("{text} counter packets 0 bytes 0 {verdict_name}");
        listing.add_texts(&format!(
            "table inet filter {{ # handle 1\n\tchain input {{ # handle 2\n\t\t{text} # handle 10\n\t}}\n}}\n"
        ));
        fate_in(&listing).0
    };
    for (text, names, accepted) in [
        ("ct state new", &["conntrack"][..], Fate::Accepted),
        ("ct state related,established", &["conntrack"], Fate::Dropped),
        ("fib daddr type local", &["addrtype"], Fate::Dropped),
        ("fib daddr type != local", &["addrtype"], Fate::Accepted),
        ("meta l4proto tcp tcp dport { 25, 587 } ", &["multiport", "comment"], Fate::Accepted),
        ("meta l4proto tcp tcp dport { 20-24, 26 } ", &["multiport"], Fate::Dropped),
        ("pkttype broadcast", &["pkttype"], Fate::Dropped),
        ("xt match string", &["string"], Fate::PerhapsDropped),
        ("ct state new xt match string", &["conntrack", "string"], Fate::PerhapsDropped),
        ("ct state invalid xt match string", &["conntrack", "string"], Fate::Dropped),
        ("ct state new ct original daddr 10.0.0.1", &["conntrack"], Fate::PerhapsDropped),
        ("", &["conntrack"], Fate::PerhapsDropped),
    ] {
        assert_eq!(found(text, names, "accept"), accepted, "{text}, accepted");
        let dropped = match accepted {
            Fate::Accepted => Fate::Dropped,
            Fate::Dropped => Fate::Accepted,
            other => other,
        };
        assert_eq!(found(text, names, "drop"), dropped, "{text}, dropped");
    }
    for (target, fate) in [
        ("LOG", Fate::Accepted),
        ("REJECT", Fate::Dropped),
        ("NFQUEUE", Fate::PerhapsDropped),
        ("OF_SOMEBODY", Fate::PerhapsDropped),
    ] {
        let rule = json!([counter, xt("target", target)]);
        assert_eq!(fate_in(&listing("accept", &[rule], &[])).0, fate, "{target}");
    }
    // Of an older nft.
    let rule = json!([{"xt": null}, counter, verdict("drop")]);
    assert_eq!(fate_in(&listing("accept", &[rule], &[])).0, Fate::PerhapsDropped);
}

#[test]
fn the_command_fits_the_owner_of_the_table() {
    let accept = json!([verdict("accept")]);
    let listing = listing("drop", &[json!([jump("zone")])], &[("zone", &[]), ("other", &[accept])]);
    let destination = "192.0.2.25/32".parse().unwrap();
    let packet = MailPacket::arriving(&settings(), "eth0", destination, 25);
    let [(chain, base)] = listing.at(Hook::Input, Family::Ipv4)[..] else { panic!("one chain") };
    let mut cause = fate(&decisions(&listing, chain, base, &packet)).1.unwrap();
    let ports = BTreeSet::from([25]);
    let mut command = |family: &str, table: &str, chain: &str| {
        (cause.table.family, cause.table.name) = (family.to_owned(), table.to_owned());
        chain.clone_into(&mut cause.chain);
        remedy::accept_marked(&settings(), &cause, Hook::Input, Family::Ipv4, &ports).join("; ")
    };
    assert_eq!(
        command("inet", "filter", "zone"),
        "nft insert rule inet filter input meta mark and 0xc0 == 0x40 accept"
    );
    assert_eq!(
        command("ip", "filter", "ufw-not-local"),
        "iptables -I INPUT -m mark --mark 0x40/0xc0 -j ACCEPT"
    );
    assert_eq!(
        command("inet", "firewalld", "filter_IN_public"),
        "firewall-cmd --permanent --zone=public --add-port=25/tcp; firewall-cmd --reload"
    );
}

#[test]
fn flowtables_and_chains_after_ours_are_named() {
    let base = |name: &str, hook: &str, kind: &str, priority: i64| json!({"chain": {"family": "inet", "table": "f", "name": name, "hook": hook, "type": kind, "prio": priority}});
    let rule = |chain: &str, statement: Value| json!({"rule": {"family": "inet", "table": "f", "chain": chain, "handle": 1, "expr": [statement]}});
    let set_mark = json!({"mangle": {"key": {"meta": {"key": "mark"}}, "value": 1}});
    let found = |objects: &[Value]| {
        let listing = Listing::parse(&json!({"nftables": objects}), &[]);
        let mut report = InterceptCheckReport::default();
        chain_order::check(&Family::ALL, &listing, &mut report);
        report
            .problems()
            .iter()
            .map(|one| format!("{} {}", one.outcome, one.check))
            .collect::<Vec<_>>()
    };
    let after = |priority| {
        found(&[base("pre", "prerouting", "filter", priority), rule("pre", set_mark.clone())])
    };
    assert_eq!(after(1000), ["fail chain_order"]);
    assert!(after(999).is_empty(), "it runs before ours");
    let jumps = [
        base("pre", "prerouting", "filter", 2000),
        json!({"chain": {"family": "inet", "table": "f", "name": "marks"}}),
        rule("pre", jump("marks")),
        rule("marks", json!({"xt": {"type": "target", "name": "CONNMARK"}})),
    ];
    assert_eq!(found(&jumps), ["fail chain_order"]);
    let nat = |priority| {
        found(&[
            base("post", "postrouting", "nat", priority),
            rule("post", json!({"masquerade": null})),
        ])
    };
    assert_eq!(nat(98), ["warn nat"]);
    assert!(nat(100).is_empty(), "the usual priority");
    let flowtable =
        json!({"flowtable": {"family": "inet", "table": "f", "name": "ft", "hook": "ingress"}});
    assert_eq!(found(&[flowtable]), ["warn flowtable"]);
}
