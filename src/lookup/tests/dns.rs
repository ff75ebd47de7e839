//! Live DNS answers, from a real server on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::rr::Name;
use hickory_proto::serialize::txt::Parser;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_server::Server;
use hickory_server::store::in_memory::InMemoryZoneHandler;
use hickory_server::zone_handler::{AxfrPolicy, Catalog, ZoneHandler, ZoneType};
use tokio::net::{TcpListener, UdpSocket};

use super::super::{Dns, Sources, parse_server};
use super::{brief, lookup};
use crate::policy::facts::{Answers, Source};
use crate::policy::facts::{FactState, fcrdns};

const EXAMPLE: &str = "\
@ SOA ns.a.example. host.a.example. 1 2 3 4 5
@ NS ns.a.example.
a MX 10 mx.a
mx.a A 192.0.2.25
mx.a AAAA 2001:db8::25
alias.a CNAME mx.a
null MX 0 .
";
const REVERSE: &str = "\
@ SOA ns.a.example. host.a.example. 1 2 3 4 5
@ NS ns.a.example.
5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR mx.a.example.
";

const DEADLINE: Duration = Duration::from_secs(20);

async fn server() -> (Server<Catalog>, SocketAddr) {
    let mut catalog = Catalog::new();
    // More PTR records than a datagram holds: the answer comes over TCP.
    let many: String = (0..200)
        .map(|n| format!("6.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 PTR n{n}.a.example.\n"))
        .collect();
    let reverse = format!("{REVERSE}{many}");
    for (origin, text) in [("example.", EXAMPLE), ("8.b.d.0.1.0.0.2.ip6.arpa.", reverse.as_str())] {
        let origin = Name::from_ascii(origin).unwrap();
        let parser = Parser::new(format!("$TTL 60\n{text}"), None, Some(origin));
        let (origin, records) = parser.parse().unwrap();
        let zone = InMemoryZoneHandler::<TokioRuntimeProvider>::new(
            origin.clone(),
            records,
            ZoneType::Primary,
            AxfrPolicy::Deny,
        );
        let handlers: Vec<Arc<dyn ZoneHandler>> = vec![Arc::new(zone.unwrap())];
        catalog.upsert(origin.into(), handlers);
    }
    // The same port for both: a UDP port may be taken for TCP.
    let (udp, tcp) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().unwrap()).await {
            break (udp, tcp);
        }
    };
    let address = udp.local_addr().unwrap();
    let mut server = Server::new(catalog);
    server.register_socket(udp);
    server.register_listener(tcp, Duration::from_secs(5), 64);
    (server, address)
}

#[tokio::test]
async fn a_server_answers() {
    let (server, address) = server().await;
    let dns = Dns::new(&[address], DEADLINE).unwrap();
    for (query, expected) in [
        ("MX a.example", "10 mx.a.example"),
        ("MX A.Example.", "10 mx.a.example"),
        ("A mx.a.example", "192.0.2.25"),
        ("AAAA mx.a.example", "2001:db8::25"),
        ("AAAA alias.a.example", "2001:db8::25"),
        ("MX alias.a.example", "nodata"),
        ("MX null.example", "0 ."),
        ("MX mx.a.example", "nodata"),
        ("A nowhere.example", "nxdomain"),
        ("PTR 2001:db8::25", "mx.a.example"),
        ("PTR 2001:db8::24", "nxdomain"),
        // REFUSED for zones that it does not serve.
        ("PTR 192.0.2.25", "unknown servfail"),
        ("MX a.elsewhere", "unknown servfail"),
    ] {
        assert_eq!(brief(&dns.answer(&lookup(query)).await), expected, "{query}");
    }
    let many = brief(&dns.answer(&lookup("PTR 2001:db8::26")).await);
    assert_eq!(many.split(", ").count(), 200);

    let sources = Sources { dns: Some(&dns), ..Sources::default() };
    let client = "2001:db8::25".parse().unwrap();
    let fact = sources.resolve(&mut Answers::default(), |known| fcrdns(client, known)).await;
    assert_eq!((fact.state, fact.source), (FactState::True, Source::Dns));
    assert_eq!(fact.detail.unwrap().to_string(), "mx.a.example");
    server.shutdown_token().cancel();
}

#[tokio::test]
async fn without_a_response_an_answer_is_unknown() {
    let silent = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let dns = Dns::new(&[silent.local_addr().unwrap()], Duration::from_millis(200)).unwrap();
    assert_eq!(brief(&dns.answer(&lookup("MX a.example")).await), "unknown timeout");
    let gone = silent.local_addr().unwrap();
    drop(silent);
    let dns = Dns::new(&[gone], Duration::from_millis(200)).unwrap();
    let answer = brief(&dns.answer(&lookup("MX a.example")).await);
    assert!(matches!(answer.as_str(), "unknown timeout" | "unknown unreachable"), "{answer}");
}

#[test]
fn a_server_is_an_address_with_an_optional_port() {
    for (text, expected) in [
        ("192.0.2.53", "192.0.2.53:53"),
        ("192.0.2.53:5353", "192.0.2.53:5353"),
        ("2001:db8::53", "[2001:db8::53]:53"),
        ("[2001:db8::53]", "[2001:db8::53]:53"),
        ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
    ] {
        assert_eq!(parse_server(text).unwrap().to_string(), expected);
    }
    assert_eq!(
        parse_server("dns.example").unwrap_err(),
        "expected the address of a DNS server, such as 192.0.2.53, 192.0.2.53:5353, 2001:db8::53 or \
         [2001:db8::53]:5353; found \"dns.example\""
    );
}
