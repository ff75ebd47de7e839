//! Whether a domain's mail is ready for IPv6: findings, as pure functions of lookup results.
//!
//! Layer 2. [`evaluate`] takes the answers available so far and returns the [`CheckReport`], or the questions that it needs
//! answered. A driver answers them in [`KnownAnswers`] and evaluates again. So nothing here awaits, and tables of answers
//! test all of it.
//!
//! NXDOMAIN and NODATA are answers. SERVFAIL and timeouts make a finding [`CheckStatus::Unknown`], which is neither pass nor
//! fail. RFC 5321 §5.1 and RFC 7505 for MX, RFC 4035 for signatures, RFC 7672 for DANE, RFC 8601 §2.7.3 for reverse names,
//! RFC 7208 for SPF, RFC 6376 for DKIM, RFC 9989 for DMARC, RFC 8461 for MTA-STS, RFC 8460 for TLSRPT.

mod blocklist;
mod caa;
mod dane;
mod dkim;
mod dmarc;
mod dns64;
mod dns_signatures;
mod finding;
mod known;
mod mta_sts;
mod mtu;
mod mx;
mod name_server_reply;
mod name_servers;
mod outside_view;
mod own_network;
mod policy_fetch;
mod policy_server;
mod postconf;
mod postfix;
mod postmaster;
mod rejection;
mod request;
mod sender;
mod smtp;
mod spf;
mod survey;
#[cfg(test)]
mod tests;
mod tls;
mod tls_rpt;
mod tlsa;
mod validated;
mod versioned_text;

use self::finding::FindingList;
pub use self::finding::{
    CheckName, CheckReport, CheckStatus, Finding, FindingSubject, Portion, ServerMeasurement,
};
pub use self::known::{CheckQuestion, CnameAnswer, KnownAnswers};
use self::mx::MxHost;
pub use self::name_server_reply::NameServerReply;
pub use self::outside_view::{OutsideResult, OutsideView};
pub use self::policy_fetch::{HttpResponse, MAX_POLICY, PolicyFetch, PolicyResponse};
pub use self::policy_server::{PolicyServer, PolicyServerAddress, PolicyServerError};
pub use self::postconf::{PARAMETERS, Postfix, RESTRICTIONS};
pub use self::postfix::{InstalledParts, install_commands};
pub use self::request::{CheckRequest, Control, HostInterface, Origin, UnsuitableSender};
pub use self::survey::{
    CertificateTrust, ConnectResult, LargeProbe, NetworkPath, PostmasterSurvey, ServerTls, Survey,
    SurveyReply, SurveyResult, TlsAttempt, TlsSurvey,
};
pub use self::validated::{
    CaaRecord, ExtendedError, TlsaRecord, ValidatedAnswer, ValidatedOutcome, ValidatedRecord,
    ValidatedType, ValidationFailure,
};

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
    spf::check(request, true, known, &mut findings);
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

/// Whether the senders are those of the domain. The addresses of this host's interfaces are only if one is that of an exchange,
/// or the SPF record lists it: others may check a domain, too. `None` as long as it is not known.
fn judges_senders(request: &CheckRequest, hosts: &[MxHost], known: &KnownAnswers) -> Option<bool> {
    if request.senders_from != Origin::Interfaces {
        return Some(true);
    }
    let is_exchange = |ip| hosts.iter().any(|host| host.addresses.contains(ip));
    if request.senders.iter().any(is_exchange) {
        return Some(true);
    }
    spf::lists_a_sender(request, known)
}

/// Terminates after a bounded number of rounds: the limits of the RFCs bound the questions.
pub fn evaluate(request: &CheckRequest, known: &KnownAnswers) -> CheckEvaluation {
    let mut findings = FindingList::default();
    let hosts = mx::check(request, known, &mut findings);
    dns_signatures::check(&request.domain, &hosts, known, &mut findings);
    name_servers::check(&request.domain, known, &mut findings);
    caa::check(&hosts, known, &mut findings);
    smtp::check(&hosts, request, known, &mut findings);
    let uses_dane = dane::check(&request.domain, &hosts, known, &mut findings);
    mtu::check(&hosts, request, known, &mut findings);
    let judges_senders = judges_senders(request, &hosts, known);
    if judges_senders == Some(true) {
        sender::check(request, known, &mut findings);
        blocklist::check(request, known, &mut findings);
    }
    spf::check(request, judges_senders == Some(true), known, &mut findings);
    dkim::check(request, known, &mut findings);
    dmarc::check(request, known, &mut findings);
    if !hosts.is_empty() {
        let uses_mta_sts = mta_sts::check(request, &hosts, known, &mut findings);
        let is_needed = uses_dane || uses_mta_sts == Some(true);
        tls_rpt::check(request, is_needed, known, &mut findings);
    }
    postfix::check(request, known, &mut findings);
    let missing = known.take_missing();
    if missing.is_empty() {
        let mut report = findings.into_report(request, smtp::measurements(&hosts, known));
        report.is_parked =
            hosts.is_empty() && spf::sends_no_mail(&request.domain, known) == Some(true);
        if report.is_parked {
            report.not_checked.clear();
        } else if judges_senders == Some(false) {
            let how = "sending addresses: name them with --from ADDRESS; none of this host's is known to be an exchange's \
                       or in the SPF record";
            report.not_checked.insert(0, (Portion::Senders, how));
        }
        if !report.is_parked && dns_signatures::validates(&request.domain, known) == Some(false) {
            let how = "DNSSEC, DANE: the resolver does not validate; name one that does with --dns ADDRESS";
            report.not_checked.insert(0, (Portion::Dns, how));
        }
        CheckEvaluation::Done(report)
    } else {
        CheckEvaluation::Needs(missing)
    }
}
