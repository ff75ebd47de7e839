//! Whether smtpd(8) asks gatepost's policy service, such that mail flows without an answer too.

use std::time::Duration;

use super::policy_commands::{END_OF_DATA, MAIN, RECIPIENT, policy_commands, set_list};
use super::restrictions::{PolicyCheck, RestrictionList, question, time, value_of};
use crate::readiness::finding::{CheckName, CheckStatus, FindingList};
use crate::readiness::policy_server::{DEFAULT_TIMEOUT, PolicyServer};
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
    let Questions { asks, faulty } = questions(postfix, server);
    for FaultyQuestion { place, status, seen, advice, command } in &faulty {
        let (seen, advice) = (seen.clone(), advice.clone());
        let finding = match status {
            CheckStatus::Fail => findings.fail(name, place, seen, advice),
            _ => findings.warn(name, place, seen, advice),
        };
        finding.commands = command.iter().cloned().collect();
    }
    let Some(server) = server else {
        let seen = match asks {
            true => "gatepost's policy service is asked",
            false => {
                "gatepost's policy service is not asked (`gatepost postfix install --dry-run --config FILE` prints \
                 what that takes)"
            }
        };
        if faulty.is_empty() {
            findings.pass(name, MAIN, seen);
        }
        return;
    };
    let endpoint = server.endpoint(postfix);
    match policy_commands(postfix, server) {
        Ok(commands) if commands.is_empty() => {
            if faulty.is_empty() {
                findings.pass(name, MAIN, format!("{endpoint} is asked"));
            }
        }
        Ok(missing) => {
            let mut parameters: Vec<&str> =
                missing.iter().map(|(parameter, _)| *parameter).collect();
            parameters.dedup();
            let verb = if parameters.len() > 1 { "do" } else { "does" };
            let seen = format!("{} {verb} not ask {endpoint}", parameters.join(" and "));
            let advice = if parameters == [RECIPIENT] {
                "Add the question, or remove [postfix] from gatepost's configuration."
            } else {
                "Add the question, or rules that are decided at the end of a message have no effect."
            };
            findings.warn(name, MAIN, seen, advice).commands =
                missing.into_iter().map(|(_, command)| command).collect();
        }
        // Where a question is at fault, its own advice says the same.
        Err(error) if faulty.is_empty() => {
            findings.warn(name, MAIN, format!("{endpoint} is not asked"), format!("{error}."));
        }
        Err(_) => {}
    }
}

/// The questions that Postfix asks gatepost.
pub(super) struct Questions<'a> {
    asks: bool,
    pub(super) faulty: Vec<FaultyQuestion<'a>>,
}

/// A question without effect, or that can stop mail.
pub(super) struct FaultyQuestion<'a> {
    /// `main.cf`, or a service in master.cf.
    place: &'a str,
    status: CheckStatus,
    pub(super) seen: String,
    pub(super) advice: String,
    /// Corrects it, where one command can.
    pub(super) command: Option<String>,
}

/// Those to `server`; without it those that look like one to gatepost.
pub(super) fn questions<'a>(postfix: &'a Postfix, server: Option<&PolicyServer>) -> Questions<'a> {
    let is_ours = |check: &PolicyCheck<'_>| match server {
        Some(server) => postfix.is_same(check.endpoint, &server.endpoint(postfix)),
        None => check.endpoint.contains(NAME) || check.endpoint.ends_with(PORT),
    };
    let mut questions = Questions { asks: false, faulty: Vec::new() };
    for parameter in RESTRICTIONS {
        for (place, value) in postfix.everywhere(parameter) {
            let list = RestrictionList::new(value);
            for check in list.policy_checks().into_iter().filter(is_ours) {
                questions.asks = true;
                let faults = faults(postfix, (place, parameter), &list, &check);
                let Some(status) = faults.iter().map(|(status, _)| *status).max() else {
                    continue;
                };
                let faults: Vec<&str> = faults.iter().map(|(_, fault)| fault.as_str()).collect();
                let seen = format!("{parameter} asks {}: {}", check.endpoint, faults.join("; "));
                let command = corrected(postfix, place, parameter, &check);
                let advice = match (&command, parameter == END_OF_DATA) {
                    (Some(_), _) => "Correct it.".to_owned(),
                    (None, true) => format!("Write at its end: {}", repaired(&check)),
                    (None, false) => {
                        format!("Write behind reject_unauth_destination: {}", repaired(&check))
                    }
                };
                questions.faulty.push(FaultyQuestion { place, status, seen, advice, command });
            }
        }
    }
    questions
}

/// What is wrong with a question that Postfix has.
fn faults(
    postfix: &Postfix,
    (place, parameter): (&str, &str),
    list: &RestrictionList<'_>,
    check: &PolicyCheck<'_>,
) -> Vec<(CheckStatus, String)> {
    let mut faults = Vec::new();
    let what = match parameter {
        "smtpd_data_restrictions" | END_OF_DATA => "message",
        _ => "recipient",
    };
    let default = |name: &str| postfix.of(place, name).0;
    let action = check.attribute("default_action");
    let action = action.unwrap_or_else(|| default("smtpd_policy_service_default_action"));
    if !is_dunno(action) {
        let code = action.split_whitespace().next().unwrap_or("451");
        let fault = format!(
            "without default_action=DUNNO every {what} gets {code} while gatepost does not answer"
        );
        faults.push((CheckStatus::Fail, fault));
    }
    let timeout = check.attribute("timeout");
    let timeout = timeout.unwrap_or_else(|| default("smtpd_policy_service_timeout"));
    if time(timeout).is_none_or(|timeout| timeout > LONGEST_TIMEOUT) {
        let fault = format!("each {what} waits {timeout} while gatepost hangs");
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
            faults(&postfix, (MAIN, RECIPIENT), &list, check)
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
