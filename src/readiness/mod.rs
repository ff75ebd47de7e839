//! Whether a domain's mail is ready for IPv6: findings, as pure functions of lookup results.
//!
//! Layer 2. [`evaluate`] takes the answers available so far and returns the [`CheckReport`], or the questions that it needs
//! answered. A driver answers them in [`KnownAnswers`] and evaluates again. So nothing here awaits, and tables of answers
//! test all of it.
//!
//! NXDOMAIN and NODATA are answers. SERVFAIL and timeouts make a finding [`CheckStatus::Unknown`], which is neither pass nor
//! fail. RFC 5321 §5.1 and RFC 7505 for MX, RFC 8601 §2.7.3 for reverse names, RFC 7208 for SPF, RFC 6376 for DKIM,
//! RFC 9989 for DMARC.

mod dkim;
mod dmarc;
mod finding;
mod known;
mod mtu;
mod mx;
mod policy_server;
mod postconf;
mod postfix;
mod request;
mod sender;
mod smtp;
mod spf;
mod survey;
#[cfg(test)]
mod tests;

use self::finding::FindingList;
pub use self::finding::{CheckName, CheckReport, CheckStatus, Finding, Portion, ServerMeasurement};
pub use self::known::{CheckQuestion, CnameAnswer, KnownAnswers};
pub use self::policy_server::{PolicyServer, PolicyServerAddress, PolicyServerError};
pub use self::postconf::{PARAMETERS, Postfix, RESTRICTIONS};
pub use self::postfix::{InstalledParts, install_commands};
pub use self::request::{CheckRequest, HostInterface, Origin};
pub use self::survey::{ConnectResult, LargeProbe, NetworkPath, Survey, SurveyReply, SurveyResult};

/// The result of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckEvaluation {
    Done(CheckReport),
    /// Answer these and evaluate again. Never empty; includes unanswered questions of earlier rounds.
    Needs(Vec<CheckQuestion>),
}

/// As [`evaluate`], of the sending host only: why receivers may refuse our mail. Findings that concern other hosts, or that no
/// receiver refuses mail for, are left out.
pub fn evaluate_sending(request: &CheckRequest, known: &KnownAnswers) -> CheckEvaluation {
    let mut findings = FindingList::default();
    sender::check(request, known, &mut findings);
    spf::check(request, known, &mut findings);
    dkim::check(request, known, &mut findings);
    dmarc::check(request, known, &mut findings);
    postfix::check_sending(request, known, &mut findings);
    let missing = known.take_missing();
    if missing.is_empty() {
        findings.retain(CheckName::is_reason_to_refuse);
        CheckEvaluation::Done(findings.into_report(request, Vec::new()))
    } else {
        CheckEvaluation::Needs(missing)
    }
}

/// Terminates after a bounded number of rounds: the limits of the RFCs bound the questions.
pub fn evaluate(request: &CheckRequest, known: &KnownAnswers) -> CheckEvaluation {
    let mut findings = FindingList::default();
    let hosts = mx::check(request, known, &mut findings);
    smtp::check(&hosts, known, &mut findings);
    mtu::check(&hosts, request, known, &mut findings);
    sender::check(request, known, &mut findings);
    spf::check(request, known, &mut findings);
    dkim::check(request, known, &mut findings);
    dmarc::check(request, known, &mut findings);
    postfix::check(request, known, &mut findings);
    let missing = known.take_missing();
    if missing.is_empty() {
        CheckEvaluation::Done(findings.into_report(request, smtp::measurements(&hosts, known)))
    } else {
        CheckEvaluation::Needs(missing)
    }
}
