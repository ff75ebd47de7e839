//! DNS messages of captures.

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RecordType};
use hickory_proto::serialize::txt::Parser;

use super::super::PassiveDns;
use super::super::dns_data::question;
use super::{AT, brief, lookup, name};
use crate::time::Timestamp;
use crate::wire::Datagram;

/// A response to `query`; `answers` and `authorities` are lines of a zone file, or records of the queried name.
fn message(query: &str, code: &str, answers: &str, authorities: &str) -> Message {
    let (name, kind) = question(&lookup(query)).unwrap();
    let records = |text: &str| {
        let text = text.replace(';', "\n");
        let owned = |line: &str| match line.trim() {
            "" => String::new(),
            line if line.starts_with(|c: char| c.is_lowercase()) => format!("{line}\n"),
            line => format!("{} {line}\n", name.as_dns()),
        };
        let text: String = text.lines().map(owned).collect();
        let parser = Parser::new(format!("$TTL 60\n{text}"), None, Some(Name::root()));
        let (_, sets) = parser.parse().unwrap();
        let sets = sets.into_values();
        sets.flat_map(|set| set.records_without_rrsigs().cloned().collect::<Vec<_>>())
            .collect::<Vec<_>>()
    };
    let mut message = Message::response(7, OpCode::Query);
    message.metadata.response_code = match code {
        "NXDOMAIN" => ResponseCode::NXDomain,
        "SERVFAIL" => ResponseCode::ServFail,
        "REFUSED" => ResponseCode::Refused,
        _ => ResponseCode::NoError,
    };
    message.add_query(Query::query(name.as_dns().clone(), kind));
    message.insert_answers(records(answers));
    message.insert_authorities(records(authorities));
    message
}

pub(super) fn response(query: &str, code: &str, answers: &str, authorities: &str) -> Vec<u8> {
    message(query, code, answers, authorities).to_vec().unwrap()
}

const SOA: &str = "example. SOA ns.example. host.example. 1 2 3 4 5";

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos)
}

fn answer(capture: &PassiveDns, text: &str) -> String {
    brief(&capture.answer(&lookup(text), AT))
}

#[test]
fn each_kind_of_answer_is_parsed() {
    for (question, code, answers, authorities, expected) in [
        ("A mx.a.example", "NOERROR", "A 192.0.2.2; A 192.0.2.1", "", "192.0.2.1, 192.0.2.2"),
        ("AAAA mx.a.example", "NOERROR", "AAAA 2001:db8::1", "", "2001:db8::1"),
        (
            "MX a.example",
            "NOERROR",
            "MX 20 b.example.; MX 10 A.example.",
            "",
            "10 a.example, 20 b.example",
        ),
        ("MX a.example", "NOERROR", "MX 0 .", "", "0 ."),
        ("PTR 192.0.2.1", "NOERROR", "PTR MX.A.Example.", "", "mx.a.example"),
        ("PTR 2001:db8::1", "NXDOMAIN", "", SOA, "nxdomain"),
        ("MX a.example", "NOERROR", "", SOA, "nodata"),
        ("MX a.example", "NOERROR", "", "", "nodata"),
        // A referral is not NODATA.
        ("MX a.example", "NOERROR", "", "example. NS ns.example.", "unknown no_resolver"),
        ("MX a.example", "SERVFAIL", "", "", "unknown servfail"),
        ("MX a.example", "REFUSED", "", "", "unknown servfail"),
        // Through CNAMEs.
        (
            "A www.example",
            "NOERROR",
            "CNAME a.example.; a.example. CNAME b.example.; b.example. A 192.0.2.9",
            "",
            "192.0.2.9",
        ),
        ("A www.example", "NXDOMAIN", "CNAME a.example.", SOA, "nxdomain"),
        ("A www.example", "NOERROR", "CNAME a.example.", SOA, "nodata"),
        ("A www.example", "NOERROR", "CNAME a.example.", "", "unknown no_resolver"),
        // Records outside the question are ignored.
        ("A a.example", "NOERROR", "b.example. A 192.0.2.9", SOA, "nodata"),
        (
            "A a.example",
            "NOERROR",
            "CNAME www.example.; www.example. CNAME a.example.",
            "",
            "unknown servfail",
        ),
    ] {
        let mut capture = PassiveDns::default();
        capture.on_message(&response(question, code, answers, authorities), AT);
        assert_eq!(answer(&capture, question), expected, "{question}: {code} {answers}");
        assert_eq!(brief(&capture.answer(&lookup(question), at(999))), "unknown no_resolver");
    }
}

#[test]
fn nxdomain_applies_to_every_type_of_its_name() {
    let mut capture = PassiveDns::default();
    capture.on_message(&response("A www.example", "NXDOMAIN", "CNAME gone.example.", SOA), AT);
    assert_eq!(answer(&capture, "MX gone.example"), "nxdomain");
    assert_eq!(answer(&capture, "MX www.example"), "nxdomain");
    assert_eq!(answer(&capture, "AAAA other.example"), "unknown no_resolver");
}

#[test]
fn a_cname_chain_may_span_messages() {
    let mut capture = PassiveDns::default();
    capture
        .on_message(&response("AAAA www.example", "NOERROR", "CNAME host.a.example.", ""), at(1));
    capture.on_message(&response("AAAA host.a.example", "NOERROR", "AAAA 2001:db8::1", ""), at(2));
    assert_eq!(answer(&capture, "AAAA www.example"), "2001:db8::1");
    assert_eq!(answer(&capture, "A www.example"), "unknown no_resolver");
}

#[test]
fn an_answer_counts_from_its_time_and_a_failure_revokes_none() {
    let mut capture = PassiveDns::default();
    let mut on_response = |time, code, answers| {
        capture.on_message(&response("A a.example", code, answers, ""), at(time));
    };
    on_response(10, "SERVFAIL", "");
    on_response(20, "NOERROR", "A 192.0.2.1");
    on_response(30, "SERVFAIL", "");
    on_response(40, "NXDOMAIN", "");
    on_response(50, "NOERROR", "A 192.0.2.2");
    for (time, expected) in [
        (9, "unknown no_resolver"),
        (10, "unknown servfail"),
        (20, "192.0.2.1"),
        (39, "192.0.2.1"),
        (40, "nxdomain"),
        (50, "192.0.2.2"),
        (u64::MAX, "192.0.2.2"),
    ] {
        assert_eq!(brief(&capture.answer(&lookup("A a.example"), at(time))), expected, "at {time}");
    }
}

#[test]
fn other_messages_are_ignored() {
    let good = message("A a.example", "NOERROR", "A 192.0.2.1", "");
    let changed = |change: fn(&mut Message)| {
        let mut message = good.clone();
        change(&mut message);
        message.to_vec().unwrap()
    };
    let whole = good.to_vec().unwrap();
    let mut capture = PassiveDns::default();
    for payload in [
        changed(|m| m.metadata.truncation = true),
        changed(|m| m.metadata.message_type = hickory_proto::op::MessageType::Query),
        changed(|m| m.metadata.op_code = OpCode::Notify),
        changed(|m| m.queries.clear()),
        changed(|m| m.queries.push(Query::query(Name::root(), RecordType::A))),
        changed(|m| m.queries[0].query_class = DNSClass::CH),
        whole[..whole.len() - 1].to_vec(),
        Vec::new(),
        vec![0xff; 40],
    ] {
        capture.on_message(&payload, AT);
    }
    let (src, dst) = ("192.0.2.53:5353".parse().unwrap(), "192.0.2.1:4000".parse().unwrap());
    capture.on_datagram(&Datagram { at: AT, src, dst, payload: &whole });
    assert!(capture.is_empty());
    let src = "192.0.2.53:53".parse().unwrap();
    capture.on_datagram(&Datagram { at: AT, src, dst, payload: &whole });
    assert_eq!(answer(&capture, "A a.example"), "192.0.2.1");
}

#[test]
fn memory_is_bounded_and_the_oldest_answers_are_dropped() {
    let mut capture = PassiveDns::with_limit(5 * 1024);
    for n in 0..1000_u64 {
        let query = format!("A n{n}.example");
        let reply = format!("A 192.0.2.{}", n % 256);
        capture.on_message(&response(&query, "NOERROR", &reply, ""), at(n));
        // A repetition uses no memory.
        capture.on_message(&response(&query, "NOERROR", &reply, ""), at(n));
    }
    assert_eq!(capture.dropped(), 992);
    assert_eq!(answer(&capture, "A n991.example"), "unknown no_resolver");
    assert_eq!(answer(&capture, "A n992.example"), "192.0.2.224");
    assert_eq!(answer(&capture, "A n999.example"), "192.0.2.231");
    let host = |ip: &str| capture.host(ip.parse().unwrap()).map(ToString::to_string);
    assert_eq!([host("192.0.2.223"), host("192.0.2.224")], [None, Some("n992.example".to_owned())]);
    let mut none = PassiveDns::with_limit(0);
    none.on_message(&response("A a.example", "NOERROR", "A 192.0.2.1", ""), AT);
    assert!(none.is_empty());
}

#[test]
fn a_host_keeps_its_first_name() {
    let mut capture = PassiveDns::default();
    for (query, reply) in [
        ("AAAA z.example", "AAAA 2001:db8::1"),
        ("A z.example", "A 192.0.2.1"),
        ("AAAA a.example", "AAAA 2001:db8::1"),
        ("MX example", "MX 10 a.example."),
        ("A www.example", "CNAME c.example.; c.example. A 192.0.2.1"),
    ] {
        capture.on_message(&response(query, "NOERROR", reply, ""), AT);
    }
    for (ip, expected) in [
        ("2001:db8::1", Some("z.example")),
        ("::ffff:192.0.2.1", Some("z.example")),
        ("192.0.2.2", None),
    ] {
        let host = capture.host(ip.parse().unwrap()).map(ToString::to_string);
        assert_eq!(host.as_deref(), expected, "{ip}");
    }
}

#[test]
fn the_families_of_one_server_share_a_name() {
    let mut capture = PassiveDns::default();
    for (query, reply) in [
        ("MX a.example", "MX 10 mx1.example.; MX 20 mx2.example."),
        ("AAAA mx1.example", "AAAA 2001:db8::1"),
        ("A mx2.example", "A 192.0.2.2"),
        ("AAAA www.example", "CNAME host.example.; host.example. AAAA 2001:db8::3"),
        ("A host.example", "A 192.0.2.3"),
        ("A lonely.example", "A 192.0.2.4"),
    ] {
        capture.on_message(&response(query, "NOERROR", reply, ""), AT);
    }
    let names = capture.server_names();
    let common = |one: &str, other: &str| {
        let common = names.common(one.parse().unwrap(), other.parse().unwrap());
        common.map(ToString::to_string)
    };
    assert_eq!(common("2001:db8::1", "192.0.2.2").as_deref(), Some("a.example"));
    assert_eq!(common("2001:db8::3", "::ffff:192.0.2.3").as_deref(), Some("host.example"));
    assert_eq!(common("2001:db8::1", "192.0.2.3"), None);
    assert_eq!(common("2001:db8::1", "203.0.113.1"), None);
    let of: Vec<_> = names.of("2001:db8::3".parse().unwrap()).cloned().collect();
    assert_eq!(of, [name("host.example"), name("www.example")]);
}
