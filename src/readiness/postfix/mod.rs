//! The Postfix of this host: what keeps it from using IPv6, and what gatepost needs of it.
//!
//! Changes are proposed as shell commands; nothing is changed here.

mod bare_newline;
mod install;
mod lists;
mod outbound;
mod policy_commands;
mod policy_service;
mod proxy;
mod receiving;
mod restrictions;
mod sending;
mod tls;

pub use self::install::{InstalledParts, install_commands};
use super::finding::FindingList;
use super::known::KnownAnswers;
use super::request::CheckRequest;

pub(super) fn check(request: &CheckRequest, known: &KnownAnswers, findings: &mut FindingList) {
    let Some(postfix) = &request.postfix else { return };
    receiving::check(postfix, request, findings);
    sending::check(postfix, request, known, findings);
    tls::check(postfix, findings);
    bare_newline::check(postfix, findings);
    lists::check(postfix, request, findings);
    proxy::check(postfix, findings);
    outbound::check(postfix, findings);
    policy_service::check(postfix, request, findings);
}

pub(super) fn check_sending(
    request: &CheckRequest,
    known: &KnownAnswers,
    findings: &mut FindingList,
) {
    let Some(postfix) = &request.postfix else { return };
    sending::check(postfix, request, known, findings);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::{CheckStatus, Origin, Postfix};

    /// Checks a Postfix with one server and one client. `seen` is a part of its only problem, or empty if there is none, and
    /// `command` the command that corrects it, or empty.
    #[track_caller]
    pub(super) fn problems(
        main: &str,
        overrides: &str,
        check: fn(&Postfix, &mut FindingList),
        seen: &str,
        command: &str,
    ) {
        let master = "smtp inet n - n - - smtpd\nsmtp unix - - n - - smtp\n";
        let mut findings = FindingList::default();
        check(&Postfix::new(None, main, master, overrides), &mut findings);
        let request = CheckRequest {
            senders: Vec::new(),
            senders_from: Origin::Interfaces,
            ..CheckRequest::new(crate::policy::facts::DomainName::parse("a.example").unwrap())
        };
        let mut found = findings.into_report(&request, Vec::new()).findings;
        assert_eq!(found.len(), 1, "{main}: {found:?}");
        let found = found.remove(0);
        let expected = if seen.is_empty() { CheckStatus::Pass } else { CheckStatus::Warn };
        assert_eq!(found.outcome, expected, "{main}: {found:?}");
        assert!(found.seen.contains(seen), "{main}: {found:?}");
        assert_eq!(found.commands.concat(), command, "{main}: {found:?}");
    }
}
