//! CNAME records, which only the domain check looks up.

use hickory_proto::rr::{RData, RecordType};

use super::dns::Dns;
use crate::policy::facts::{Answer, DomainName};
use crate::readiness::CnameAnswer;

impl Dns {
    /// The CNAME of `name`. Answers no later than the deadline.
    pub async fn alias(&self, name: &DomainName) -> CnameAnswer {
        match self.records(name, RecordType::CNAME).await {
            Ok(found) => {
                let mut targets = found.answers().iter().filter_map(|answer| match &answer.data {
                    RData::CNAME(target) => Some(target.0.clone().into()),
                    _ => None,
                });
                targets.next().map_or(CnameAnswer::None, CnameAnswer::Target)
            }
            Err((Answer::Unknown(reason), _)) => CnameAnswer::Unknown(reason),
            Err(_) => CnameAnswer::None,
        }
    }
}
