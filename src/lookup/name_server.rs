//! A zone's name server, asked directly rather than through the resolver.

use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::RecordType;

use super::dns::{Dns, PORT};
use super::dns_exchange::{ExchangeError, exchange, query};
use crate::policy::facts::DomainName;
use crate::readiness::NameServerReply;

impl Dns {
    /// Asks `server` for the SOA record of `zone`. Answers no later than the deadline.
    pub async fn ask_name_server(&self, server: IpAddr, zone: &DomainName) -> NameServerReply {
        let query = query(zone, RecordType::SOA);
        match exchange(SocketAddr::new(server, PORT), &query, self.deadline()).await {
            Ok(response) => reply(&response, zone),
            Err(ExchangeError::NoRoute) => NameServerReply::NoRoute,
            Err(ExchangeError::Refused | ExchangeError::NoResponse) => NameServerReply::NoResponse,
        }
    }
}

fn reply(response: &Message, zone: &DomainName) -> NameServerReply {
    let metadata = &response.metadata;
    let is_soa = |name: DomainName, kind| kind == RecordType::SOA && name == *zone;
    let mut answers = response.answers.iter();
    let has_soa = answers.any(|one| is_soa(one.name.clone().into(), one.record_type()));
    if metadata.response_code != ResponseCode::NoError {
        // Such as `REFUSED`.
        let code = format!("{:?}", metadata.response_code).to_uppercase();
        NameServerReply::Lame(format!("it answers {code}"))
    } else if !metadata.authoritative {
        NameServerReply::Lame("it answers without authority".to_owned())
    } else if !has_soa {
        NameServerReply::Lame("its answer has no SOA record".to_owned())
    } else {
        NameServerReply::Answers
    }
}
