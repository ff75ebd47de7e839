//! Errors of clients that have the key.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::protocol::{ProbeRequest, SIGNATURE};
use super::signature::Role;
use super::*;
use crate::addr::Family;
use crate::lookup::clock::now;
use crate::lookup::{LookupService, LookupSettings};
use crate::policy::facts::DomainName;
use crate::time::Timestamp;

#[tokio::test]
async fn clocks_must_agree_and_requests_must_parse() {
    let path = std::env::temp_dir().join(format!("gatepost-skew-{}.key", std::process::id()));
    std::fs::write(&path, "c".repeat(64)).unwrap();
    let key = SharedKey::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let dns_servers = vec![(Ipv4Addr::LOCALHOST, 9).into()];
    let settings = LookupSettings { dns_servers, ..LookupSettings::default() };
    let (service, _) = LookupService::start(settings, Arc::new(())).unwrap();
    let requests_per_minute = NonZeroU32::new(60).unwrap();
    let server_settings = VantageServerSettings {
        key: key.clone(),
        domains: BTreeSet::new(),
        requests_per_minute,
        only_global: true,
        canaries: None,
        reports: None,
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, VantageServer::new(server_settings, service, Arc::new(()))));

    let request = |at: Timestamp, nonce: &str| {
        let domain = DomainName::parse("a.example").unwrap();
        let nonce = nonce.to_owned();
        serde_json::to_vec(&ProbeRequest { domain, family: Family::Ipv6, at, nonce }).unwrap()
    };
    let minute = Duration::from_secs(60);
    let early = Timestamp::from_nanos(now().as_nanos() - (6 * minute).as_nanos() as u64);
    for (body, role, expected) in [
        (request(now() + 6 * minute, "1"), Role::Request, "synchronize the clocks"),
        (request(early, "2"), Role::Request, "synchronize the clocks"),
        (request(now() + 4 * minute, "3"), Role::Request, "not among the domains of this vantage"),
        (request(now(), "4"), Role::Response, "the signature is wrong"),
        (b"{\"domain\":\"a.example\"}".to_vec(), Role::Request, "cannot parse the request"),
        (b"\xff".to_vec(), Role::Request, "cannot parse the request"),
    ] {
        let signature = key.sign(role, &body);
        let head = format!(
            "POST /probe HTTP/1.1\r\nHost: a\r\n{SIGNATURE}: {signature}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 4") && answer.contains(expected), "{answer}");
    }
}
