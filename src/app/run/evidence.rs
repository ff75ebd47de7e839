//! Evidence for the doors besides the relay's own sessions: watched traffic, our MX records, a vantage.

use std::sync::Arc;

use anyhow::Context as _;

use super::canary::CanaryService;
use crate::addr::Family;
use crate::app::door::{EvidenceSources, WatchedEvidence};
use crate::config::Config;
use crate::lookup::LookupService;
use crate::lookup::vantage::{Vantage, VantageResult};
use crate::metrics::Metrics;
use crate::policy::door::ProbeResult;
use crate::policy::facts::{
    Answer, Answers, DomainName, Evaluation, FactState, site_mx_has_address,
};

/// # Errors
/// The vantage's key cannot be read.
pub(super) fn evidence_sources(
    config: &Config,
    lookup: Option<&LookupService>,
    canary: &CanaryService,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<EvidenceSources> {
    let watched = Arc::clone(metrics);
    let canary = canary.clone();
    let mut sources = EvidenceSources {
        filtered: Some(Box::new(move |family| canary.filtered(family))),
        watched: Some(Box::new(move |family| WatchedEvidence {
            accepted: watched.last_accepted(family),
            under_tls: watched.last_under_tls(family),
        })),
        ..EvidenceSources::default()
    };
    if let Some(settings) = &config.vantage {
        let vantage = Vantage::new(settings, config.relay.mark).context("[vantage]")?;
        let prober = Arc::new(VantageProber { vantage, domains: settings.domains.clone() });
        sources.vantage = Some(Box::new(move |family| {
            let prober = Arc::clone(&prober);
            Box::pin(async move { prober.probe(family).await })
        }));
    }
    // The domains that the vantage probes are ours as well.
    let probed = config.vantage.iter().flat_map(|vantage| &vantage.domains);
    let mut domains: Vec<DomainName> = config.site.domains.iter().chain(probed).cloned().collect();
    domains.sort();
    domains.dedup();
    if let (Some(lookup), false) = (lookup.cloned(), domains.is_empty()) {
        sources.mx_has_address = Some(Box::new(move |family| {
            Box::pin(mx_has_address(lookup.clone(), domains.clone(), family))
        }));
    }
    Ok(sources)
}

async fn mx_has_address(
    lookup: LookupService,
    domains: Vec<DomainName>,
    family: Family,
) -> Option<bool> {
    let mut known = Answers::default();
    loop {
        match site_mx_has_address(&domains, family, &known) {
            Evaluation::Known(fact) => {
                return match fact.state {
                    FactState::True => Some(true),
                    FactState::False => Some(false),
                    FactState::Unknown => None,
                };
            }
            Evaluation::NeedsLookups(lookups) => {
                for needed in lookups {
                    let result = lookup.lookup(&needed).await;
                    known.insert(needed, result);
                }
            }
        }
    }
}

/// Probes our domains from a vantage.
struct VantageProber {
    vantage: Vantage,
    domains: Vec<DomainName>,
}

impl VantageProber {
    /// The first domain that is not reached, or whose result is unknown, decides.
    async fn probe(&self, family: Family) -> ProbeResult {
        let (mut is_reached, mut all_large) = (false, true);
        for domain in &self.domains {
            let found = match self.vantage.probe(domain, family).await {
                Ok(found) => found,
                Err(error) => return ProbeResult::NoAnswer(error.to_string()),
            };
            let result = ProbeResult::of_domain(
                &found.receive_path(),
                found.large_segment_arrived(),
                || failures(&found),
            );
            match result {
                None => {}
                Some(ProbeResult::Reached { large }) => {
                    is_reached = true;
                    all_large &= large;
                }
                Some(decisive) => return decisive,
            }
        }
        match is_reached {
            true => ProbeResult::Reached { large: all_large },
            false => ProbeResult::Unknown,
        }
    }
}

/// `mx.example.org 2001:db8::25 no_response`, for each address that failed.
fn failures(found: &VantageResult) -> String {
    let VantageResult::Addresses(probed) = found else { return String::new() };
    let failed = probed.iter().filter_map(|one| match &one.answer {
        Answer::No(reason, _) => Some(format!("{} {} {}", one.host, one.ip, reason.as_str())),
        _ => None,
    });
    failed.collect::<Vec<_>>().join(", ")
}
