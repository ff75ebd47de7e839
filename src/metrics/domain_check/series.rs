//! The series of a checked domain.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use prometheus::Registry;

use super::families::DomainFamilies;
use crate::addr::Family;
use crate::metrics::{ExpositionFormat, MetricsError, exposition};
use crate::policy::facts::DomainName;
use crate::readiness::{CheckName, CheckReport, CheckStatus, FindingSubject, ServerMeasurement};
use crate::time::Timestamp;

/// The result of a check.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckedDomain {
    pub domain: DomainName,
    pub report: CheckReport,
    /// The end of the check.
    pub at: Timestamp,
    pub took: Duration,
}

/// The server or family that a check is about.
type SubjectKey<'a> = (Option<&'a str>, Option<IpAddr>, Option<Family>);

impl CheckedDomain {
    /// Its series as text, in a registry of their own.
    ///
    /// # Errors
    /// Only if this module defines a family wrongly or twice.
    pub fn encode(&self, format: ExpositionFormat) -> Result<String, MetricsError> {
        let registry = Registry::new();
        let families = DomainFamilies::register(&registry)?;
        self.fill(&families);
        Ok(exposition::encode(&registry.gather(), format))
    }

    fn fill(&self, families: &DomainFamilies) {
        let domain = self.domain.to_string();
        let of_domain = [domain.as_str()];
        families.ready.with_label_values(&of_domain).set(match self.report.is_ready() {
            Some(true) => 1,
            Some(false) => 0,
            None => -1,
        });
        families.duration.with_label_values(&of_domain).set(self.took.as_secs_f64());
        families.timestamp.with_label_values(&of_domain).set(seconds(self.at));
        for ((check, subject), found) in self.outcomes() {
            let [exchange, address, family] = labels(subject);
            for outcome in CheckStatus::ALL {
                let labels =
                    [&domain, check.as_str(), &exchange, &address, &family, outcome.as_str()];
                families.finding.with_label_values(&labels).set(i64::from(outcome == found));
            }
        }
        for server in &self.report.servers {
            fill_server(&domain, server, families);
        }
    }

    /// By check and subject: the worst outcome of several, such as those of several DKIM keys.
    fn outcomes(&self) -> BTreeMap<(CheckName, SubjectKey<'_>), CheckStatus> {
        let mut outcomes = BTreeMap::new();
        for finding in &self.report.findings {
            let FindingSubject { exchange, address, family } = &finding.subject;
            let key = (finding.check, (exchange.as_deref(), *address, *family));
            let worst = outcomes.entry(key).or_insert(finding.outcome);
            *worst = finding.outcome.max(*worst);
        }
        outcomes
    }
}

fn fill_server(domain: &str, server: &ServerMeasurement, families: &DomainFamilies) {
    let subject = (Some(server.exchange.as_str()), Some(server.address), Some(server.family));
    let [exchange, address, family] = labels(subject);
    let labels = [domain, &exchange, &address, &family];
    for (gauge, value) in [
        (&families.connect, server.connect_s),
        (&families.greeting, server.greeting_s),
        (&families.ehlo, server.ehlo_s),
        (&families.certificate_end, server.certificate_ends.map(seconds)),
    ] {
        if let Some(value) = value {
            gauge.with_label_values(&labels).set(value);
        }
    }
    if let Some(mtu) = server.path_mtu {
        families.path_mtu.with_label_values(&labels).set(i64::from(mtu));
    }
}

/// The values of `exchange`, `address` and `family`. To Prometheus an empty label is none.
fn labels((exchange, address, family): SubjectKey<'_>) -> [String; 3] {
    let family = family.map(|family| family.as_str().to_owned());
    [
        exchange.unwrap_or_default().to_owned(),
        address.map(|address| address.to_string()).unwrap_or_default(),
        family.unwrap_or_default(),
    ]
}

fn seconds(time: Timestamp) -> f64 {
    time.since(Timestamp::default()).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::Finding;

    fn finding(check: CheckName, outcome: CheckStatus, subject: FindingSubject) -> Finding {
        Finding {
            portion: check.portion(),
            check,
            outcome,
            about: "for people only".to_owned(),
            subject,
            seen: "likewise".to_owned(),
            advice: None,
            commands: Vec::new(),
        }
    }

    fn checked(findings: Vec<Finding>) -> CheckedDomain {
        let address = "2001:db8::25".parse().unwrap();
        let servers = vec![ServerMeasurement {
            exchange: "mx.ready.example".to_owned(),
            address,
            family: Family::of(address),
            called_from: None,
            connect_s: Some(0.25),
            greeting_s: Some(1.5),
            ehlo_s: None,
            starttls: Some(true),
            tls: None,
            certificate_ends: Some(Timestamp::from_nanos(1_767_323_045_000_000_000)),
            path_mtu: Some(1280),
            mss: None,
        }];
        CheckedDomain {
            domain: DomainName::parse("ready.example").unwrap(),
            report: CheckReport { findings, servers, ..CheckReport::default() },
            at: Timestamp::from_nanos(1_767_000_000_500_000_000),
            took: Duration::from_millis(2500),
        }
    }

    #[test]
    fn a_report_as_series() {
        let address = Some("2001:db8::25".parse().unwrap());
        let server = FindingSubject {
            exchange: Some("mx.ready.example".to_owned()),
            address,
            family: Some(Family::Ipv6),
        };
        let family = FindingSubject { family: Some(Family::Ipv4), ..FindingSubject::default() };
        let checked = checked(vec![
            finding(CheckName::SmtpGreeting, CheckStatus::Fail, server),
            finding(CheckName::SenderAddress, CheckStatus::Unknown, family),
            // Of two keys.
            finding(CheckName::DkimKey, CheckStatus::Warn, FindingSubject::default()),
            finding(CheckName::DkimKey, CheckStatus::Pass, FindingSubject::default()),
        ]);
        let text = checked.encode(ExpositionFormat::Text).unwrap();
        insta::assert_snapshot!(text);
        let other = checked.encode(ExpositionFormat::OpenMetrics).unwrap();
        assert!(other.contains("gatepost_check_path_mtu_bytes{") && other.ends_with("# EOF\n"));
    }

    #[test]
    fn unknown_is_neither_ready_nor_not() {
        for (outcome, expected) in [
            (CheckStatus::Pass, 1),
            (CheckStatus::Warn, 1),
            (CheckStatus::Unknown, -1),
            (CheckStatus::Fail, 0),
        ] {
            let found = finding(CheckName::MxRecords, outcome, FindingSubject::default());
            let text = checked(vec![found]).encode(ExpositionFormat::Text).unwrap();
            let line = format!("\ngatepost_check_ready{{domain=\"ready.example\"}} {expected}\n");
            assert!(text.contains(&line), "{text}");
        }
    }

    #[test]
    fn names_cannot_break_out_of_their_labels() {
        let subject = FindingSubject {
            exchange: Some("\"} 1\nup 0\n\\".to_owned()),
            ..FindingSubject::default()
        };
        let found = finding(CheckName::MxName, CheckStatus::Fail, subject);
        for format in [ExpositionFormat::Text, ExpositionFormat::OpenMetrics] {
            let text = checked(vec![found.clone()]).encode(format).unwrap();
            assert!(!text.lines().any(|line| line.starts_with("up")), "{text}");
        }
    }
}
