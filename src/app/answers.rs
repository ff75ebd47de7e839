//! Who answers what sessions ask: the keeper of the doors about our own receive path, `reach` about everything else.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::door::{Keeper, ProbeResult};
use crate::addr::Family;
use crate::policy::facts::{Answer, Answered, DomainName, Lookup, Reason, Record, Source};
use crate::reach::Reach;
use crate::reach::vantage::{Found, Vantage};
use crate::relay::{Ask, Asking};
use crate::time::Timestamp;

/// Given to the relay before there are doors to keep.
pub(super) struct Answers {
    /// `None` if nobody can be asked.
    reach: Option<Reach>,
    keeper: OnceLock<Keeper>,
}

impl Answers {
    pub(super) const fn new(reach: Option<Reach>) -> Self {
        Self { reach, keeper: OnceLock::new() }
    }

    /// From now on `keeper` knows of the receive path.
    pub(super) fn kept_by(&self, keeper: Keeper) {
        let _there_is_one = self.keeper.set(keeper);
    }
}

impl Ask for Answers {
    fn ask(&self, lookup: Lookup) -> Asking {
        if let (Lookup::ReceivePath(family), Some(keeper)) = (&lookup, self.keeper.get()) {
            let (keeper, family) = (keeper.clone(), *family);
            return Box::pin(async move {
                let answer = keeper.receive_path(family).await;
                let at = Some(Timestamp::from_system_time(SystemTime::now()));
                Answered { answer, source: Source::Traffic, at }
            });
        }
        match &self.reach {
            Some(reach) => {
                let reach = reach.clone();
                Box::pin(async move { reach.ask(&lookup).await })
            }
            None => ().ask(lookup),
        }
    }
}

/// Whether the exchanges of each of our domains have an address in the family; `None` if that is not known, or there are no
/// domains.
pub(super) async fn mx_has(reach: Reach, domains: Vec<DomainName>, family: Family) -> Option<bool> {
    let mut all = None;
    for domain in domains {
        let hosts = match reach.ask(&Lookup::MailExchanges(domain.clone())).await.answer {
            Answer::Records(records) => records
                .into_iter()
                .filter_map(|record| match record {
                    Record::Exchange { host, .. } if !host.is_root() => Some(host),
                    _ => None,
                })
                .collect(),
            Answer::NoData => vec![domain],
            Answer::NxDomain => Vec::new(),
            _ => return None,
        };
        let mut has = false;
        for host in hosts {
            match reach.ask(&Lookup::Addresses(host, family)).await.answer {
                Answer::Records(_) => has = true,
                Answer::NoData | Answer::NxDomain => {}
                _ => return None,
            }
        }
        if !has {
            return Some(false);
        }
        all = Some(true);
    }
    all
}

/// What a prober elsewhere finds of each of our domains: one that it does not reach is what counts.
pub(super) async fn seen_from(
    vantage: Arc<Vantage>,
    domains: Vec<DomainName>,
    family: Family,
) -> ProbeResult {
    let mut result = ProbeResult::Unknown;
    for domain in domains {
        let Ok(found) = vantage.probe(&domain, family).await else {
            return ProbeResult::Unknown;
        };
        match found.receive_path() {
            Answer::Yes(_) => result = ProbeResult::Reached,
            // Nothing is published there, so nobody comes.
            Answer::No(Reason::NoUsableAddress, _) => {}
            Answer::No(..) => return ProbeResult::NotReached(addresses(&found)),
            _ => return ProbeResult::Unknown,
        }
    }
    result
}

/// `mx.example.org 2001:db8::25 silent`, one after the other.
fn addresses(found: &Found) -> String {
    let Found::Addresses(probed) = found else { return String::new() };
    let each = probed.iter().filter_map(|one| match &one.answer {
        Answer::No(reason, _) => Some(format!("{} {} {}", one.host, one.ip, reason.as_str())),
        _ => None,
    });
    each.collect::<Vec<_>>().join(", ")
}
