//! Whether smtpd(8) asks gatepost's policy service, such that mail flows without an answer too.

use std::time::Duration;

use super::policy_commands::{MAIN, RECIPIENT, policy_commands, set_list};
use super::restrictions::{PolicyCheck, RestrictionList, question, time, value_of};
use crate::readiness::finding::{CheckName, CheckStatus, FindingList};
use crate::readiness::policy_server::DEFAULT_TIMEOUT;
use crate::readiness::postconf::{Postfix, RESTRICTIONS};
use crate::readiness::request::CheckRequest;

/// A client that waits longer for the reply to each of its recipients may give up.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(10);
/// By these a line for gatepost is recognised without its configuration: those of the documentation.
const NAME: &str = "gatepost";
const PORT: &str = ":10040";

pub(super) fn check(postfix: &Postfix, request: &CheckRequest, findings: &mut FindingList) {
    let name = CheckName::PostfixPolicy;
    let server = request.policy_server.as_ref();
    let is_ours = |check: &PolicyCheck<'_>| match server {
        Some(server) => postfix.is_same(check.endpoint, &server.endpoint(postfix)),
        None => check.endpoint.contains(NAME) || check.endpoint.ends_with(PORT),
    };
    let before = findings.len();
    let mut asks = false;
    for parameter in RESTRICTIONS {
        for (place, value) in postfix.everywhere(parameter) {
            let list = RestrictionList::new(value);
            for check in list.policy_checks().into_iter().filter(is_ours) {
                asks = true;
                let faults = faults(postfix, place, &list, &check);
                let Some(status) = faults.iter().map(|(status, _)| *status).max() else {
                    continue;
                };
                let faults: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
                let seen = format!("{parameter} asks {}: {}", check.endpoint, faults.join("; "));
                let corrected = corrected(postfix, place, parameter, &check);
                let commands: Vec<String> = corrected.into_iter().collect();
                let advice = match commands.is_empty() {
                    true => format!("Write behind reject_unauth_destination: {}", repaired(&check)),
                    false => "Correct it.".to_owned(),
                };
                let finding = match status {
                    CheckStatus::Fail => findings.fail(name, place, seen, advice),
                    _ => findings.warn(name, place, seen, advice),
                };
                finding.commands = commands;
            }
        }
    }
    if findings.len() > before {
        return;
    }
    let Some(server) = server else {
        let seen = match asks {
            true => "gatepost's policy service is asked",
            false => {
                "gatepost's policy service is not asked (`gatepost postfix install --dry-run --config FILE` prints \
                 what that takes)"
            }
        };
        findings.pass(name, MAIN, seen);
        return;
    };
    match policy_commands(postfix, server) {
        Ok(commands) if commands.is_empty() => {
            findings.pass(name, MAIN, format!("{} is asked", server.endpoint(postfix)));
        }
        Ok(commands) => {
            let seen = format!("{RECIPIENT} does not ask {}", server.endpoint(postfix));
            let advice = "Add the question, or remove [postfix] from gatepost's configuration.";
            findings.warn(name, MAIN, seen, advice).commands = commands;
        }
        Err(error) => {
            let seen = format!("{} is not asked", server.endpoint(postfix));
            findings.warn(name, MAIN, seen, format!("{error}."));
        }
    }
}

/// What is wrong with a question that Postfix has.
fn faults(
    postfix: &Postfix,
    place: &str,
    list: &RestrictionList<'_>,
    check: &PolicyCheck<'_>,
) -> Vec<(CheckStatus, String)> {
    let mut faults = Vec::new();
    let default = |name: &str| postfix.of(place, name).0;
    let action = check.attribute("default_action");
    let action = action.unwrap_or_else(|| default("smtpd_policy_service_default_action"));
    if !is_dunno(action) {
        let code = action.split_whitespace().next().unwrap_or("451");
        let fault = format!(
            "without default_action=DUNNO every recipient gets {code} while gatepost does not answer"
        );
        faults.push((CheckStatus::Fail, fault));
    }
    let timeout = check.attribute("timeout");
    let timeout = timeout.unwrap_or_else(|| default("smtpd_policy_service_timeout"));
    if time(timeout).is_none_or(|timeout| timeout > LONGEST_TIMEOUT) {
        let fault = format!("each recipient waits {timeout} while gatepost hangs");
        faults.push((CheckStatus::Warn, fault));
    }
    if list.end().is_some_and(|(at, _)| at < check.range.start) {
        let fault = "it is behind an item that ends the list, and never reached";
        faults.push((CheckStatus::Warn, fault.to_owned()));
    }
    let path = check.endpoint.strip_prefix("unix:").filter(|path| path.starts_with('/'));
    let chrooted = postfix.chrooted_listeners();
    if let (Some(path), false) = (path, chrooted.is_empty()) {
        let fault =
            format!("{} runs in a chroot, where {path} does not exist", chrooted.join(", "));
        faults.push((CheckStatus::Fail, fault));
    }
    faults
}

fn is_dunno(action: &str) -> bool {
    action.eq_ignore_ascii_case("DUNNO")
}

/// The command that corrects a question, where one can.
fn corrected(
    postfix: &Postfix,
    place: &str,
    parameter: &str,
    check: &PolicyCheck<'_>,
) -> Option<String> {
    let unexpanded = postfix.unexpanded(place, parameter);
    let list = RestrictionList::new(unexpanded);
    let found = list.policy_checks().into_iter().find(|found| found.endpoint == check.endpoint)?;
    let is_reached = list.end().is_none_or(|(at, _)| at > found.range.start);
    let is_outside = check.endpoint.starts_with("unix:/");
    if !is_reached || is_outside && !postfix.chrooted_listeners().is_empty() {
        return None;
    }
    let mut list = unexpanded.to_owned();
    list.replace_range(found.range, &repaired(check));
    set_list(postfix, place, parameter, &list)
}

/// The question with an action and a time limit; other attributes stay.
fn repaired(check: &PolicyCheck<'_>) -> String {
    let replaced = |attribute: &&str| {
        ["timeout", "default_action"].iter().all(|name| value_of(attribute, name).is_none())
    };
    let timeout = check.attribute("timeout").and_then(time);
    let timeout = timeout.filter(|timeout| *timeout <= LONGEST_TIMEOUT);
    let others: Vec<&str> = check.attributes.iter().copied().filter(|one| replaced(one)).collect();
    question(check.endpoint, timeout.unwrap_or(DEFAULT_TIMEOUT), &others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_effect_or_that_can_stop_mail_is_a_fault() {
        let faults_of = |list: &str, chroot: &str| {
            let main = "smtpd_policy_service_timeout = 100s\n\
                        smtpd_policy_service_default_action = 451 4.3.5 Server configuration problem\n";
            let master = format!("smtp inet n - {chroot} - - smtpd\n");
            let postfix = Postfix::new(None, main, &master, "");
            let list = RestrictionList::new(list);
            let checks = list.policy_checks();
            let [check] = &checks[..] else { panic!("{list:?}") };
            faults(&postfix, MAIN, &list, check)
        };
        let good = "{ unix:private/gatepost, timeout=2s, default_action=DUNNO }";
        assert!(faults_of(&format!("check_policy_service {good}"), "y").is_empty());
        for (list, expected) in [
            (format!("permit, check_policy_service {good}"), "never reached"),
            (good.replace("timeout=2s, ", "").replace('{', "check_policy_service {"), "waits 100s"),
            (good.replace("private", "/run").replace('{', "check_policy_service {"), "chroot"),
            ("check_policy_service unix:private/gatepost".to_owned(), "every recipient gets 451"),
        ] {
            let faults = faults_of(&list, "y");
            assert!(faults.iter().any(|(_, fault)| fault.contains(expected)), "{list}: {faults:?}");
        }
    }
}
