//! Whether a domain's mail is ready for IPv6: findings, as pure functions of what others answered.
//!
//! Layer 2. [`judge`] is given all that is known so far, and is either a [`CheckReport`] or says what it must ask; a driver asks,
//! adds the answers to [`KnownAnswers`] and judges again. So nothing here awaits, and a table of answers tests all of it.
//!
//! NXDOMAIN and NODATA are answers. SERVFAIL and a time-out leave a finding [`CheckStatus::Unknown`], which is neither a pass nor
//! a fail. RFC 5321 §5.1 and RFC 7505 for MX, RFC 8601 §2.7.3 for reverse names, RFC 7208 for SPF, RFC 6376 for DKIM,
//! RFC 9989 for DMARC.

mod dkim;
mod dmarc;
mod finding;
mod known;
mod mtu;
mod mx;
mod postfix;
mod sender;
mod smtp;
mod spf;
mod survey;
mod tags;

use std::net::IpAddr;

use ipnet::IpNet;

use self::finding::Findings;
pub use self::finding::{CheckName, CheckReport, CheckStatus, Finding, Portion, ServerMeasurement};
pub use self::known::{CheckQuestion, CnameAnswer, KnownAnswers, TxtAnswer};
pub use self::postfix::{PARAMETERS, Postfix};
pub use self::survey::{ConnectResult, LargeProbe, NetworkPath, ReplyResult, Survey, SurveyReply};
use crate::label::labels;
use crate::policy::facts::DomainName;

/// What is to be judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckRequest {
    pub domain: DomainName,
    /// Addresses that mail of the domain is sent from, and who named them.
    pub senders: Vec<IpAddr>,
    pub senders_from: Origin,
    /// The name that its senders give in EHLO, and who named it; without one that is not judged.
    pub helo: Option<(DomainName, Origin)>,
    /// DKIM selectors of its signers; without any no key is judged.
    pub selectors: Vec<String>,
    /// Of this host, those that are up.
    pub interfaces: Vec<HostInterface>,
    /// Of this host, if that is to be judged.
    pub postfix: Option<Postfix>,
}

labels! {
    /// Who named something.
    pub enum Origin {
        CommandLine = "command_line",
        Postfix = "postfix",
        Interfaces = "interfaces",
    }
}

/// A network interface of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostInterface {
    pub name: String,
    pub addresses: Vec<IpNet>,
    /// Octets of its largest packet, if the system says so.
    pub mtu: Option<u32>,
}

/// Where the judging stands.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckEvaluation {
    Done(CheckReport),
    /// Answer these and judge again; never empty. Those of an earlier round that are not answered yet are among them.
    Needs(Vec<CheckQuestion>),
}

/// Judges everything that was asked for. Ends: a judgement needs no more questions than the limits of the RFCs allow.
pub fn judge(asked: &CheckRequest, known: &KnownAnswers) -> CheckEvaluation {
    let mut findings = Findings::default();
    let hosts = mx::judge(asked, known, &mut findings);
    smtp::judge(&hosts, known, &mut findings);
    mtu::judge(&hosts, asked, known, &mut findings);
    sender::judge(asked, known, &mut findings);
    spf::judge(asked, known, &mut findings);
    dkim::judge(asked, known, &mut findings);
    dmarc::judge(asked, known, &mut findings);
    postfix::judge(asked, known, &mut findings);
    let missing = known.take_missing();
    if missing.is_empty() {
        CheckEvaluation::Done(findings.into_report(asked, smtp::servers(&hosts, known)))
    } else {
        CheckEvaluation::Needs(missing)
    }
}

#[cfg(test)]
mod tests;
