//! Who answers what sessions ask: the keeper of the doors about our own receive path, `lookup` about everything else.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;

use crate::addr::Family;
use crate::app::door::{Keeper, ProbeResult, Surroundings};
use crate::app::reading::Told;
use crate::config::Config;
use crate::lookup::vantage::{Vantage, VantageResult};
use crate::lookup::{self, LookupService};
use crate::metrics::Metrics;
use crate::policy::facts::{
    Answer, DnsRecord, DomainName, Lookup, LookupObserver, LookupResult, Reason, Source,
};
use crate::relay::{LookupFuture, LookupProvider};
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;
use crate::traffic::{FlowSummary, MailDirection};

/// Who looks things up. A gateway without it relays all the same, and the log says why.
pub(super) fn start(
    settings: &lookup::LookupSettings,
    observer: Arc<dyn LookupObserver>,
    log: &SessionLog,
) -> Option<LookupService> {
    match LookupService::start(settings.clone(), observer) {
        Ok((reach, notices)) => {
            notices.iter().for_each(|notice| log.notice(LogLevel::Warn, notice));
            Some(reach)
        }
        Err(why) => {
            log.notice(LogLevel::Warn, &format!("nothing can be looked up: {why}"));
            None
        }
    }
}

/// What the flows that pass beside the relay tell of other servers.
pub(super) fn passing(reach: LookupService) -> Told {
    Arc::new(move |passed: &FlowSummary<'_>| {
        if let (MailDirection::Outbound, Some(response)) = (passed.direction, passed.response()) {
            reach.on_response(passed.flow.start.server.ip(), response, passed.flow.end);
        }
    })
}

/// What the doors may know beside what the relay hears.
///
/// # Errors
/// The vantage's key cannot be read.
pub(super) fn surroundings(
    config: &Config,
    reach: Option<&LookupService>,
    metrics: &Arc<Metrics>,
    log: &Arc<SessionLog>,
) -> anyhow::Result<Surroundings> {
    let watched = Arc::clone(metrics);
    let mut around = Surroundings {
        watched: Some(Box::new(move |family| watched.last_accepted(family))),
        ..Surroundings::default()
    };
    if let Some(settings) = &config.vantage {
        let vantage = Vantage::new(settings, config.relay.upstream.mark).context("[vantage]")?;
        let elsewhere = Elsewhere {
            vantage,
            domains: settings.domains.clone(),
            log: Arc::clone(log),
            trouble: Mutex::default(),
        };
        let elsewhere = Arc::new(elsewhere);
        around.vantage = Some(Box::new(move |family| {
            let elsewhere = Arc::clone(&elsewhere);
            Box::pin(async move { elsewhere.sees(family).await })
        }));
    }
    // Those that the vantage is asked about are ours, too.
    let more = config.vantage.iter().flat_map(|vantage| &vantage.domains);
    let mut domains: Vec<DomainName> = config.site.domains.iter().chain(more).cloned().collect();
    domains.sort();
    domains.dedup();
    if let (Some(reach), false) = (reach.cloned(), domains.is_empty()) {
        around.mx_has =
            Some(Box::new(move |family| Box::pin(mx_has(reach.clone(), domains.clone(), family))));
    }
    Ok(around)
}

/// Given to the relay before there are doors to keep.
pub(super) struct Answers {
    /// `None` if nobody can be asked.
    reach: Option<LookupService>,
    keeper: OnceLock<Keeper>,
}

impl Answers {
    pub(super) const fn new(reach: Option<LookupService>) -> Self {
        Self { reach, keeper: OnceLock::new() }
    }

    /// From now on `keeper` knows of the receive path.
    pub(super) fn kept_by(&self, keeper: Keeper) {
        let _there_is_one = self.keeper.set(keeper);
    }
}

impl LookupProvider for Answers {
    fn lookup(&self, lookup: Lookup) -> LookupFuture {
        if let (Lookup::ReceivePath(family), Some(keeper)) = (&lookup, self.keeper.get()) {
            let (keeper, family) = (keeper.clone(), *family);
            return Box::pin(async move {
                let answer = keeper.receive_path(family).await;
                let at = Some(Timestamp::from_system_time(SystemTime::now()));
                LookupResult { answer, source: Source::Traffic, at }
            });
        }
        match &self.reach {
            Some(reach) => {
                let reach = reach.clone();
                Box::pin(async move { reach.lookup(&lookup).await })
            }
            None => ().lookup(lookup),
        }
    }
}

/// Whether the exchanges of each of our domains have an address in the family; `None` if that is not known, or there are no
/// domains.
async fn mx_has(reach: LookupService, domains: Vec<DomainName>, family: Family) -> Option<bool> {
    let mut all = None;
    for domain in domains {
        let hosts = match reach.lookup(&Lookup::MailExchanges(domain.clone())).await.answer {
            Answer::Records(records) => records
                .into_iter()
                .filter_map(|record| match record {
                    DnsRecord::Exchange { host, .. } if !host.is_root() => Some(host),
                    _ => None,
                })
                .collect(),
            Answer::NoData => vec![domain],
            Answer::NxDomain => Vec::new(),
            _ => return None,
        };
        let mut has = false;
        for host in hosts {
            match reach.lookup(&Lookup::Addresses(host, family)).await.answer {
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

/// A prober on another network.
struct Elsewhere {
    vantage: Vantage,
    domains: Vec<DomainName>,
    log: Arc<SessionLog>,
    /// Why it told nothing, as the log has it; empty while it tells.
    trouble: Mutex<String>,
}

impl Elsewhere {
    /// What it finds of each of our domains: one that it does not reach is what counts.
    async fn sees(&self, family: Family) -> ProbeResult {
        let mut result = ProbeResult::Unknown;
        for domain in &self.domains {
            let found = match self.vantage.probe(domain, family).await {
                Ok(found) => found,
                Err(why) => {
                    self.troubled(&why.to_string());
                    return ProbeResult::Unknown;
                }
            };
            self.troubled("");
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

    /// Once is enough while it is the same.
    fn troubled(&self, why: &str) {
        let mut before = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *before == why {
            return;
        }
        match why {
            "" => self.log.notice(LogLevel::Info, "the vantage answers again"),
            _ => self.log.notice(LogLevel::Warn, &format!("no probes from elsewhere: {why}")),
        }
        why.clone_into(&mut before);
    }
}

/// `mx.example.org 2001:db8::25 silent`, one after the other.
fn addresses(found: &VantageResult) -> String {
    let VantageResult::Addresses(probed) = found else { return String::new() };
    let each = probed.iter().filter_map(|one| match &one.answer {
        Answer::No(reason, _) => Some(format!("{} {} {}", one.host, one.ip, reason.as_str())),
        _ => None,
    });
    each.collect::<Vec<_>>().join(", ")
}
