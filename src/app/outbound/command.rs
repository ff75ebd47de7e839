//! `gatepost outbound [HOST|DOMAIN]`, and its answer in a running gateway.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, anyhow};
use serde::Serialize;
use tokio::io::AsyncReadExt as _;

use super::OutboundEvidence;
use crate::app::check::{CheckedHost, check_sending};
use crate::app::control_client;
use crate::app::hostname::hostname;
use crate::app::output::{note, print};
use crate::cli::{OutboundArgs, OutputFormat};
use crate::config::Config;
use crate::control::{self, ControlConnection, ControlRequest};
use crate::humanize::counted;
use crate::outbound::{Hosts, OutboundReport, SteeringSettings};
use crate::policy::facts::DomainName;
use crate::postfix::mail_log::{LogZone, MailLogEvent, MailLogParser};
use crate::report;
use crate::report::sending::SendingCheck;
use crate::time::Timestamp;

/// Bytes of a read.
const READ: usize = 256 * 1024;

/// The JSON form.
#[derive(Serialize)]
struct OutboundOutput<'a> {
    #[serde(flatten)]
    report: &'a OutboundReport,
    /// Null where nothing suggests a fault of this host, and for a log, which may be of another host.
    sending_check: Option<&'a SendingCheck>,
}

pub(in crate::app) async fn outbound(args: OutboundArgs) -> anyhow::Result<ExitCode> {
    let name = args.name.as_ref();
    let (report, check) = match &args.mail_log {
        Some(file) => (of_log(file, name)?, None),
        None => {
            let config = args.config.as_deref().map(Config::load).transpose()?;
            let socket = match &config {
                Some(config) => config.control.socket.clone(),
                None => control_client::socket(args.socket, None)?,
            };
            let report = of_gateway(&socket, name).await?;
            let check = match report.finding().suspects_us() {
                true => Some(check_ourselves(config.as_ref()).await),
                false => None,
            };
            (report, check)
        }
    };
    let text = match args.format {
        OutputFormat::Json => serde_json::to_string(&OutboundOutput {
            report: &report,
            sending_check: check.as_ref(),
        })?,
        OutputFormat::Text => report::outbound::outbound(&report, name, check.as_ref()),
    };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

/// A gateway answers on a Unix socket, so that it and the sending MTA are on this host.
async fn check_ourselves(config: Option<&Config>) -> SendingCheck {
    let (domain, domain_from) = match config {
        Some(config) => match config.site.domains.first() {
            Some(domain) => (Some(domain.clone()), "site.domains"),
            None => (DomainName::parse(&config.relay.smtp.hostname), "smtp.hostname"),
        },
        None => (hostname("--config").ok().and_then(|name| DomainName::parse(&name)), "hostname"),
    };
    let config_directory = config.and_then(|config| config.outbound.as_ref());
    let config_directory = config_directory.and_then(|outbound| outbound.config_directory.clone());
    let skipped = |domain: String, reason| SendingCheck::skipped(domain, domain_from, Some(reason));
    let Some(domain) = domain.filter(|domain| domain.to_string().contains('.')) else {
        let reason =
            "our domain is unknown; set smtp.hostname, and name the configuration with --config";
        return skipped("no domain".to_owned(), reason.to_owned());
    };
    match check_sending(CheckedHost { domain: domain.clone(), config_directory }).await {
        Ok((request, report)) => SendingCheck::new(&request, report, domain_from),
        Err(error) => skipped(domain.to_string(), format!("{error:#}")),
    }
}

async fn of_gateway(socket: &Path, name: Option<&DomainName>) -> anyhow::Result<OutboundReport> {
    let request = ControlRequest::Outbound { name: name.map(ToString::to_string) };
    let mut response = control::request(socket, &request).await?;
    let mut line = String::new();
    let read = response.read_to_string(&mut line).await;
    read.context("the gateway closed the connection")?;
    serde_json::from_str(&line).context(control_client::UNREADABLE)
}

/// The report of a whole log, as a gateway that followed it would give it.
fn of_log(file: &Path, name: Option<&DomainName>) -> anyhow::Result<OutboundReport> {
    let unreadable = |error| unreadable(file, &error);
    let mut input: Box<dyn Read> = match file.as_os_str().as_encoded_bytes() {
        b"-" => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).map_err(unreadable)?),
    };
    let now = Timestamp::from_system_time(SystemTime::now());
    let mut parser = MailLogParser::new(LogZone::system(), now);
    let mut hosts = Hosts::new(SteeringSettings::default());
    let (mut events, mut latest) = (Vec::new(), None);
    let mut buffer = vec![0; READ];
    loop {
        let length = input.read(&mut buffer).map_err(unreadable)?;
        match length {
            0 => parser.finish(&mut events),
            _ => parser.on_bytes(&buffer[..length], &mut events),
        }
        for event in events.drain(..) {
            if let MailLogEvent::Attempt(attempt) = event {
                latest = latest.max(Some(attempt.at));
                hosts.add(&attempt);
            }
        }
        if length == 0 {
            break;
        }
    }
    let counts = parser.counts();
    if counts.not_understood > 0 {
        let lines = counted(counts.not_understood, "line");
        note(&format!("{lines} of smtp(8) not understood; please report one of them"));
    }
    Ok(hosts.report(name, latest.unwrap_or(now)))
}

/// Why the log cannot be read, and the remedy.
fn unreadable(file: &Path, error: &io::Error) -> anyhow::Error {
    let remedy = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; run this with sudo, or as a member of the group that may read it (on Debian: adm)"
        }
        ErrorKind::NotFound => "; name Postfix's log file, or - for lines from standard input",
        _ => "",
    };
    anyhow!("cannot read {}: {error}{remedy}", file.display())
}

/// Serves a request of this command in a running gateway.
pub(in crate::app) async fn serve(
    evidence: Option<&OutboundEvidence>,
    name: Option<String>,
    mut connection: ControlConnection,
) {
    let missing = "its configuration has no [outbound], so it knows nothing of our own mail";
    let answer = match (evidence, name.as_deref().map(DomainName::parse)) {
        (None, _) => Err(missing.to_owned()),
        (Some(_), Some(None)) => Err("this is no domain".to_owned()),
        (Some(evidence), None) => Ok(evidence.report(None)),
        (Some(evidence), Some(Some(name))) => Ok(evidence.report(Some(&name))),
    };
    let _closed = connection.answer(answer).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_cannot_be_read_is_reported_with_a_remedy() {
        let report = |kind| {
            let error = io::Error::from(kind);
            unreadable(Path::new("/var/log/mail.log"), &error).to_string()
        };
        let denied = report(ErrorKind::PermissionDenied);
        assert!(denied.starts_with("cannot read /var/log/mail.log: "), "{denied}");
        assert!(denied.contains("sudo") && denied.contains("adm"), "{denied}");
        assert!(report(ErrorKind::NotFound).contains("name Postfix's log file"));
        assert!(!report(ErrorKind::Other).contains("sudo"));
    }
}
