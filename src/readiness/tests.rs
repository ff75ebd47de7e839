//! Tables of DNS records and surveys, and the findings that follow.

mod blocklist;
mod caa;
mod dane;
mod dns;
mod mta_sts;
mod name_servers;
mod own_network;
mod postmaster;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::addr::Family;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source};
use crate::time::Timestamp;

const SENDER: &str = "2001:db8::5";
const SENDER4: &str = "192.0.2.5";

/// Lines `name TYPE value`: MX, A, AAAA, PTR (of an address), TXT, CNAME; `!servfail` and `!timeout` are failed lookups.
struct Zone {
    records: BTreeMap<(String, String), Vec<String>>,
    surveys: BTreeMap<IpAddr, Survey>,
    /// Others do not answer.
    controls: BTreeMap<IpAddr, ConnectResult>,
    outside: BTreeMap<Family, OutsideView>,
    policies: BTreeMap<IpAddr, PolicyFetch>,
}

/// Records of `a.example` without a fault.
const GOOD: &str = "\
a.example MX 10 mx.a.example
a.example TXT v=spf1 ip6:2001:db8::/64 ip4:192.0.2.0/24 -all
a.example NS ns.a.example
ns.a.example AAAA 2001:db8::53
mx.a.example A 192.0.2.25
mx.a.example AAAA 2001:db8::25
2001:db8::5 PTR out.a.example
192.0.2.5 PTR out.a.example
out.a.example A 192.0.2.5
out.a.example AAAA 2001:db8::5
_dmarc.a.example TXT v=DMARC1; p=reject; rua=mailto:d@a.example
_smtp._tls.a.example TXT v=TLSRPTv1; rua=mailto:t@a.example
";

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn reply(text: &str) -> SurveyResult {
    let code = text[..3].parse().unwrap();
    let lines = text[4..].split('|').map(str::to_owned).collect();
    SurveyResult::Received(SurveyReply { code, lines, took: Duration::from_millis(4) })
}

fn good_tls() -> TlsSurvey {
    let facts = ServerTls {
        version: "TLSv1.3".to_owned(),
        took: Duration::from_millis(9),
        names: vec!["mx.a.example".to_owned()],
        not_after: Timestamp::from_nanos(90 * 86_400 * 1_000_000_000),
        chain: Vec::new(),
        digest: [7; 32],
        trust: CertificateTrust::Trusted,
        client_hello: 1500,
        server_octets: 3000,
        at: Timestamp::from_nanos(0),
    };
    TlsSurvey {
        reply: reply("220 go"),
        handshake: TlsAttempt::Established(facts),
        ehlo: reply("250 mx.a.example|PIPELINING"),
    }
}

fn good_survey() -> Survey {
    Survey {
        reached: ConnectResult::Connected(Duration::from_millis(3)),
        from: None,
        greeting: reply("220 mx.a.example ESMTP"),
        ehlo: reply("250 mx.a.example|PIPELINING|STARTTLS"),
        tls: Some(good_tls()),
        path: Some(NetworkPath {
            mtu: Some(1500),
            mss: Some(1428),
            large: LargeProbe::Answered { sent: 1500, received: 3000 },
        }),
        postmaster: Some(PostmasterSurvey {
            mail: reply("250 2.1.0 Ok"),
            recipient: reply("250 2.1.5 Ok"),
        }),
    }
}

impl Zone {
    /// `changes` replace the records of [`GOOD`] with the same name and type; `name TYPE -` removes them.
    fn new(changes: &str) -> Self {
        let surveys = ["192.0.2.25", "2001:db8::25"].map(|ip| (ip.parse().unwrap(), good_survey()));
        let mut zone = Self {
            records: BTreeMap::new(),
            surveys: surveys.into(),
            controls: BTreeMap::new(),
            outside: BTreeMap::new(),
            policies: BTreeMap::new(),
        };
        zone.change(GOOD);
        zone.change(changes);
        zone
    }

    fn change(&mut self, changes: &str) {
        let mut replaced = Vec::new();
        for line in changes.lines().filter(|line| !line.is_empty()) {
            let [owner, kind, value] = line.splitn(3, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let key = (owner.to_owned(), kind.to_owned());
            if !replaced.contains(&key) {
                self.records.remove(&key);
                replaced.push(key.clone());
            }
            if value != "-" {
                self.records.entry(key).or_default().push(value.to_owned());
            }
        }
    }

    fn find(&self, owner: &str, kind: &str) -> Result<Option<&Vec<String>>, Reason> {
        let found = self.records.get(&(owner.to_owned(), kind.to_owned()));
        match found.and_then(|values| values.first()).map(String::as_str) {
            Some("!servfail") => Err(Reason::Servfail),
            Some("!timeout") => Err(Reason::Timeout),
            _ => Ok(found),
        }
    }

    fn answer(&self, known: &mut KnownAnswers, question: CheckQuestion) {
        let lookup = match question {
            CheckQuestion::Cname(owner) => {
                let alias = match self.find(&owner.to_string(), "CNAME") {
                    Err(reason) => CnameAnswer::Unknown(reason),
                    Ok(found) => found
                        .map_or(CnameAnswer::None, |found| CnameAnswer::Target(name(&found[0]))),
                };
                return known.insert_cname(owner, alias);
            }
            CheckQuestion::Validated(owner, kind) => {
                let answer = self.validated(&owner, kind);
                return known.insert_validated(owner, kind, answer);
            }
            CheckQuestion::NameServer(server, zone) => {
                let reply = self.name_server(server);
                return known.insert_name_server(server, zone, reply);
            }
            CheckQuestion::Survey(ip, exchange) => {
                let survey = self.surveys.get(&ip).cloned();
                let survey = survey.unwrap_or_else(|| {
                    Survey::only(ConnectResult::NoResponse(Duration::from_secs(10)))
                });
                return known.insert_survey(ip, exchange, survey);
            }
            CheckQuestion::Control(ip) => {
                let silent = ConnectResult::NoResponse(Duration::from_secs(10));
                let reached = self.controls.get(&ip).copied().unwrap_or(silent);
                return known.insert_control(ip, reached);
            }
            CheckQuestion::Outside(family) => {
                return known.insert_outside(family, self.outside[&family].clone());
            }
            CheckQuestion::Policy(ip, host) => {
                let fetch = self.policies.get(&ip).cloned();
                let fetch = fetch.unwrap_or_else(|| PolicyFetch::only(ConnectResult::Refused));
                return known.insert_policy(ip, host, fetch);
            }
            CheckQuestion::Lookup(lookup) => lookup,
        };
        let record = |value: &String| match &lookup {
            Lookup::MailExchanges(_) => {
                let (preference, host) = value.split_once(' ').unwrap();
                let host = if host == "." {
                    hickory_proto::rr::Name::root().into()
                } else {
                    name_or_address(host)
                };
                DnsRecord::Exchange { preference: preference.parse().unwrap(), host }
            }
            Lookup::Reverse(_) => DnsRecord::Name(name(value)),
            Lookup::Texts(_) => DnsRecord::Text(value.clone().into_bytes()),
            _ => DnsRecord::Address(value.parse().unwrap()),
        };
        let (owner, kind) = match &lookup {
            Lookup::Addresses(owner, Family::Ipv4) => (owner.to_string(), "A"),
            Lookup::Addresses(owner, Family::Ipv6) => (owner.to_string(), "AAAA"),
            Lookup::MailExchanges(owner) => (owner.to_string(), "MX"),
            Lookup::Reverse(ip) => (ip.to_string(), "PTR"),
            Lookup::Texts(owner) => (owner.to_string(), "TXT"),
            other => panic!("{other:?}"),
        };
        let answer = match self.find(&owner, kind) {
            Err(reason) => Answer::Unknown(reason),
            Ok(Some(values)) => Answer::Records(values.iter().map(record).collect()),
            Ok(None) if self.records.contains_key(&(owner, "NXDOMAIN".to_owned())) => {
                Answer::NxDomain
            }
            Ok(None) => Answer::NoData,
        };
        known.insert(lookup, LookupResult { answer, source: Source::Dns, at: None });
    }

    fn evaluate(&self, request: &CheckRequest) -> CheckReport {
        let mut known = KnownAnswers::default();
        for _ in 0..40 {
            match evaluate(request, &known) {
                CheckEvaluation::Done(report) => return report,
                CheckEvaluation::Needs(needed) => {
                    assert!(!needed.is_empty());
                    needed.into_iter().for_each(|question| self.answer(&mut known, question));
                }
            }
        }
        panic!("does not terminate");
    }
}

/// An MX may name anything, also an address.
fn name_or_address(text: &str) -> DomainName {
    hickory_proto::rr::Name::from_ascii(text).unwrap().into()
}

fn request() -> CheckRequest {
    CheckRequest {
        senders: vec![SENDER.parse().unwrap(), SENDER4.parse().unwrap()],
        senders_from: Origin::CommandLine,
        helo: Some((name("out.a.example"), Origin::CommandLine)),
        ..CheckRequest::new(name("a.example"))
    }
}

fn faults(report: &CheckReport) -> String {
    let faults = report.findings.iter().filter(|one| one.outcome != CheckStatus::Pass);
    let words: Vec<String> =
        faults.map(|one| format!("{} {}", one.outcome.as_str(), one.check.as_str())).collect();
    words.join(", ")
}

#[test]
fn findings_from_dns() {
    let mut wrong = Vec::new();
    for (changes, expected) in [
        ("", ""),
        ("a.example MX !servfail", "unknown mx_records"),
        ("a.example MX -\na.example NXDOMAIN x", "fail mx_records"),
        ("a.example MX -", "fail mx_records"),
        (
            "a.example MX -\na.example AAAA !timeout",
            "unknown mx_records, unknown mx_ipv6, warn mx_ipv4",
        ),
        ("a.example MX -\na.example AAAA 2001:db8::25\na.example A 192.0.2.25", "warn mx_records"),
        ("a.example MX 0 .", "warn mx_records"),
        ("a.example MX 0 .\na.example MX 10 mx.a.example", "fail mx_records"),
        ("a.example MX 10 192.0.2.25.", "fail mx_name"),
        ("a.example MX 0 0", "fail mx_name"),
        ("a.example MX 10 gone.b.example\ngone.b.example NXDOMAIN x", "fail mx_name"),
        (
            "a.example MX 10 mx.a.example\na.example MX 20 gone.b.example\ngone.b.example NXDOMAIN x",
            "fail mx_name",
        ),
        ("mx.a.example CNAME b.a.example", "warn mx_name"),
        ("mx.a.example CNAME !timeout", "unknown mx_name"),
        ("mx.a.example AAAA -", "fail mx_ipv6"),
        ("mx.a.example AAAA !servfail", "unknown mx_ipv6"),
        // DNS64
        (
            "ipv4only.arpa AAAA 64:ff9b::192.0.0.170\nmx.a.example AAAA 64:ff9b::192.0.2.25",
            "fail mx_ipv6",
        ),
        (
            "ipv4only.arpa AAAA 2001:db8:64::192.0.0.171\nmx.a.example AAAA 2001:db8:64::192.0.2.25",
            "fail mx_ipv6",
        ),
        ("ipv4only.arpa AAAA 2001:db8:64::192.0.0.170", ""),
        ("ipv4only.arpa AAAA !timeout", ""),
        ("mx.a.example AAAA 64:ff9b::192.0.2.25", "fail mx_address"),
        ("mx.a.example A -", "warn mx_ipv4"),
        ("mx.a.example AAAA ::1", "fail mx_address"),
        ("mx.a.example AAAA ::ffff:192.0.2.25\nmx.a.example AAAA 2001:db8::25", "fail mx_address"),
        (
            "a.example MX 10 mx.a.example\na.example MX 20 b.a.example\nb.a.example A 192.0.2.25",
            "warn mx_ipv6",
        ),
        ("2001:db8::5 PTR -", "fail sender_ptr"),
        ("2001:db8::5 PTR !timeout", "unknown sender_ptr"),
        ("out.a.example AAAA 2001:db8::6", "fail sender_fcrdns, warn sender_helo"),
        ("out.a.example AAAA !servfail", "unknown sender_fcrdns, unknown sender_helo"),
        ("2001:db8::5 PTR other.a.example\nother.a.example AAAA 2001:db8::5", "warn sender_helo"),
        ("a.example TXT -", "fail spf_record"),
        ("a.example TXT !servfail", "unknown spf_record"),
        ("a.example TXT v=spf1 -all\na.example TXT v=spf1 ~all", "fail spf_record"),
        ("a.example TXT v=spf1 ip4:192.0.2.0/24 -all", "fail spf_sender"),
        ("a.example TXT v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/129 -all", "fail spf_syntax"),
        ("a.example TXT v=spf1 +all", "fail spf_all"),
        (
            "a.example TXT v=spf1 ip4:0.0.0.0/1 ip4:128.0.0.0/1 ip6:2001:db8::/64 -all",
            "fail spf_all",
        ),
        ("a.example TXT v=spf1 ip4:192.0.2.0/24 ip6:2000::/3 -all", "fail spf_all"),
        (
            "a.example TXT v=spf1 ip4:192.0.2.5 ip6:2001:db8::5 include:b.example -all\nb.example TXT v=spf1 all",
            "fail spf_all",
        ),
        (
            "a.example TXT v=spf1 redirect=b.example\nb.example TXT v=spf1 ip4:192.0.2.5 ip6:2001:db8::5",
            "warn spf_all",
        ),
        (
            "a.example TXT v=spf1 ip4:192.0.2.5 ip6:2001:db8::5 redirect=b.example\n\
             b.example TXT v=spf1 redirect=c.example\nc.example TXT v=spf1 redirect=b.example",
            "fail spf_syntax",
        ),
        ("a.example TXT v=spf1 ip6:2001:db8::5 ip4:192.0.2.5", "warn spf_all"),
        ("a.example TXT v=spf1 ip6:2001:db8::5 ip4:192.0.2.5 ?all", "warn spf_all"),
        ("a.example TXT v=spf1 ptr -all", "warn spf_ptr"),
        ("a.example TXT v=spf1 a:out.a.example -all", ""),
        (
            "a.example TXT v=spf1 exists:%{ir}.x.a.example -all\n5.2.0.192.x.a.example A 127.0.0.2",
            "fail spf_sender",
        ),
        (
            "a.example TXT v=spf1 redirect=b.example\nb.example TXT v=spf1 mx:a.example a:out.a.example -all",
            "",
        ),
        (
            "a.example TXT v=spf1 redirect=b.example",
            "fail spf_syntax, fail spf_sender, fail spf_sender",
        ),
        (
            "a.example TXT v=spf1 include:b.example -all\nb.example TXT !timeout",
            "unknown spf_lookups, unknown spf_sender, unknown spf_sender",
        ),
        (
            "a.example TXT v=spf1 include:b.example -all\nb.example TXT v=spf1 ip6:2001:db8::5 ip4:192.0.2.5 include:a.example ~all",
            "fail spf_syntax",
        ),
        (
            "a.example TXT v=spf1 a:x.a.example a:y.a.example a:z.a.example ip4:192.0.2.5 ip6:2001:db8::5 -all\n\
             x.a.example A 192.0.2.1\ny.a.example A 192.0.2.1\nz.a.example A 192.0.2.1",
            "fail spf_void_lookups, fail spf_sender",
        ),
        (
            "a.example TXT v=spf1 a:out.a.example -all\na.example TXT spf2.0/pra -all",
            "warn sender_id",
        ),
        ("_dmarc.a.example TXT -", "warn dmarc_record"),
        ("_dmarc.a.example TXT !timeout", "unknown dmarc_record"),
        ("_dmarc.a.example TXT -\n_dmarc.example TXT !servfail", "unknown dmarc_record"),
        (
            "_dmarc.a.example TXT -\n_dmarc.example TXT v=DMARC1; p=none; sp=reject; rua=mailto:d@b.example",
            "",
        ),
        ("_dmarc.a.example TXT v=DMARC1; p=none; rua=mailto:d@a.example", "warn dmarc_policy"),
        ("_dmarc.a.example TXT v=DMARC1; p=reject", "warn dmarc_reports"),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; t=y; rua=mailto:d@a.example",
            "warn dmarc_policy",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; pct=0; rua=mailto:d@a.example",
            "warn dmarc_policy",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; np=none; rua=mailto:d@a.example",
            "warn dmarc_policy",
        ),
        ("_dmarc.a.example TXT v=DMARC1; p=reject; sp=none; np=reject; rua=mailto:d@a.example", ""),
        ("_dmarc.a.example TXT v=dmarc1; p=reject", "fail dmarc_record, warn dmarc_record"),
        (
            "_dmarc.a.example TXT V = DMARC1 p=reject\n_dmarc.example TXT v=DMARC1; p=reject; rua=mailto:d@a.example",
            "fail dmarc_record",
        ),
        ("_dmarc.a.example TXT v=DMARC1; p=reject; rua=mailto:d@mail.a.example!10m", ""),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; rua=mailto:d@reports.invalid",
            "fail dmarc_reports",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; rua=mailto:d@reports.invalid\n\
             a.example._report._dmarc.reports.invalid TXT v=DMARC1",
            "",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject; rua=mailto:d@a.example,mailto:d@reports.invalid\n\
             a.example._report._dmarc.reports.invalid TXT !servfail",
            "unknown dmarc_reports",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=maybe; rua=d@a.example",
            "fail dmarc_policy, fail dmarc_reports",
        ),
        (
            "_dmarc.a.example TXT v=DMARC1; p=reject\n_dmarc.a.example TXT v=DMARC1; p=none",
            "fail dmarc_record",
        ),
    ] {
        let found = faults(&Zone::new(changes).evaluate(&request()));
        if found != expected {
            wrong.push(format!("{changes}\n    expected: {expected}\n    found: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn findings_from_surveys() {
    let (v4, v6): (IpAddr, IpAddr) =
        ("192.0.2.25".parse().unwrap(), "2001:db8::25".parse().unwrap());
    let second = Duration::from_secs(1);
    let no_response = || Survey::only(ConnectResult::NoResponse(second));
    let greeting = |reply| Survey {
        greeting: reply,
        ehlo: SurveyResult::NotRequested,
        path: None,
        postmaster: None,
        ..good_survey()
    };
    let path = |large| {
        let path = NetworkPath { large, ..good_survey().path.unwrap() };
        Survey { path: Some(path), ..good_survey() }
    };
    let named =
        |text: &str| Survey { greeting: reply(&format!("220 {text} ESMTP")), ..good_survey() };
    let offering =
        |words: &str| Survey { ehlo: reply(&format!("250 mx.a.example|{words}")), ..good_survey() };
    let no_tls = || Survey { ehlo: reply("250 mx.a.example|PIPELINING"), ..good_survey() };
    for (on_v6, on_v4, expected) in [
        (no_response(), good_survey(), "unknown smtp_connect"),
        (good_survey(), no_response(), "unknown smtp_connect"),
        (no_response(), no_response(), "unknown smtp_connect, unknown smtp_connect"),
        (
            Survey::only(ConnectResult::Refused),
            good_survey(),
            "fail smtp_families, fail smtp_connect",
        ),
        (Survey::only(ConnectResult::NoRoute), good_survey(), "unknown smtp_connect"),
        (
            Survey::only(ConnectResult::OutOfTime),
            Survey::only(ConnectResult::OutOfTime),
            "unknown smtp_connect, unknown smtp_connect",
        ),
        (greeting(reply("554 no")), good_survey(), "unknown smtp_greeting"),
        (greeting(reply("521 no")), good_survey(), "fail smtp_families, fail smtp_greeting"),
        (greeting(reply("421 later")), good_survey(), "fail smtp_families, unknown smtp_greeting"),
        (
            greeting(SurveyResult::TimedOut(second)),
            good_survey(),
            "fail smtp_families, fail smtp_greeting",
        ),
        (
            greeting(SurveyResult::TimedOut(second)),
            greeting(SurveyResult::TimedOut(second)),
            "unknown smtp_greeting, unknown smtp_greeting",
        ),
        // The other family's connection is refused, or rejected: neither proves a fault of this one.
        (
            greeting(SurveyResult::TimedOut(second)),
            Survey::only(ConnectResult::Refused),
            "unknown smtp_greeting, fail smtp_connect",
        ),
        (
            greeting(SurveyResult::TimedOut(second)),
            greeting(reply("554 no")),
            "unknown smtp_greeting, unknown smtp_greeting",
        ),
        (greeting(SurveyResult::OutOfTime(second)), good_survey(), "unknown smtp_greeting"),
        (
            Survey {
                ehlo: SurveyResult::OutOfTime(second),
                path: None,
                postmaster: None,
                ..good_survey()
            },
            good_survey(),
            "unknown smtp_ehlo",
        ),
        (
            Survey {
                ehlo: SurveyResult::TimedOut(second),
                path: None,
                postmaster: None,
                ..good_survey()
            },
            good_survey(),
            "fail smtp_families, fail smtp_ehlo",
        ),
        (greeting(SurveyResult::NotSmtp), good_survey(), "fail smtp_families, fail smtp_greeting"),
        (
            greeting(SurveyResult::Closed),
            good_survey(),
            "fail smtp_families, unknown smtp_greeting",
        ),
        (no_tls(), good_survey(), "fail smtp_families, warn smtp_starttls"),
        (no_tls(), no_tls(), "warn smtp_starttls, warn smtp_starttls"),
        (offering("PIPELINING|STARTTLS|SIZE 10"), offering("PIPELINING|starttls|size 99"), ""),
        (
            offering("PIPELINING|STARTTLS"),
            offering("PIPELINING|STARTTLS|CHUNKING"),
            "warn smtp_families",
        ),
        (named("localhost"), good_survey(), "warn smtp_name"),
        (named("[2001:db8::25]"), good_survey(), "warn smtp_name"),
        (named("mx.b.example"), good_survey(), "warn smtp_name"),
        (named("other.a.example"), good_survey(), ""),
        (path(LargeProbe::Stalled(second)), good_survey(), "fail path_mtu"),
        (path(LargeProbe::NotTried), good_survey(), "unknown path_mtu"),
        (path(LargeProbe::Closed), good_survey(), "unknown path_mtu"),
        (path(LargeProbe::OutOfTime), good_survey(), "unknown path_mtu"),
    ] {
        let mut zone = Zone::new("");
        zone.surveys = [(v6, on_v6.clone()), (v4, on_v4.clone())].into();
        let report = zone.evaluate(&request());
        assert_eq!(faults(&report), expected, "{on_v6:?}\n{on_v4:?}");
    }
}

/// Domains that send no mail, checked from any host.
#[test]
fn parked_domains() {
    const PARKED: &str =
        "a.example MX 0 .\na.example TXT v=spf1 -all\n_dmarc.a.example TXT v=DMARC1; p=reject";
    let request = CheckRequest { senders_from: Origin::Interfaces, ..request() };
    for (changes, expected) in [
        ("", ""),
        ("a.example TXT v=spf1 ~all", "warn mx_records, warn dmarc_reports"),
        (
            "a.example TXT v=spf1 redirect=b.example\nb.example TXT v=spf1 -all",
            "warn mx_records, warn dmarc_reports",
        ),
        ("a.example TXT -", "warn mx_records, fail spf_record, warn dmarc_reports"),
        ("a.example TXT !timeout", "warn mx_records, unknown spf_record, warn dmarc_reports"),
        ("a.example MX -", "warn mx_records"),
        ("_dmarc.a.example TXT -", "warn dmarc_record"),
        ("_dmarc.a.example TXT v=DMARC1; p=none", "warn dmarc_policy"),
        ("_dmarc.a.example TXT v=DMARC1; p=quarantine", "warn dmarc_policy"),
    ] {
        let mut zone = Zone::new(PARKED);
        zone.change(changes);
        let report = zone.evaluate(&request);
        assert_eq!(faults(&report), expected, "{changes}");
        let says_so = !changes.starts_with("a.example TXT");
        assert_eq!(report.is_parked, says_so, "{changes}");
        assert_eq!(report.not_checked.is_empty(), says_so, "{changes}");
    }
}

/// The addresses of this host are judged only if they are the domain's.
#[test]
fn hosts_of_others_are_not_judged() {
    let request = CheckRequest { senders_from: Origin::Interfaces, ..request() };
    let portions = |changes: &str, senders: &[&str]| {
        let senders = senders.iter().map(|ip| ip.parse().unwrap()).collect();
        let report = Zone::new(changes).evaluate(&CheckRequest { senders, ..request.clone() });
        let is_judged =
            |one: &Finding| one.portion == Portion::Senders || one.check == CheckName::SpfSender;
        report.findings.iter().filter(|one| is_judged(one)).count()
    };
    assert_eq!(portions("", &["203.0.113.9", "2001:db8:9::9"]), 0);
    assert!(portions("", &[SENDER, SENDER4]) > 0, "in the SPF record");
    let unlisted = "a.example TXT v=spf1 -all";
    assert!(portions(unlisted, &["192.0.2.25"]) > 0, "an exchange");
    assert_eq!(portions(unlisted, &[SENDER, SENDER4]), 0);
}

#[test]
fn findings_about_keys() {
    const KEY: &str = "MFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAL1MQ0X";
    let request = CheckRequest { selectors: vec!["s".to_owned()], ..request() };
    let ed25519 = "k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    for (record, expected) in [
        (format!("v=DKIM1; {ed25519}"), ""),
        (format!("v=DKIM1; h=sha1; {ed25519}"), "fail dkim_key"),
        (format!("v=DKIM1; h=sha1:sha256; {ed25519}"), ""),
        (format!("v=DKIM1; s=tlsrpt; {ed25519}"), "fail dkim_key"),
        (format!("v=DKIM1; s=email; {ed25519}"), ""),
        (format!("v=DKIM1; t=y; {ed25519}"), "warn dkim_key"),
        ("v=DKIM1; p=".to_owned(), "fail dkim_key"),
        (format!("v=DKIM1; p={KEY}"), "fail dkim_key"),
        ("-".to_owned(), "fail dkim_key"),
        ("!timeout".to_owned(), "unknown dkim_key"),
    ] {
        let zone = Zone::new(&format!("s._domainkey.a.example TXT {record}"));
        assert_eq!(faults(&zone.evaluate(&request)), expected, "{record}");
    }
}

#[test]
fn findings_about_tls() {
    let second = Duration::from_secs(1);
    let handshake =
        |handshake| TlsSurvey { handshake, ehlo: SurveyResult::NotRequested, ..good_tls() };
    let refused =
        |text: &str| TlsSurvey { reply: reply(text), ..handshake(TlsAttempt::NotReached) };
    let with = |change: fn(&mut ServerTls)| {
        let mut survey = good_tls();
        let TlsAttempt::Established(facts) = &mut survey.handshake else { unreachable!() };
        change(facts);
        survey
    };
    let distrusted =
        || with(|facts| facts.trust = CertificateTrust::Distrusted("expired".to_owned()));
    for (on_v6, on_v4, expected) in [
        (good_tls(), good_tls(), ""),
        (
            handshake(TlsAttempt::Failed("alert".to_owned())),
            good_tls(),
            "fail smtp_families, fail smtp_tls",
        ),
        (handshake(TlsAttempt::TimedOut(second)), good_tls(), "fail smtp_families, fail smtp_tls"),
        (good_tls(), handshake(TlsAttempt::Closed), "fail smtp_families, fail smtp_tls"),
        (
            handshake(TlsAttempt::Closed),
            handshake(TlsAttempt::Closed),
            "fail smtp_tls, fail smtp_tls",
        ),
        (refused("454 no key"), refused("454 no key"), "unknown smtp_tls, unknown smtp_tls"),
        (refused("502 no"), refused("502 no"), "fail smtp_tls, fail smtp_tls"),
        (TlsSurvey { ehlo: SurveyResult::Closed, ..good_tls() }, good_tls(), "fail smtp_tls"),
        (distrusted(), distrusted(), "warn smtp_certificate, warn smtp_certificate"),
        (with(|facts| facts.digest = [1; 32]), good_tls(), "warn smtp_certificate"),
        (
            with(|facts| facts.not_after = Timestamp::from_nanos(86_400_000_000_000)),
            good_tls(),
            "warn smtp_certificate",
        ),
        (
            with(|facts| facts.trust = CertificateTrust::Unknown),
            good_tls(),
            "unknown smtp_certificate",
        ),
    ] {
        let mut zone = Zone::new("");
        for (ip, tls) in [("2001:db8::25", &on_v6), ("192.0.2.25", &on_v4)] {
            let survey = Survey { tls: Some(tls.clone()), ..good_survey() };
            zone.surveys.insert(ip.parse().unwrap(), survey);
        }
        assert_eq!(faults(&zone.evaluate(&request())), expected, "{on_v6:?}\n{on_v4:?}");
    }
}

#[test]
fn a_slow_greeting_is_a_warning() {
    let mut zone = Zone::new("");
    let took = Duration::from_secs(8);
    let slow = SurveyResult::Received(SurveyReply {
        code: 220,
        lines: vec!["mx.a.example".to_owned()],
        took,
    });
    zone.surveys
        .insert("2001:db8::25".parse().unwrap(), Survey { greeting: slow, ..good_survey() });
    assert_eq!(faults(&zone.evaluate(&request())), "warn smtp_greeting");
}

#[test]
fn a_missing_ipv6_sender_warns_and_a_private_one_fails() {
    let only4 = CheckRequest { senders: vec![SENDER4.parse().unwrap()], ..request() };
    assert_eq!(faults(&Zone::new("").evaluate(&only4)), "warn sender_address");
    let private = CheckRequest { senders: vec!["fd00::1".parse().unwrap()], ..request() };
    assert_eq!(faults(&Zone::new("").evaluate(&private)), "fail sender_address");
}

/// 1,000 malformed records: no panic, and the evaluation terminates.
#[test]
fn malformed_records_are_survived() {
    let parts = [
        "%{",
        "%{i",
        "include:a.example",
        "a:%{d}.",
        "//",
        "/",
        "mx/0//0",
        "redirect=a.example",
        "=",
        ":",
        "ip6:",
        "\u{e9}",
        "exists:%{d1r-}.b.example",
    ];
    for seed in 0..1000_usize {
        let picked: Vec<&str> =
            (0..5).map(|n| parts[(seed * 7 + n * n * (seed % 11 + 1)) % parts.len()]).collect();
        let changes = format!(
            "a.example TXT v=spf1 {}\n_dmarc.a.example TXT v=DMARC1;{}",
            picked.join(" "),
            picked.concat()
        );
        Zone::new(&changes).evaluate(&request());
    }
}

#[test]
fn check_names_are_unique_and_lower_case() {
    let mut words: Vec<&str> = CheckName::ALL.iter().map(|check| check.as_str()).collect();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), CheckName::ALL.len());
    assert!(words.iter().all(|word| {
        word.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'0'..=b'9'))
    }));
}
