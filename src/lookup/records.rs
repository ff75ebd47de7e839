//! Records that no policy asks for: TXT, and whether a name is an alias.

use hickory_proto::rr::{RData, RecordType};

use super::Dns;
use crate::policy::facts::{Answer, DomainName, Reason};
use crate::readiness::{CnameAnswer, TxtAnswer};

impl Dns {
    /// TXT of `name`, each with its strings joined. Never later than the deadline.
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
        // Servers rotate what they answer.
        texts.sort();
        if texts.is_empty() {
            TxtAnswer::Unknown(Reason::Servfail)
        } else {
            TxtAnswer::Found(texts)
        }
    }

    /// What `name` is an alias of. Never later than the deadline.
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
