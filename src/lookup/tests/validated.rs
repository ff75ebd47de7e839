//! Answers with their validation, and name servers, from a server on loopback that behaves by the name's first label.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsOption;
use hickory_proto::rr::rdata::{CAA, CNAME, NULL, SOA, TLSA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;

use super::super::Dns;
use crate::policy::facts::{DomainName, Reason};
use crate::readiness::{ValidatedAnswer, ValidatedOutcome, ValidatedRecord, ValidatedType};

const DEADLINE: Duration = Duration::from_secs(8);

struct Server {
    address: SocketAddr,
    serving: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    async fn start() -> Self {
        // The same port for both: a UDP port may be taken for TCP.
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let over_udp = tokio::spawn(async move {
            let mut bytes = [0; 2048];
            loop {
                let Ok((count, peer)) = udp.recv_from(&mut bytes).await else { continue };
                for response in over_udp(&Message::from_vec(&bytes[..count]).unwrap()) {
                    udp.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
                }
            }
        });
        let over_tcp = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                stream.read_exact(&mut query).await.unwrap();
                let response = respond(&Message::from_vec(&query).unwrap()).to_vec().unwrap();
                let length = u16::try_from(response.len()).unwrap();
                stream.write_all(&[&length.to_be_bytes(), &response[..]].concat()).await.unwrap();
            }
        });
        Self { address, serving: [over_udp, over_tcp] }
    }

    async fn ask(&self, name: &str, kind: ValidatedType) -> ValidatedAnswer {
        let dns = Dns::for_domain_check(Some(self.address), DEADLINE).unwrap();
        dns.validated(&DomainName::parse(name).unwrap(), kind).await
    }
}

fn label(query: &Message) -> String {
    query.queries[0].name().to_lowercase().to_string().split('.').next().unwrap().to_owned()
}

fn over_udp(query: &Message) -> Vec<Message> {
    match label(query).as_str() {
        "tcp-only" => Vec::new(),
        "long" => {
            let mut short = respond(query);
            short.answers.clear();
            short.metadata.truncation = true;
            vec![short]
        }
        "forged" => {
            let mut forged = respond(query);
            forged.metadata.id = query.metadata.id.wrapping_add(1);
            forged.metadata.response_code = ResponseCode::NXDomain;
            vec![forged, respond(query)]
        }
        _ => vec![respond(query)],
    }
}

fn respond(query: &Message) -> Message {
    let question = query.queries[0].clone();
    let owner = question.name().clone();
    let name = |text| Name::from_ascii(text).unwrap();
    let record = |owner: &Name, data| Record::from_rdata(owner.clone(), 60, data);
    let soa = || RData::SOA(SOA::new(name("ns.a.example."), name("h.a.example."), 1, 2, 3, 4, 5));
    let signature = |end: u32| {
        let fields = [&[0, 6, 13, 2, 0, 0, 0, 60][..], &end.to_be_bytes(), &[0; 7]].concat();
        RData::Unknown { code: RecordType::RRSIG, rdata: NULL::with(fields) }
    };
    let data = match question.query_type() {
        RecordType::TLSA => RData::TLSA(TLSA::new(3.into(), 1.into(), 1.into(), vec![7; 32])),
        RecordType::CAA => RData::CAA(CAA::new_issue(true, Some(name("ca.example")), Vec::new())),
        _ => soa(),
    };
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.add_query(question);
    let fails = |response: &mut Message, errors: &[(u16, &str)]| {
        response.metadata.response_code = ResponseCode::ServFail;
        let mut edns = Edns::new();
        for (code, text) in errors {
            let octets = [&code.to_be_bytes()[..], text.as_bytes()].concat();
            edns.options_mut().insert(EdnsOption::Unknown(15, octets));
        }
        response.set_edns(edns);
    };
    let has_dnssec_flags = query.metadata.authentic_data
        && query.metadata.recursion_desired
        && query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
    assert!(has_dnssec_flags, "{query:?}");
    let is_checked = !query.metadata.checking_disabled;
    match label(query).as_str() {
        "expired" if is_checked => fails(&mut response, &[(7, "signature expired")]),
        "expired" => {
            response.add_answer(record(&owner, soa()));
            response.add_answer(record(&owner, signature(1_580_515_200)));
        }
        "taciturn" if is_checked => fails(&mut response, &[]),
        "dead" => fails(&mut response, &[(22, "no reachable authority")]),
        "unsigned" => {
            response.add_answer(record(&owner, data));
        }
        "unlinked" => {
            response.add_answer(record(&owner, data));
            response.add_answer(record(&owner, signature(u32::MAX)));
        }
        "alias" => {
            response.metadata.authentic_data = true;
            response.add_answer(record(&owner, RData::CNAME(CNAME(name("b.a.example.")))));
            response.add_authority(record(&name("a.example."), soa()));
        }
        "gone" => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.add_authority(record(&name("a.example."), soa()));
        }
        _ => {
            response.metadata.authentic_data = true;
            response.add_answer(record(&owner, data));
        }
    }
    response
}

fn failure(answer: &ValidatedAnswer) -> (Reason, Vec<u16>, bool, Option<String>) {
    let ValidatedOutcome::Failed(failure) = &answer.outcome else { panic!("{answer:?}") };
    let codes = failure.errors.iter().map(|error| error.code).collect();
    let end = failure.expired_at.map(|end| end.to_string()[..10].to_owned());
    (failure.reason, codes, failure.answers_unchecked, end)
}

#[tokio::test]
async fn the_resolvers_validation_is_in_the_answer() {
    let server = Server::start().await;
    let soa = ValidatedType::Soa;
    for (name, is_authentic, is_signed) in [
        ("signed.a.example", true, false),
        ("unsigned.a.example", false, false),
        ("unlinked.a.example", false, true),
        ("long.a.example", true, false),
        ("tcp-only.a.example", true, false),
        ("forged.a.example", true, false),
    ] {
        let answer = server.ask(name, soa).await;
        assert_eq!(answer.outcome, ValidatedOutcome::Records(Vec::new()), "{name}");
        assert_eq!((answer.is_authentic, answer.is_signed), (is_authentic, is_signed), "{name}");
        assert_eq!(answer.zone.unwrap().to_string(), name);
    }
    let alias = server.ask("alias.a.example", soa).await;
    assert_eq!(alias.outcome, ValidatedOutcome::NoRecord);
    assert_eq!(alias.canonical.to_string(), "b.a.example");
    assert_eq!(alias.zone.unwrap().to_string(), "a.example");
    let gone = server.ask("gone.a.example", soa).await;
    assert_eq!(gone.outcome, ValidatedOutcome::NxDomain);
    let tlsa = server.ask("signed.a.example", ValidatedType::Tlsa).await;
    let ValidatedOutcome::Records(records) = tlsa.outcome else { panic!() };
    let [ValidatedRecord::Tlsa(record)] = &records[..] else { panic!("{records:?}") };
    assert_eq!((record.usage, record.selector, record.matching), (3, 1, 1));
    let caa = server.ask("signed.a.example", ValidatedType::Caa).await;
    let ValidatedOutcome::Records(records) = caa.outcome else { panic!() };
    let [ValidatedRecord::Caa(record)] = &records[..] else { panic!("{records:?}") };
    assert!(record.is_critical && record.tag == "issue" && record.value.starts_with(b"ca.example"));
}

#[tokio::test]
async fn failures_have_the_resolvers_explanation() {
    let server = Server::start().await;
    let day = Some("2020-02-01".to_owned());
    for (name, expected) in [
        ("expired.a.example", (Reason::Servfail, vec![7], true, day)),
        ("taciturn.a.example", (Reason::Servfail, Vec::new(), true, None)),
        ("dead.a.example", (Reason::Servfail, vec![22], false, None)),
    ] {
        assert_eq!(failure(&server.ask(name, ValidatedType::Soa).await), expected, "{name}");
    }
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dns = Dns::for_domain_check(Some(nobody.local_addr().unwrap()), DEADLINE / 8).unwrap();
    let name = DomainName::parse("a.example").unwrap();
    // Nothing listens for TCP.
    let answer = dns.validated(&name, ValidatedType::Soa).await;
    assert_eq!(failure(&answer).0, Reason::Unreachable);
}
