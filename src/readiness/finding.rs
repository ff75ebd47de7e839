//! What was found, and what to do about it.

use serde::Serialize;

use std::net::IpAddr;

use super::CheckRequest;
use crate::addr::Family;
use crate::label::labels;

labels! {
    /// How good it is, the worst last.
    pub enum CheckStatus {
        Pass = "pass",
        Warn = "warn",
        Unknown = "unknown",
        Fail = "fail",
    }
}

labels! {
    /// A part of the way that mail goes.
    pub enum Portion {
        Mx = "mx",
        Smtp = "smtp",
        Mtu = "mtu",
        Senders = "senders",
        Spf = "spf",
        Dkim = "dkim",
        Dmarc = "dmarc",
        Postfix = "postfix",
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident $word:literal $portion:ident,)*) => {
        labels! {
            /// What a finding is about. The words are part of the JSON form and stay as they are.
            pub enum CheckName {
                $($(#[$doc])* $name = $word,)*
            }
        }

        impl CheckName {
            pub const fn portion(self) -> Portion {
                match self { $(Self::$name => Portion::$portion,)* }
            }
        }
    };
}

checks! {
    /// The domain has MX records, or takes no mail on purpose.
    MxRecords "mx_records" Mx,
    /// An exchange is a host name, and no alias.
    MxName "mx_name" Mx,
    /// An exchange has AAAA records.
    MxIpv6 "mx_ipv6" Mx,
    /// An exchange has A records.
    MxIpv4 "mx_ipv4" Mx,
    /// An address of an exchange is one that others can reach.
    MxAddress "mx_address" Mx,
    /// A connection to port 25.
    SmtpConnect "smtp_connect" Smtp,
    /// The greeting, and how fast it comes.
    SmtpGreeting "smtp_greeting" Smtp,
    /// The answer to EHLO.
    SmtpEhlo "smtp_ehlo" Smtp,
    SmtpStarttls "smtp_starttls" Smtp,
    /// The name in the greeting beside the exchange's.
    SmtpName "smtp_name" Smtp,
    /// Both families of an exchange answer alike.
    SmtpFamilies "smtp_families" Smtp,
    /// Large packets get through.
    PathMtu "path_mtu" Mtu,
    /// There is an address of either family to send from.
    SenderAddress "sender_address" Senders,
    SenderPtr "sender_ptr" Senders,
    SenderFcrdns "sender_fcrdns" Senders,
    /// The name given in EHLO has the sending address, and is its reverse name.
    SenderHelo "sender_helo" Senders,
    SpfRecord "spf_record" Spf,
    SpfSyntax "spf_syntax" Spf,
    /// RFC 7208 §4.6.4: at most ten terms that ask the DNS.
    SpfLookups "spf_lookups" Spf,
    /// RFC 7208 §4.6.4: at most two questions without an answer.
    SpfVoidLookups "spf_void_lookups" Spf,
    /// How the record ends.
    SpfAll "spf_all" Spf,
    SpfPtr "spf_ptr" Spf,
    /// A sending address passes.
    SpfSender "spf_sender" Spf,
    SenderId "sender_id" Spf,
    DkimKey "dkim_key" Dkim,
    DmarcRecord "dmarc_record" Dmarc,
    DmarcPolicy "dmarc_policy" Dmarc,
    DmarcReports "dmarc_reports" Dmarc,
    PostfixProtocols "postfix_protocols" Postfix,
    PostfixInterfaces "postfix_interfaces" Postfix,
    PostfixPreference "postfix_preference" Postfix,
    PostfixBind "postfix_bind" Postfix,
    PostfixMynetworks "postfix_mynetworks" Postfix,
    PostfixHelo "postfix_helo" Postfix,
    /// An entrance for gatepost.
    PostfixProxy "postfix_proxy" Postfix,
    /// Who may say who the client is.
    PostfixXclient "postfix_xclient" Postfix,
}

/// One thing that was looked at. The serde form is part of the public JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub portion: Portion,
    pub check: CheckName,
    pub outcome: CheckStatus,
    /// The name, address or setting that it is about.
    pub about: String,
    /// May hold words of others, as they came.
    pub seen: String,
    /// One or more imperative sentences; null where nothing is to be done.
    pub advice: Option<String>,
    /// Lines for a shell that do it, in this order.
    pub commands: Vec<String>,
}

/// One address of an exchange, in numbers. The serde form is part of the public JSON form; null is what it did not come to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerMeasurement {
    pub exchange: String,
    pub address: IpAddr,
    pub family: Family,
    /// Seconds from the SYN to the connection, from there to the greeting, from EHLO to its answer.
    pub connect_s: Option<f64>,
    pub greeting_s: Option<f64>,
    pub ehlo_s: Option<f64>,
    pub starttls: Option<bool>,
    /// Octets of the largest packet that gets there, as the kernel has it.
    pub path_mtu: Option<u32>,
    /// Octets of a full segment.
    pub mss: Option<u32>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// In the order of the way.
    pub findings: Vec<Finding>,
    /// Each address of each exchange that was called, in the order of the MX records.
    pub servers: Vec<ServerMeasurement>,
    /// What nobody asked for, and how to ask for it.
    pub left_out: Vec<(Portion, &'static str)>,
    /// Lines for a shell after those of the findings; none where they have none.
    pub activate: Vec<String>,
}

impl CheckReport {
    pub fn outcome(&self) -> CheckStatus {
        self.findings.iter().map(|one| one.outcome).max().unwrap_or(CheckStatus::Unknown)
    }

    pub fn count(&self, outcome: CheckStatus) -> usize {
        self.findings.iter().filter(|one| one.outcome == outcome).count()
    }

    /// The first of the worst.
    pub fn worst(&self) -> Option<&Finding> {
        let worst = self.outcome();
        self.findings.iter().find(|one| one.outcome == worst)
    }
}

/// Findings as they are made.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    fn push(
        &mut self,
        check: CheckName,
        outcome: CheckStatus,
        about: String,
        seen: String,
    ) -> &mut Finding {
        let portion = check.portion();
        let finding =
            Finding { portion, check, outcome, about, seen, advice: None, commands: Vec::new() };
        let at = self.0.len();
        self.0.push(finding);
        &mut self.0[at]
    }

    fn advise(
        &mut self,
        check: CheckName,
        outcome: CheckStatus,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> &mut Finding {
        let finding = self.push(check, outcome, about.to_string(), seen.into());
        finding.advice = Some(advice.into());
        finding
    }

    pub(super) fn pass(&mut self, check: CheckName, about: impl ToString, seen: impl Into<String>) {
        self.push(check, CheckStatus::Pass, about.to_string(), seen.into());
    }

    pub(super) fn warn(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> &mut Finding {
        self.advise(check, CheckStatus::Warn, about, seen, advice)
    }

    pub(super) fn fail(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> &mut Finding {
        self.advise(check, CheckStatus::Fail, about, seen, advice)
    }

    pub(super) fn unknown(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.advise(check, CheckStatus::Unknown, about, seen, advice);
    }

    /// Of a question to the DNS that got no answer.
    pub(super) fn unanswered(
        &mut self,
        check: CheckName,
        about: impl ToString,
        what: &str,
        reason: crate::policy::facts::Reason,
    ) {
        let seen = format!("{what} cannot be learnt: {}", super::known::in_words(reason));
        self.unknown(check, about, seen, ASK_AGAIN);
    }

    pub(super) fn into_report(
        self,
        asked: &CheckRequest,
        servers: Vec<ServerMeasurement>,
    ) -> CheckReport {
        let mut findings = self.0;
        // The portions of one host are made together; a reader wants them by portion.
        findings.sort_by_key(|one| one.portion);
        let mut left_out = Vec::new();
        if asked.helo.is_none() {
            left_out.push((Portion::Senders, "the name in EHLO: say it with --helo NAME"));
        }
        if asked.selectors.is_empty() {
            left_out.push((Portion::Dkim, "the keys: name the signers' with --selector NAME"));
        }
        if asked.postfix.is_none() {
            left_out.push((Portion::Postfix, "this host's Postfix: add --postfix"));
        }
        let changed = |one: &&Finding| !one.commands.is_empty();
        let starts = |one: &Finding| {
            matches!(one.check, CheckName::PostfixProtocols | CheckName::PostfixInterfaces)
        };
        let restart = findings.iter().filter(changed).any(starts);
        let postfix = asked.postfix.as_ref().filter(|_| findings.iter().any(|one| changed(&one)));
        let activate = postfix.map(|postfix| postfix.activate(restart)).unwrap_or_default();
        CheckReport { findings, servers, left_out, activate }
    }
}

const ASK_AGAIN: &str =
    "Check the domain's name servers and the resolver that was asked, then run this again.";
