//! MTA-STS (RFC 8461): the record, the policy over each family, and whether the exchanges keep it.

mod exchanges;
mod fetched;
mod policy;

use self::fetched::FetchedPolicy;
use self::policy::{PolicyMode, StsPolicy};
use super::finding::{CheckName, FindingList};
use super::known::KnownAnswers;
use super::mx::MxHost;
use super::request::CheckRequest;
use super::versioned_text::{VersionedText, fields};
use crate::policy::facts::DomainName;

const VERSION: &str = "STSv1";
/// RFC 8461 §3.1.
const MAX_ID: usize = 32;
/// Seconds. Shorter lives protect little: an attacker waits until senders have forgotten the policy (RFC 8461 §10.2).
const SHORT: u64 = 86_400;

/// Returns whether senders are meant to verify TLS by it; `None` as long as it is not known.
pub(super) fn check(
    request: &CheckRequest,
    hosts: &[MxHost],
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Option<bool> {
    let domain = &request.domain;
    let names =
        ["_mta-sts", "mta-sts"].map(|label| DomainName::parse(&format!("{label}.{domain}")));
    // The name may be too long.
    let [Some(record_name), Some(policy_host)] = names else { return Some(false) };
    let check = CheckName::MtaStsRecord;
    let texts = match known.texts(&record_name)? {
        Ok(texts) => texts,
        Err(reason) => {
            findings.lookup_failed(check, &record_name, "MTA-STS record", reason);
            return Some(false);
        }
    };
    match VersionedText::find(&texts, VERSION, "id") {
        VersionedText::Missing => {
            check_without_record(domain, &record_name, &policy_host, known, findings)?;
            return Some(false);
        }
        VersionedText::Several(count) => {
            let seen = format!("{count} MTA-STS records; senders then use none");
            findings.fail(check, &record_name, seen, "Keep one of the TXT records.");
        }
        VersionedText::Misspelt(text) => {
            let seen = format!("not an MTA-STS record: {text}");
            let advice = "Let the record begin with \"v=STSv1;\", as in \"v=STSv1; id=20261203T1\": senders ignore this one.";
            findings.fail(check, &record_name, seen, advice);
        }
        VersionedText::One(text) => check_record(&record_name, &text, findings),
    }
    let fetched = fetched::check(&policy_host, known, findings)?;
    let policies: Vec<(&str, StsPolicy)> = fetched
        .iter()
        .filter_map(|one| Some((one.about.as_str(), check_policy(one, findings)?)))
        .collect();
    for (about, policy) in &policies {
        exchanges::check(about, policy, hosts, known, findings);
    }
    let is_switched_off =
        !policies.is_empty() && policies.iter().all(|(_, policy)| policy.mode == PolicyMode::None);
    Some(!is_switched_off)
}

fn check_record(name: &DomainName, text: &str, findings: &mut FindingList) {
    let check = CheckName::MtaStsRecord;
    let advice = "Write such as \"v=STSv1; id=20261203T1\", and change the id with each change of the policy. Senders ignore \
                  this record, and with it the policy.";
    let seen = match fields(text) {
        Err(part) => format!("{part:?} is not name=value: {text}"),
        Ok(fields) => {
            let mut ids = fields.iter().filter(|(name, _)| *name == "id");
            match (ids.next(), ids.next()) {
                (None, _) => format!("no id: {text}"),
                (Some(_), Some(_)) => format!("more than one id: {text}"),
                (Some((_, id)), None) if is_id(id) => {
                    findings.pass(check, name, text);
                    return;
                }
                (Some((_, id)), None) => {
                    format!("id={id} is not 1 to {MAX_ID} letters and digits: {text}")
                }
            }
        }
    };
    findings.fail(check, name, seen, advice);
}

fn is_id(text: &str) -> bool {
    (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|octet| octet.is_ascii_alphanumeric())
}

/// Senders look for a policy only where there is a record. A policy of mode none may stay when the record was removed (RFC 8461
/// §8.3).
fn check_without_record(
    domain: &DomainName,
    record_name: &DomainName,
    policy_host: &DomainName,
    known: &KnownAnswers,
    findings: &mut FindingList,
) -> Option<()> {
    let check = CheckName::MtaStsRecord;
    let policies = fetched::policies_without_record(policy_host, known)?;
    let in_force = policies.iter().find(|policy| policy.mode != PolicyMode::None);
    if let Some(policy) = in_force {
        let seen = format!(
            "no record, while {policy_host} has a policy of mode {}: senders do not look for it",
            policy.mode
        );
        let advice = format!(
            "Publish TXT of {record_name}: \"v=STSv1; id=20261203T1\", or remove the policy if MTA-STS is not to be used."
        );
        findings.fail(check, record_name, seen, advice);
    } else {
        let seen = "no MTA-STS record: senders do not verify the certificates of the exchanges";
        findings.pass(check, domain, seen);
    }
    Some(())
}

fn check_policy(fetched: &FetchedPolicy<'_>, findings: &mut FindingList) -> Option<StsPolicy> {
    let check = CheckName::MtaStsPolicy;
    let about = &fetched.about;
    let policy = match StsPolicy::parse(fetched.body) {
        Ok(policy) => policy,
        Err(faults) => {
            let advice = "Correct the file: lines of \"version: STSv1\", \"mode: enforce\", \"max_age: 604800\", and \"mx: NAME\" for \
                          each exchange. Senders ignore the policy as a whole.";
            findings.fail(check, about, format!("invalid policy: {}", faults.join("; ")), advice);
            return None;
        }
    };
    if !policy.repeated.is_empty() {
        let seen = format!("repeated: {}; senders use the first", policy.repeated.join(", "));
        findings.warn(check, about, seen, "Remove the lines that do not count.");
    }
    findings.pass(
        check,
        about,
        match policy.mode {
            PolicyMode::None => "mode none: senders do not verify the exchanges",
            PolicyMode::Testing => "mode testing: senders report faults, and deliver nevertheless",
            PolicyMode::Enforce => "mode enforce: senders deliver to verified exchanges only",
        },
    );
    let check = CheckName::MtaStsMaxAge;
    let seen = format!("max_age {} s", policy.max_age);
    if policy.max_age < SHORT && policy.mode != PolicyMode::None {
        let advice = "Use a week or more (max_age: 604800): after that time without the policy senders have forgotten it, and an \
                      attacker need only wait.";
        findings.warn(check, about, seen, advice);
    } else {
        findings.pass(check, about, seen);
    }
    Some(policy)
}
