//! Findings of a check, with advice.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::Serialize;

use super::known::failure_text;
use super::request::CheckRequest;
use crate::addr::Family;
use crate::label::labels;
use crate::policy::facts::Reason;
use crate::time::Timestamp;

labels! {
    /// In order of severity.
    pub enum CheckStatus {
        Pass = "pass",
        Warn = "warn",
        Unknown = "unknown",
        Fail = "fail",
    }
}

labels! {
    /// A group of checks, in the order of the report.
    pub enum Portion {
        Mx = "mx",
        Dns = "dns",
        Smtp = "smtp",
        Dane = "dane",
        Mtu = "mtu",
        Senders = "senders",
        Spf = "spf",
        Dkim = "dkim",
        Dmarc = "dmarc",
        MtaSts = "mta_sts",
        TlsRpt = "tls_rpt",
        Postfix = "postfix",
    }
}

macro_rules! checks {
    ($($(#[$doc:meta])* $name:ident $word:literal $portion:ident,)*) => {
        labels! {
            /// The words are part of the JSON form and stable.
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
    /// The domain has MX records, or a null MX.
    MxRecords "mx_records" Mx,
    /// An exchange is a host name and not an alias.
    MxName "mx_name" Mx,
    /// An exchange has AAAA records.
    MxIpv6 "mx_ipv6" Mx,
    /// An exchange has A records.
    MxIpv4 "mx_ipv4" Mx,
    /// An address of an exchange is reachable from the Internet.
    MxAddress "mx_address" Mx,
    /// Signatures are verified from the root on.
    DnsSignatures "dns_signatures" Dns,
    /// The domain's name servers answer over IPv6.
    NameServers "name_servers" Dns,
    /// The authorities that may issue certificates of an exchange.
    Caa "caa" Dns,
    /// A connection to port 25.
    SmtpConnect "smtp_connect" Smtp,
    /// A connection from outside, as the vantage sees it.
    SmtpReach "smtp_reach" Smtp,
    /// The greeting, and how fast it comes.
    SmtpGreeting "smtp_greeting" Smtp,
    /// The reply to EHLO.
    SmtpEhlo "smtp_ehlo" Smtp,
    /// STARTTLS is offered.
    SmtpStarttls "smtp_starttls" Smtp,
    /// TLS comes about, and the server goes on inside it.
    SmtpTls "smtp_tls" Smtp,
    /// The certificate's authority, name and validity.
    SmtpCertificate "smtp_certificate" Smtp,
    /// The name in the greeting is that of the exchange.
    SmtpName "smtp_name" Smtp,
    /// The null sender, which bounces have, is accepted.
    SmtpNullSender "smtp_null_sender" Smtp,
    /// Mail to the domain's postmaster is accepted.
    SmtpPostmaster "smtp_postmaster" Smtp,
    /// Both families of an exchange behave alike.
    SmtpFamilies "smtp_families" Smtp,
    /// An exchange's TLSA records, if it has some.
    DaneTlsa "dane_tlsa" Dane,
    /// The certificate that a server presents matches them.
    DaneCertificate "dane_certificate" Dane,
    /// Large packets arrive.
    PathMtu "path_mtu" Mtu,
    /// There is a sending address of each family.
    SenderAddress "sender_address" Senders,
    SenderPtr "sender_ptr" Senders,
    SenderFcrdns "sender_fcrdns" Senders,
    /// The EHLO name has the sending address, and is its reverse name.
    SenderHelo "sender_helo" Senders,
    /// A blocklist answers as one.
    Dnsbl "dnsbl" Senders,
    /// A sending address is on no blocklist.
    SenderDnsbl "sender_dnsbl" Senders,
    SpfRecord "spf_record" Spf,
    SpfSyntax "spf_syntax" Spf,
    /// RFC 7208 §4.6.4: at most ten terms with DNS lookups.
    SpfLookups "spf_lookups" Spf,
    /// RFC 7208 §4.6.4: at most two void lookups.
    SpfVoidLookups "spf_void_lookups" Spf,
    /// The result for hosts that the record does not list.
    SpfAll "spf_all" Spf,
    SpfPtr "spf_ptr" Spf,
    /// A sending address passes.
    SpfSender "spf_sender" Spf,
    SenderId "sender_id" Spf,
    DkimKey "dkim_key" Dkim,
    DmarcRecord "dmarc_record" Dmarc,
    DmarcPolicy "dmarc_policy" Dmarc,
    DmarcReports "dmarc_reports" Dmarc,
    /// The TXT record that announces a policy.
    MtaStsRecord "mta_sts_record" MtaSts,
    /// The addresses of the policy host.
    MtaStsHost "mta_sts_host" MtaSts,
    /// The HTTPS response with the policy.
    MtaStsFetch "mta_sts_fetch" MtaSts,
    /// The certificate of the policy host.
    MtaStsCertificate "mta_sts_certificate" MtaSts,
    /// The policy host serves one policy over both families.
    MtaStsFamilies "mta_sts_families" MtaSts,
    /// The syntax of the policy, and its mode.
    MtaStsPolicy "mta_sts_policy" MtaSts,
    /// How long senders keep the policy.
    MtaStsMaxAge "mta_sts_max_age" MtaSts,
    /// The policy names the exchanges.
    MtaStsMx "mta_sts_mx" MtaSts,
    /// A server has the certificate that an enforced policy demands.
    MtaStsServer "mta_sts_server" MtaSts,
    TlsRptRecord "tls_rpt_record" TlsRpt,
    /// The addresses that take reports.
    TlsRptReports "tls_rpt_reports" TlsRpt,
    PostfixProtocols "postfix_protocols" Postfix,
    PostfixInterfaces "postfix_interfaces" Postfix,
    PostfixPreference "postfix_preference" Postfix,
    PostfixBind "postfix_bind" Postfix,
    PostfixMynetworks "postfix_mynetworks" Postfix,
    PostfixHelo "postfix_helo" Postfix,
    /// smtp(8) encrypts where the server can.
    PostfixTls "postfix_tls" Postfix,
    /// smtpd(8) takes no bare newline for the end of a message.
    PostfixBareNewline "postfix_bare_newline" Postfix,
    /// A listener for gatepost.
    PostfixProxy "postfix_proxy" Postfix,
    /// What lets gatepost choose the family of outbound mail.
    PostfixOutbound "postfix_outbound" Postfix,
    /// smtpd(8) asks gatepost's policy service.
    PostfixPolicy "postfix_policy" Postfix,
    /// Hosts that may override the client address.
    PostfixXclient "postfix_xclient" Postfix,
}

impl CheckName {
    /// Whether it is about an exchange, with or without one of its addresses.
    const fn is_about_exchanges(self) -> bool {
        matches!(
            self,
            Self::MxName
                | Self::MxIpv6
                | Self::MxIpv4
                | Self::MxAddress
                | Self::SmtpFamilies
                | Self::SmtpCertificate
                | Self::MtaStsServer
        )
    }

    /// Whether the name beside an address is that of a web server.
    const fn is_about_policy_host(self) -> bool {
        matches!(
            self,
            Self::MtaStsHost
                | Self::MtaStsFetch
                | Self::MtaStsCertificate
                | Self::MtaStsPolicy
                | Self::MtaStsMaxAge
                | Self::MtaStsMx
        )
    }

    /// Whether receivers refuse mail of a host for a fault in this.
    pub(super) const fn is_reason_to_refuse(self) -> bool {
        matches!(
            self,
            Self::SenderAddress
                | Self::SenderPtr
                | Self::SenderFcrdns
                | Self::SenderHelo
                | Self::SpfRecord
                | Self::SpfSyntax
                | Self::SpfLookups
                | Self::SpfVoidLookups
                | Self::SpfSender
                | Self::DkimKey
                | Self::DmarcRecord
                | Self::PostfixBind
                | Self::PostfixHelo
        )
    }
}

/// The result of one check. The serde form is part of the public JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub portion: Portion,
    pub check: CheckName,
    pub outcome: CheckStatus,
    /// The name, address or setting that was checked.
    pub about: String,
    /// The server that it is about, if it is about one.
    #[serde(flatten)]
    pub subject: FindingSubject,
    /// May contain text from other hosts, unescaped.
    pub seen: String,
    /// Imperative sentences; null if there is nothing to do.
    pub advice: Option<String>,
    /// Shell commands that follow the advice, in this order.
    pub commands: Vec<String>,
}

/// The parts of [`Finding::about`] that name a server or a family; null if it names none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FindingSubject {
    pub exchange: Option<String>,
    pub address: Option<IpAddr>,
    pub family: Option<Family>,
}

impl FindingSubject {
    fn of(check: CheckName, about: &str) -> Self {
        let (name, address) = match about.split_once(' ') {
            Some((name, address)) => (Some(name), address.parse().ok()),
            None => (None, about.parse().ok()),
        };
        let family = match (check, about) {
            (CheckName::MxIpv6, _) | (_, "IPv6") => Some(Family::Ipv6),
            (CheckName::MxIpv4, _) | (_, "IPv4") => Some(Family::Ipv4),
            _ => address.map(Family::of),
        };
        let name = name.or(check.is_about_exchanges().then_some(about));
        let names_exchange = address.is_some() && !check.is_about_policy_host();
        let exchange = name.filter(|_| names_exchange || check.is_about_exchanges());
        let exchange = exchange.map(str::to_owned);
        Self { exchange, address, family }
    }
}

/// Measurements of one address of an exchange; null where the survey ended earlier. The serde form is part of the public
/// JSON form.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServerMeasurement {
    pub exchange: String,
    pub address: IpAddr,
    pub family: Family,
    /// The address of this host that it saw.
    pub called_from: Option<IpAddr>,
    /// Seconds from the SYN to the connection.
    pub connect_s: Option<f64>,
    /// Seconds from the connection to the greeting.
    pub greeting_s: Option<f64>,
    /// Seconds from EHLO to its reply.
    pub ehlo_s: Option<f64>,
    pub starttls: Option<bool>,
    /// The version of TLS that was established.
    pub tls: Option<String>,
    /// The end of the certificate's validity, RFC 3339.
    pub certificate_ends: Option<Timestamp>,
    /// The kernel's path MTU in octets.
    pub path_mtu: Option<u32>,
    /// Octets of a full segment.
    pub mss: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct CheckReport {
    /// In the order of [`Portion`].
    pub findings: Vec<Finding>,
    /// Each surveyed address of each exchange, in the order of the MX records.
    pub servers: Vec<ServerMeasurement>,
    /// The addresses of this host that the servers saw, IPv6 first.
    pub called_from: Vec<IpAddr>,
    /// Findings that count for nothing, as the caller wished.
    pub ignored: Vec<Finding>,
    /// The domain says that it neither receives nor sends mail.
    pub is_parked: bool,
    /// Skipped checks, and the option that enables them.
    pub not_checked: Vec<(Portion, &'static str)>,
    /// Shell commands that activate those of the findings.
    pub activate: Vec<String>,
}

impl CheckReport {
    /// Findings of these checks count for nothing from now on.
    pub fn ignore(&mut self, checks: &[CheckName]) {
        let is_ignored = |one: &mut Finding| checks.contains(&one.check);
        self.ignored.extend(self.findings.extract_if(.., is_ignored));
    }

    pub fn outcome(&self) -> CheckStatus {
        self.findings.iter().map(|one| one.outcome).max().unwrap_or(CheckStatus::Unknown)
    }

    /// Whether no check fails; `None` if that is not known.
    pub fn is_ready(&self) -> Option<bool> {
        match self.outcome() {
            CheckStatus::Pass | CheckStatus::Warn => Some(true),
            CheckStatus::Unknown => None,
            CheckStatus::Fail => Some(false),
        }
    }

    pub fn count(&self, outcome: CheckStatus) -> usize {
        self.findings.iter().filter(|one| one.outcome == outcome).count()
    }

    /// The first of the most severe findings.
    pub fn worst(&self) -> Option<&Finding> {
        let worst = self.outcome();
        self.findings.iter().find(|one| one.outcome == worst)
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct FindingList(Vec<Finding>);

impl FindingList {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn retain(&mut self, is_kept: impl Fn(CheckName) -> bool) {
        self.0.retain(|one| is_kept(one.check));
    }

    fn push(
        &mut self,
        check: CheckName,
        outcome: CheckStatus,
        about: impl ToString,
        seen: impl Into<String>,
        advice: Option<String>,
    ) -> &mut Finding {
        let (portion, about, seen) = (check.portion(), about.to_string(), seen.into());
        let (commands, index) = (Vec::new(), self.0.len());
        let subject = FindingSubject::of(check, &about);
        self.0.push(Finding { portion, check, outcome, about, subject, seen, advice, commands });
        &mut self.0[index]
    }

    pub(super) fn pass(&mut self, check: CheckName, about: impl ToString, seen: impl Into<String>) {
        self.push(check, CheckStatus::Pass, about, seen, None);
    }

    pub(super) fn warn(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> &mut Finding {
        self.push(check, CheckStatus::Warn, about, seen, Some(advice.into()))
    }

    pub(super) fn fail(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) -> &mut Finding {
        self.push(check, CheckStatus::Fail, about, seen, Some(advice.into()))
    }

    pub(super) fn unknown(
        &mut self,
        check: CheckName,
        about: impl ToString,
        seen: impl Into<String>,
        advice: impl Into<String>,
    ) {
        self.push(check, CheckStatus::Unknown, about, seen, Some(advice.into()));
    }

    /// `what` is unknown because a DNS lookup failed.
    pub(super) fn lookup_failed(
        &mut self,
        check: CheckName,
        about: impl ToString,
        what: &str,
        reason: Reason,
    ) {
        let seen = format!("{what} unknown: {}", failure_text(reason));
        let advice = "Check the domain's name servers and the resolver, then run this again.";
        self.unknown(check, about, seen, advice);
    }

    pub(super) fn into_report(
        self,
        request: &CheckRequest,
        servers: Vec<ServerMeasurement>,
    ) -> CheckReport {
        let mut findings = self.0;
        // Checks of one host add findings of several portions; the report groups them.
        findings.sort_by_key(|one| one.portion);
        let mut not_checked = Vec::new();
        if request.helo.is_none() {
            not_checked.push((Portion::Senders, "EHLO name: give it with --helo NAME"));
        }
        if request.selectors.is_empty() {
            not_checked.push((Portion::Dkim, "keys: name the signers' with --selector NAME"));
        }
        if request.postfix.is_none() {
            not_checked.push((Portion::Postfix, "this host's Postfix: add --postfix"));
        }
        let mut changed = findings.iter().filter(|one| !one.commands.is_empty()).peekable();
        let postfix = request.postfix.as_ref().filter(|_| changed.peek().is_some());
        let restart = changed.any(|one| {
            matches!(one.check, CheckName::PostfixProtocols | CheckName::PostfixInterfaces)
        });
        let activate = postfix.map(|postfix| postfix.activate(restart)).unwrap_or_default();
        let called_from: BTreeSet<IpAddr> =
            servers.iter().filter_map(|server| server.called_from).collect();
        let called_from = called_from.into_iter().rev().collect();
        CheckReport {
            findings,
            servers,
            called_from,
            not_checked,
            activate,
            ..CheckReport::default()
        }
    }
}
