//! Whether an exchange accepts mail from the null sender to the domain's postmaster, over each family.
//!
//! RFC 5321 §4.5.1: each domain has a postmaster, and §4.5.5: bounces come from the null sender. No message is sent. A
//! rejection of the host that asks says nothing about the domain.

use std::net::IpAddr;

use super::finding::{CheckName, FindingList};
use super::mx::MxHost;
use super::rejection::{RejectedAt, RejectionSubject, subject};
use super::survey::{Survey, SurveyReply, SurveyResult};
use crate::addr::Family;
use crate::humanize::{duration, family as family_name};

/// What became of MAIL and RCPT.
enum Acceptance<'a> {
    NotAsked,
    Accepted(&'a SurveyReply),
    /// At this command.
    Rejected(RejectedAt, &'a SurveyReply, RejectionSubject),
    /// No reply to this command.
    NoReply(RejectedAt, &'a SurveyResult),
}

impl<'a> Acceptance<'a> {
    fn of(survey: &'a Survey) -> Self {
        let Some(asked) = &survey.postmaster else { return Self::NotAsked };
        let steps = [(RejectedAt::Mail, &asked.mail), (RejectedAt::Recipient, &asked.recipient)];
        for (at, result) in steps {
            match result {
                SurveyResult::Received(reply) if reply.is_positive() => {}
                SurveyResult::Received(reply) => {
                    return Self::Rejected(at, reply, subject(reply, at, survey.from));
                }
                SurveyResult::NotRequested => return Self::NotAsked,
                no_reply => return Self::NoReply(at, no_reply),
            }
        }
        asked.recipient.reply().map_or(Self::NotAsked, Self::Accepted)
    }

    /// For every host that asks.
    const fn is_refused(&self) -> bool {
        use RejectionSubject::{Domain, Recipient, Sender, Stranger};
        matches!(self, Self::Rejected(_, _, Domain | Recipient | Sender | Stranger))
    }
}

pub(super) fn accepts(survey: &Survey) -> bool {
    matches!(Acceptance::of(survey), Acceptance::Accepted(_))
}

/// `other_accepts`: the other family, if it accepts.
pub(super) fn check(
    about: &str,
    survey: &Survey,
    other_accepts: Option<Family>,
    findings: &mut FindingList,
) {
    let acceptance = Acceptance::of(survey);
    let is_sender_accepted = survey
        .postmaster
        .as_ref()
        .and_then(|asked| asked.mail.reply())
        .is_some_and(SurveyReply::is_positive);
    if is_sender_accepted
        && !matches!(acceptance, Acceptance::Rejected(_, _, RejectionSubject::Sender))
    {
        findings.pass(CheckName::SmtpNullSender, about, "accepts the null sender");
    }
    match acceptance {
        Acceptance::NotAsked => {}
        Acceptance::Accepted(reply) => {
            let seen = format!("accepts mail to postmaster: {}", quoted(reply));
            findings.pass(CheckName::SmtpPostmaster, about, seen);
        }
        Acceptance::Rejected(at, reply, subject) => {
            rejected(about, at, reply, subject, survey.from, other_accepts, findings);
        }
        Acceptance::NoReply(at, result) => no_reply(about, at, result, findings),
    }
}

fn rejected(
    about: &str,
    at: RejectedAt,
    reply: &SurveyReply,
    subject: RejectionSubject,
    from: Option<IpAddr>,
    other_accepts: Option<Family>,
    findings: &mut FindingList,
) {
    let check = check_of(at);
    let said = quoted(reply);
    match subject {
        RejectionSubject::Now => {
            let advice = "Run this again in some minutes: the server defers hosts that it does not know (greylisting), or has a \
                          fault that passes.";
            findings.unknown(check, about, format!("defers {}: {said}", command(at)), advice);
        }
        RejectionSubject::Caller => {
            let other = other_accepts.map(|family| {
                format!(", while it accepts mail of this host over {}", family_name(family))
            });
            let seen = caller_rejected(reply, from) + &other.unwrap_or_default();
            findings.unknown(check, about, seen, caller_advice(from));
        }
        RejectionSubject::Sender => {
            let advice = "Accept MAIL FROM:<> from every host: bounces and reports have this sender (RFC 5321 §4.5.5), and servers that \
                          verify addresses use it.";
            let seen = format!("rejects the null sender: {said}");
            findings.fail(CheckName::SmtpNullSender, about, seen, advice);
        }
        RejectionSubject::Stranger => {
            let advice = "Let port 25 of the exchange accept mail to the domain without authentication; offer STARTTLS there if TLS is \
                          demanded.";
            let seen = format!("accepts no mail of strangers: {said}");
            findings.fail(CheckName::SmtpPostmaster, about, seen, advice);
        }
        RejectionSubject::Domain => {
            let advice = "Configure the domain on this server (Postfix: mydestination, virtual_mailbox_domains or relay_domains), or \
                          remove the server from the MX records.";
            let seen = format!("does not accept mail for the domain: {said}");
            findings.fail(CheckName::SmtpPostmaster, about, seen, advice);
        }
        RejectionSubject::Recipient => {
            let advice = "Create the mailbox or alias postmaster, which each domain that receives mail must have (RFC 5321 §4.5.1): \
                          others report faults to it.";
            let seen = format!("rejects mail to postmaster: {said}");
            findings.fail(check, about, seen, advice);
        }
    }
}

fn no_reply(about: &str, at: RejectedAt, result: &SurveyResult, findings: &mut FindingList) {
    let check = check_of(at);
    let command = command(at);
    match result {
        SurveyResult::TimedOut(after) => {
            let advice = "Run this again with a longer --timeout: the server may verify something elsewhere, for which it has five \
                          minutes (RFC 5321 §4.5.3.2). Find out what it waits for.";
            let seen = format!("no reply to {command} in {}", duration(*after));
            findings.unknown(check, about, seen, advice);
        }
        SurveyResult::OutOfTime(_) => {
            let advice = "Run this again with a longer --timeout, or find out what is slow here.";
            findings.unknown(check, about, "not tested: out of time", advice);
        }
        SurveyResult::NotSmtp => {
            let advice = "Find out which service listens there: it does not speak SMTP.";
            findings.fail(check, about, format!("the reply to {command} is not SMTP"), advice);
        }
        SurveyResult::Closed | SurveyResult::NotRequested | SurveyResult::Received(_) => {
            let seen = format!("connection closed instead of a reply to {command}");
            let advice = "Find the reason in the server's log; it may limit or block this host.";
            findings.unknown(check, about, seen, advice);
        }
    }
}

/// Names the family of `host` that does not accept what the other one accepts.
pub(super) fn compare(host: &MxHost, v6: &[&Survey], v4: &[&Survey], findings: &mut FindingList) {
    let accepted = |of: &[&Survey]| of.iter().any(|survey| accepts(survey));
    let refused = |of: &[&Survey]| {
        let mut refusals = of.iter().map(|survey| Acceptance::of(survey));
        refusals.all(|acceptance| acceptance.is_refused())
    };
    let (with, without) = match () {
        () if accepted(v4) && refused(v6) => (Family::Ipv4, Family::Ipv6),
        () if accepted(v6) && refused(v4) => (Family::Ipv6, Family::Ipv4),
        () => return,
    };
    let (with, without) = (family_name(with), family_name(without));
    let seen = format!("accepts mail to postmaster over {with} but not over {without}");
    let advice = format!(
        "Compare the server's restrictions for {without} with those for {with}: mail of other hosts meets the same rejection."
    );
    findings.fail(CheckName::SmtpFamilies, &host.name, seen, advice);
}

const fn check_of(at: RejectedAt) -> CheckName {
    match at {
        RejectedAt::Recipient => CheckName::SmtpPostmaster,
        _ => CheckName::SmtpNullSender,
    }
}

const fn command(at: RejectedAt) -> &'static str {
    match at {
        RejectedAt::Recipient => "RCPT TO:<postmaster>",
        _ => "MAIL FROM:<>",
    }
}

fn quoted(reply: &SurveyReply) -> String {
    format!("{} {}", reply.code, reply.lines.join(" "))
}

/// Of a reply whose subject is the caller.
pub(super) fn caller_rejected(reply: &SurveyReply, from: Option<IpAddr>) -> String {
    let from = from.map(|ip| format!(", called from {ip}")).unwrap_or_default();
    format!("rejects this host{from}: {}", quoted(reply))
}

pub(super) fn caller_advice(from: Option<IpAddr>) -> String {
    let address = from.map_or_else(|| "this host's address".to_owned(), |ip| ip.to_string());
    format!(
        "Run this from a host that may send mail: the server rejects {address}, not the domain. If that address sends mail, find out \
         which list has it, or whether it lacks a PTR record."
    )
}
