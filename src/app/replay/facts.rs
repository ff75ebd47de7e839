//! What the policy may ask of a session: answered by the capture itself, a master file, a resolver, in this order.

use std::time::Duration;

use anyhow::Context as _;

use crate::addr::Networks;
use crate::cli::Judge;
use crate::engine::SessionRecord;
use crate::policy::facts::{
    Answers, Facts, Level, Over, ReturnPath, State, fcrdns, helo_resolves, return_path,
    reverse_name,
};
use crate::reach::{Capture, Dns, Sources, Zone, parse_server};

/// How long a resolver may take for one answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Finds facts where `--config` says that they matter.
pub(super) struct FactFinder {
    zone: Option<Zone>,
    dns: Option<Dns>,
}

impl FactFinder {
    pub(super) fn new(judge: &Judge) -> anyhow::Result<Option<Self>> {
        if judge.config.is_none() {
            return Ok(None);
        }
        let zone = judge.zone.as_deref().map(Zone::open).transpose()?;
        let dns = match &judge.dns {
            None => None,
            Some(None) => Some(Dns::system(DEADLINE).context("--dns")?),
            Some(Some(server)) => {
                let server = parse_server(server).map_err(anyhow::Error::msg).context("--dns")?;
                Some(Dns::new(&[server], DEADLINE).context("--dns")?)
            }
        };
        Ok(Some(Self { zone, dns }))
    }

    pub(super) async fn facts(&self, record: &SessionRecord, capture: &Capture) -> Facts {
        // Whatever the server asked about its client, it asked after the connection.
        let end = record.start + record.duration;
        let sources = Sources {
            capture: Some((capture, end)),
            zone: self.zone.as_ref(),
            dns: self.dns.as_ref(),
        };
        let known = &mut Answers::default();
        let client = record.client.address;
        let mut facts = Facts {
            reverse_name: Some(sources.settle(known, |known| reverse_name(client, known)).await),
            fcrdns: Some(sources.settle(known, |known| fcrdns(client, known)).await),
            ..Facts::default()
        };
        if let Some(helo) = &record.smtp.helo {
            let fact = sources.settle(known, |known| helo_resolves(helo, known)).await;
            facts.helo_resolves = Some(fact);
        }
        if let Some(transaction) = record.smtp.transactions.first() {
            let ask = ReturnPath {
                sender: &transaction.mail_from,
                family: record.family,
                over: Over::Any,
                level: Level::Dns,
                ours: &Networks::default(),
            };
            let fact = sources.settle(known, |known| return_path(&ask, known)).await;
            facts.return_path = Some(fact);
        }
        facts
    }
}

/// The names of those that nobody could answer.
pub(super) fn unknown(facts: &Facts) -> Vec<&'static str> {
    let unknown = facts.named().filter(|(_, fact)| fact.state == State::Unknown);
    unknown.map(|(name, _)| name).collect()
}
