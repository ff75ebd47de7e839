//! A DNS server on loopback whose responses depend on the name's first label; counts queries.
//!
//! `a`, `b`, …: an answer at once; `slow`: after 300 ms; `silent`: never; `nx`: NXDOMAIN and `none`: NODATA, each with a TTL of
//! 7 s; `lame`: SERVFAIL; `once`: SERVFAIL for the first query only; `gone`: NXDOMAIN without an SOA. A number after a dash is the
//! TTL.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, PTR, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(super) const SLOW: Duration = Duration::from_millis(300);

pub(super) struct Resolver {
    pub(super) address: SocketAddr,
    counts: Arc<Mutex<HashMap<String, usize>>>,
    serving: JoinHandle<()>,
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Resolver {
    pub(super) async fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap());
        let address = socket.local_addr().unwrap();
        let counts: Arc<Mutex<HashMap<String, usize>>> = Arc::default();
        let counted = Arc::clone(&counts);
        let serving = tokio::spawn(async move {
            let mut bytes = [0; 2048];
            loop {
                let Ok((count, peer)) = socket.recv_from(&mut bytes).await else { continue };
                let query = Message::from_vec(&bytes[..count]).unwrap();
                let name = query.queries[0].name().to_lowercase().to_string();
                let name = name.trim_end_matches('.').to_owned();
                let times = {
                    let mut counted = counted.lock().unwrap();
                    let times = counted.entry(name.clone()).or_default();
                    *times += 1;
                    *times
                };
                let socket = Arc::clone(&socket);
                tokio::spawn(async move {
                    if let Some((after, response)) = respond(&query, &name, times) {
                        sleep(after).await;
                        socket.send_to(&response.to_vec().unwrap(), peer).await.unwrap();
                    }
                });
            }
        });
        Self { address, counts, serving }
    }

    /// Queries for `name`, of any type.
    pub(super) fn queries(&self, name: &str) -> usize {
        self.counts.lock().unwrap().get(name).copied().unwrap_or_default()
    }

    pub(super) fn total_queries(&self) -> usize {
        self.counts.lock().unwrap().values().sum()
    }
}

fn respond(query: &Message, name: &str, times: usize) -> Option<(Duration, Message)> {
    let question = query.queries[0].clone();
    let label = name.split('.').next().unwrap();
    let (behaviour, ttl) = label.split_once('-').unwrap_or((label, "60"));
    let owner = question.name().clone();
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    let host = || Name::from_ascii("mx.a.example.").unwrap();
    let data = match question.query_type() {
        RecordType::A => RData::A(A::new(192, 0, 2, 1)),
        RecordType::AAAA => RData::AAAA(AAAA::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
        RecordType::PTR => RData::PTR(PTR(host())),
        _ => RData::MX(MX::new(10, host())),
    };
    let soa = || {
        let data = SOA::new(host(), host(), 1, 2, 3, 4, 7);
        Record::from_rdata(Name::from_ascii("example.").unwrap(), 3600, RData::SOA(data))
    };
    response.add_query(question);
    let mut after = Duration::ZERO;
    match behaviour {
        "silent" => return None,
        "lame" => response.metadata.response_code = ResponseCode::ServFail,
        "once" if times == 1 => response.metadata.response_code = ResponseCode::ServFail,
        "gone" => response.metadata.response_code = ResponseCode::NXDomain,
        "nx" => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.add_authority(soa());
        }
        "none" => {
            response.add_authority(soa());
        }
        _ => {
            if behaviour == "slow" {
                after = SLOW;
            }
            response.add_answer(Record::from_rdata(owner, ttl.parse().unwrap(), data));
        }
    }
    Some((after, response))
}
