//! `gatepost outbound [HOST|DOMAIN]`, and its answer in a running gateway.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;

use super::OutboundEvidence;
use crate::app::control_client;
use crate::app::output::{note, print};
use crate::cli::{OutboundArgs, OutputFormat};
use crate::control::{self, ControlConnection, ControlRequest};
use crate::humanize::counted;
use crate::outbound::{Hosts, OutboundReport, SteeringSettings};
use crate::policy::facts::DomainName;
use crate::postfix::mail_log::{LogZone, MailLogEvent, MailLogParser};
use crate::report;
use crate::time::Timestamp;

/// Bytes of a read.
const READ: usize = 256 * 1024;

pub(in crate::app) async fn outbound(args: OutboundArgs) -> anyhow::Result<ExitCode> {
    let name = args.name.as_ref();
    let report = match &args.mail_log {
        Some(file) => of_log(file, name)?,
        None => {
            let socket = control_client::socket(args.socket, args.config.as_deref())?;
            of_gateway(&socket, name).await?
        }
    };
    let text = match args.format {
        OutputFormat::Json => serde_json::to_string(&report)?,
        OutputFormat::Text => report::outbound::outbound(&report, name),
    };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
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
    let context = || format!("cannot read {}", file.display());
    let mut input: Box<dyn Read> = match file.as_os_str().as_encoded_bytes() {
        b"-" => Box::new(io::stdin().lock()),
        _ => Box::new(File::open(file).with_context(context)?),
    };
    let now = Timestamp::from_system_time(SystemTime::now());
    let mut parser = MailLogParser::new(LogZone::system(), now);
    let mut hosts = Hosts::new(SteeringSettings::default());
    let (mut events, mut latest) = (Vec::new(), None);
    let mut buffer = vec![0; READ];
    loop {
        let length = input.read(&mut buffer).with_context(context)?;
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
