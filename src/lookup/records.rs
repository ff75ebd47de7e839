//! Records that no policy asks for: TXT, and whether a name is an alias.

use hickory_proto::rr::{RData, RecordType};

use super::Dns;
use crate::policy::facts::{Answer, DomainName, Reason};
use crate::readiness::{Alias, Texts};

impl Dns {
    /// TXT of `name`, each with its strings joined. Never later than the deadline.
    pub async fn texts(&self, name: &DomainName) -> Texts {
        let found = match self.records(name, RecordType::TXT).await {
            Ok(found) => found,
            Err((answer, _)) => {
                return match answer {
                    Answer::NoData => Texts::NoData,
                    Answer::NxDomain => Texts::NxDomain,
                    Answer::Unknown(reason) => Texts::Unknown(reason),
                    Answer::Records(_) | Answer::Yes(_) | Answer::No(..) => {
                        Texts::Unknown(Reason::NoSource)
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
        if texts.is_empty() { Texts::Unknown(Reason::Servfail) } else { Texts::Found(texts) }
    }

    /// What `name` is an alias of. Never later than the deadline.
    pub async fn alias(&self, name: &DomainName) -> Alias {
        match self.records(name, RecordType::CNAME).await {
            Ok(found) => {
                let mut targets = found.answers().iter().filter_map(|answer| match &answer.data {
                    RData::CNAME(target) => Some(target.0.clone().into()),
                    _ => None,
                });
                targets.next().map_or(Alias::No, Alias::Of)
            }
            Err((Answer::Unknown(reason), _)) => Alias::Unknown(reason),
            Err(_) => Alias::No,
        }
    }
}
