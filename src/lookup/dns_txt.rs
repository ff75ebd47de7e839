//! DNS lookups that only the domain check needs: TXT, and CNAME.

use hickory_proto::rr::{RData, RecordType};

use super::dns::Dns;
use crate::policy::facts::{Answer, DomainName, Reason};
use crate::readiness::{CnameAnswer, TxtAnswer};

impl Dns {
    /// The TXT records of `name`, each with its strings joined. Answers no later than the deadline.
    pub async fn texts(&self, name: &DomainName) -> TxtAnswer {
        let found = match self.records(name, RecordType::TXT).await {
            Ok(found) => found,
            Err((answer, _)) => {
                return match answer {
                    Answer::NoData => TxtAnswer::NoData,
                    Answer::NxDomain => TxtAnswer::NxDomain,
                    Answer::Unknown(reason) => TxtAnswer::Unknown(reason),
                    Answer::Records(_) | Answer::Yes(_) | Answer::No(..) => {
                        TxtAnswer::Unknown(Reason::NoResolver)
                    }
                };
            }
        };
        let mut texts: Vec<Vec<u8>> = found
            .answers()
            .iter()
            .filter_map(|answer| match &answer.data {
                RData::TXT(text) => Some(text.txt_data.concat()),
                _ => None,
            })
            .collect();
        // Servers rotate records.
        texts.sort();
        if texts.is_empty() {
            TxtAnswer::Unknown(Reason::Servfail)
        } else {
            TxtAnswer::Found(texts)
        }
    }

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
