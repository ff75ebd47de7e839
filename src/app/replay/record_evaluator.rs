//! Facts for the policy evaluation of captured sessions. Lookups are answered by the gateway's recording, the capture's
//! own DNS, a zone file and a resolver, in this order.

use std::time::Duration;

use anyhow::Context as _;

use crate::addr::Networks;
use crate::cli::PolicyArgs;
use crate::engine::{Profile, SessionRecord, evaluate_record};
use crate::lookup::{Dns, PassiveDns, Sources, ZoneFile, parse_server};
use crate::policy::facts::{
    Answers, FactState, Facts, FamilyRequirement, PresentedCertificate, ReturnPathCheck,
    ReturnPathLevel, fcrdns, helo_resolves, return_path, reverse_name,
};

/// Limit of one DNS query.
const DEADLINE: Duration = Duration::from_secs(5);

/// Evaluates the policy of `--config`.
pub(super) struct RecordEvaluator {
    zone: Option<ZoneFile>,
    dns: Option<Dns>,
}

impl RecordEvaluator {
    pub(super) fn new(args: &PolicyArgs) -> anyhow::Result<Option<Self>> {
        if args.config.is_none() {
            return Ok(None);
        }
        let zone = args.zone.as_deref().map(ZoneFile::open).transpose()?;
        let dns = match &args.dns {
            None => None,
            Some(None) => Some(Dns::system(DEADLINE).context("--dns")?),
            Some(Some(server)) => {
                let server = parse_server(server).map_err(anyhow::Error::msg).context("--dns")?;
                Some(Dns::new(&[server], DEADLINE).context("--dns")?)
            }
        };
        Ok(Some(Self { zone, dns }))
    }

    /// Evaluates the rules of `profile` on `record`, and sets its facts and verdict. `recorded` are the lookup answers of the
    /// gateway's own decision, if the capture has them; they take precedence over present answers. Returns the names of what
    /// is not known.
    pub(super) async fn evaluate(
        &self,
        profile: &Profile,
        record: &mut SessionRecord,
        recorded: Option<&str>,
        dns_in_capture: &PassiveDns,
    ) -> Vec<&'static str> {
        // The server looks up its client after the connection, so answers until the end count.
        let end = record.start + record.duration;
        let sources = Sources {
            passive_dns: Some((dns_in_capture, end)),
            zone: self.zone.as_ref(),
            dns: self.dns.as_ref(),
        };
        // Answers that were omitted, or are of another version, count as not recorded.
        let recorded = recorded.and_then(|json| Answers::from_json(json).ok());
        let was_recorded = recorded.is_some();
        let mut known = recorded.unwrap_or_default();
        let reviewed = loop {
            let reviewed = evaluate_record(profile, record, &known);
            // Shadow rules that waited for an answer when the session ended had no effect then either.
            if reviewed.need.is_empty() || was_recorded && reviewed.is_decided {
                break reviewed;
            }
            sources.fetch(&mut known, reviewed.need).await;
        };
        if let Some(certificate) = known.client_certificate().certificate() {
            record.smtp.client_certificate = Some(certificate.clone());
        }
        let facts = reviewed.facts;
        record.verdict = reviewed.verdict;
        let facts = with_common_facts(facts, record, &sources, &mut known).await;
        let mut unknown = unknown_facts(&facts);
        if profile.rules.use_client_certificate()
            && record.smtp.tls.is_encrypted()
            && *known.client_certificate() == PresentedCertificate::NotKnown
        {
            unknown.push("client_certificate");
        }
        record.facts = Some(facts);
        unknown
    }
}

/// Adds the facts that a replay reports for every session.
async fn with_common_facts(
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
        let check = ReturnPathCheck {
            sender: &transaction.mail_from,
            family: record.family,
            over: FamilyRequirement::Any,
            level: ReturnPathLevel::Dns,
            ours: &Networks::default(),
        };
        let fact = sources.resolve(known, |known| return_path(&check, known)).await;
        facts.return_path = Some(fact);
    }
    facts
}

/// The names of the unknown facts.
fn unknown_facts(facts: &Facts) -> Vec<&'static str> {
    let unknown = facts.named().filter(|(_, fact)| fact.state == FactState::Unknown);
    unknown.map(|(name, _)| name).collect()
}
