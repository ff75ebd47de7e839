//! What the policy asks of a session: answered by the gateway that recorded it, the capture itself, a master file, a
//! resolver, in this order.

use std::time::Duration;

use anyhow::Context as _;

use crate::addr::Networks;
use crate::cli::PolicyArgs;
use crate::engine::{Profile, SessionRecord, review};
use crate::lookup::{Dns, PassiveDns, Sources, ZoneFile, parse_server};
use crate::policy::facts::{
    Answers, FactState, Facts, FamilyRequirement, ReturnPathCheck, ReturnPathLevel, fcrdns,
    helo_resolves, return_path, reverse_name,
};

/// How long a resolver may take for one answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Finds facts where `--config` says that they matter.
pub(super) struct FactFinder {
    zone: Option<ZoneFile>,
    dns: Option<Dns>,
}

impl FactFinder {
    pub(super) fn new(judge: &PolicyArgs) -> anyhow::Result<Option<Self>> {
        if judge.config.is_none() {
            return Ok(None);
        }
        let zone = judge.zone.as_deref().map(ZoneFile::open).transpose()?;
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

    /// Judges `record` by the rules of its profile: what they go by, and its verdict. `recorded` are the answers that the
    /// gateway decided by, if they are there; they come before all else that is known now.
    pub(super) async fn judge(
        &self,
        profile: &Profile,
        record: &mut SessionRecord,
        recorded: Option<&str>,
        capture: &PassiveDns,
    ) {
        // Whatever the server asked about its client, it asked after the connection.
        let end = record.start + record.duration;
        let sources = Sources {
            passive_dns: Some((capture, end)),
            zone: self.zone.as_ref(),
            dns: self.dns.as_ref(),
        };
        // Those that were left out, or are of another version, are as if they had not been recorded.
        let recorded = recorded.and_then(|json| Answers::from_json(json).ok());
        let was_judged = recorded.is_some();
        let mut known = recorded.unwrap_or_default();
        let reviewed = loop {
            let reviewed = review(profile, record, &known);
            // What rules in shadow did not know when the session ended, they did not say.
            if reviewed.need.is_empty() || was_judged && reviewed.is_decided {
                break reviewed;
            }
            sources.fetch(&mut known, reviewed.need).await;
        };
        let facts = reviewed.facts;
        record.verdict = reviewed.verdict;
        record.facts = Some(with_usual(facts, record, &sources, &mut known).await);
    }
}

/// `facts`, and those that a replay tells of every session.
async fn with_usual(
    mut facts: Facts,
    record: &SessionRecord,
    sources: &Sources<'_>,
    known: &mut Answers,
) -> Facts {
    let client = record.client.address;
    if facts.reverse_name.is_none() {
        let fact = sources.resolve(known, |known| reverse_name(client, known)).await;
        facts.reverse_name = Some(fact);
    }
    if facts.fcrdns.is_none() {
        facts.fcrdns = Some(sources.resolve(known, |known| fcrdns(client, known)).await);
    }
    if let (None, Some(helo)) = (&facts.helo_resolves, &record.smtp.helo) {
        let fact = sources.resolve(known, |known| helo_resolves(helo, known)).await;
        facts.helo_resolves = Some(fact);
    }
    if let (None, Some(transaction)) = (&facts.return_path, record.smtp.transactions.first()) {
        let ask = ReturnPathCheck {
            sender: &transaction.mail_from,
            family: record.family,
            over: FamilyRequirement::Any,
            level: ReturnPathLevel::Dns,
            ours: &Networks::default(),
        };
        let fact = sources.resolve(known, |known| return_path(&ask, known)).await;
        facts.return_path = Some(fact);
    }
    facts
}

/// The names of those that nobody could answer.
pub(super) fn unknown(facts: &Facts) -> Vec<&'static str> {
    let unknown = facts.named().filter(|(_, fact)| fact.state == FactState::Unknown);
    unknown.map(|(name, _)| name).collect()
}
