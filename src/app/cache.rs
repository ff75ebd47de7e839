//! `gatepost cache show|purge`: cached lookup results.
//!
//! A running gateway answers over its control socket. While none runs, the commands use the file of `[lookup] cache_file`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;

use super::control_client::UNREADABLE;
use super::output::{note, print};
use crate::cli::{CacheArgs, CacheCommand, OutputFormat};
use crate::config::Config;
use crate::control::{
    self, CacheRequest, ControlConnection, ControlError, ControlRequest, ControlResponse,
};
use crate::humanize::short_duration;
use crate::lookup::{self, CacheEntry, CacheRow, LookupService, subject};
use crate::report::columns::{WIDTH, cells};
use crate::report::printable;
use crate::time::Timestamp;

/// Widths of the table's columns, with a space between two.
const WIDTHS: [usize; 6] = [14, 39, 22, 8, 6, 6];
const _: () = {
    let [a, b, c, d, e, f] = WIDTHS;
    assert!(a + b + c + d + e + f + WIDTHS.len() - 1 <= WIDTH, "the table is too wide");
};

/// Serves a request of this command in a running gateway.
pub(super) async fn serve(
    lookup: Option<&LookupService>,
    request: CacheRequest,
    connection: &mut ControlConnection,
) {
    let Some(service) = lookup else {
        let reason = String::from("lookups are disabled in this gateway; its log has the reason");
        let _closed = connection.respond(&ControlResponse::Error(reason)).await;
        return;
    };
    let lines = match request {
        CacheRequest::Show { pattern } => {
            let is_wanted = |lookup: &_| lookup::matches_pattern(pattern.as_deref(), lookup);
            let rows = service.entries(is_wanted).into_iter();
            let rows =
                rows.map(|(lookup, entry)| CacheRow { lookup, entry: CacheEntry::clone(&entry) });
            rows.filter_map(|row| serde_json::to_string(&row).ok()).collect::<Vec<_>>()
        }
        CacheRequest::Purge { pattern } => {
            let is_wanted = |lookup: &_| lookup::matches_pattern(pattern.as_deref(), lookup);
            vec![service.purge(is_wanted).await.to_string()]
        }
    };
    if connection.respond(&ControlResponse::Ok).await.is_ok() {
        for line in lines {
            if connection.send(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

pub(super) async fn cache(command: CacheCommand) -> anyhow::Result<ExitCode> {
    match command {
        CacheCommand::Show { args, format } => show(args, format).await,
        CacheCommand::Purge { args } => purge(args).await,
    }
}

async fn show(args: CacheArgs, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let pattern = args.pattern.clone();
    let rows = match request(&args, CacheRequest::Show { pattern }).await? {
        CacheSource::Gateway(response) => response
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<CacheRow>, _>>()
            .context(UNREADABLE)?,
        CacheSource::File(file) => {
            let mut entries = lookup::read_disk_cache(&file)?;
            entries.retain(|(lookup, _)| lookup::matches_pattern(args.pattern.as_deref(), lookup));
            entries.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
            entries.into_iter().map(|(lookup, entry)| CacheRow { lookup, entry }).collect()
        }
    };
    let lines = match format {
        OutputFormat::Json => {
            rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?
        }
        OutputFormat::Text => table(&rows, Timestamp::from_system_time(SystemTime::now())),
    };
    print(&lines.iter().fold(String::new(), |text, line| text + line + "\n"))?;
    Ok(ExitCode::SUCCESS)
}

async fn purge(args: CacheArgs) -> anyhow::Result<ExitCode> {
    let pattern = args.pattern.clone();
    let deleted = match request(&args, CacheRequest::Purge { pattern }).await? {
        CacheSource::Gateway(response) => response.trim().parse().context(UNREADABLE)?,
        CacheSource::File(file) => lookup::purge_disk_cache(&file, |lookup| {
            lookup::matches_pattern(args.pattern.as_deref(), lookup)
        })?,
    };
    let answers = if deleted == 1 { "answer" } else { "answers" };
    print(&format!("{deleted} {answers} deleted\n"))?;
    Ok(ExitCode::SUCCESS)
}

enum CacheSource {
    /// The response of a running gateway.
    Gateway(String),
    /// No gateway runs; its cache file.
    File(PathBuf),
}

async fn request(args: &CacheArgs, request: CacheRequest) -> anyhow::Result<CacheSource> {
    let config = args.config.as_deref().map(Config::load).transpose()?;
    let (socket, file) = match config {
        Some(config) => (config.control.socket, config.lookup.cache_file),
        None => (PathBuf::from(control::DEFAULT_SOCKET), None),
    };
    let socket = args.socket.as_ref().unwrap_or(&socket);
    let mut stream = match control::request(socket, &ControlRequest::Cache(request)).await {
        Ok(stream) => stream,
        Err(error @ ControlError::Connect { .. }) => {
            let Some(file) = file else {
                bail!(
                    "{error}; without a running gateway, pass --config with the file that has `[lookup] cache_file`"
                );
            };
            note(&format!("no gateway is running; reading {}", file.display()));
            return Ok(CacheSource::File(file));
        }
        Err(error) => return Err(error.into()),
    };
    let mut response = String::new();
    stream.read_to_string(&mut response).await.map_err(ControlError::Lost)?;
    Ok(CacheSource::Gateway(response))
}

/// One line an answer, with its age and its remaining lifetime.
fn table(rows: &[CacheRow], now: Timestamp) -> Vec<String> {
    if rows.is_empty() {
        return vec![String::from("the cache is empty")];
    }
    let head = ["KIND", "SUBJECT", "ANSWER", "SOURCE", "AGE", "TTL"].map(String::from);
    let body = rows.iter().map(|row| {
        let age = row.entry.result.at.map(|at| short_duration(now - at));
        [
            row.lookup.kind().as_str().to_owned(),
            printable(&subject(&row.lookup)),
            printable(&row.answer()),
            row.entry.result.source.as_str().to_owned(),
            age.unwrap_or_else(|| String::from("-")),
            short_duration(row.entry.expires_at - now),
        ]
    });
    let lines = std::iter::once(head).chain(body).map(|texts| cells(&texts, WIDTHS));
    lines.map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::facts::{
        Answer as Known, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source,
    };

    #[test]
    fn every_row_fits_its_columns() {
        let now = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let ip = "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap();
        let long = "a-rather-long-name.of-some-host.in-some-department.example";
        let host = DomainName::parse(long).unwrap();
        let exchange = DnsRecord::Exchange { preference: 10, host: host.clone() };
        let no = |reason| Known::No(reason, Some(String::from("550 5.1.1")));
        let rows = [
            (Lookup::MailExchanges(host), Known::Records(vec![exchange; 3]), 30, 90_000),
            (Lookup::Greet(ip), Known::Yes(None), 3 * 3600, 400),
            (Lookup::Callout(ip, format!("joe\u{1b}[2J@{long}")), no(Reason::NoSuchMailbox), 0, 5),
            (Lookup::Recipient(String::from("b@b.example")), Known::Yes(None), 100, 3000),
            (Lookup::Reverse(ip), Known::NxDomain, 86_400 * 400, 86_400 * 400),
            (Lookup::Connect([192, 0, 2, 1].into()), Known::Unknown(Reason::Unreachable), 1, 29),
        ];
        let rows = rows.map(|(lookup, answer, age, left)| {
            let at = Timestamp::from_nanos(now.as_nanos() - age * 1_000_000_000);
            let until = now + Duration::from_secs(left);
            let answered = LookupResult { answer, source: Source::Upstream, at: Some(at) };
            CacheRow {
                lookup,
                entry: CacheEntry { result: answered, expires_at: until, refresh_at: until },
            }
        });
        let table = table(&rows, now);
        assert!(table.iter().all(|line| line.chars().count() <= WIDTH), "{table:#?}");
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_row_is_one_json_object() {
        let until = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let answered =
            LookupResult { answer: Known::Yes(None), source: Source::Probe, at: Some(until) };
        let entry = CacheEntry { result: answered, expires_at: until, refresh_at: until };
        let row = CacheRow { lookup: Lookup::Greet("2001:db8::25".parse().unwrap()), entry };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(
            json,
            r#"{"lookup":{"greet":"2001:db8::25"},"answer":{"yes":null},"source":"probe","at":"2026-01-02T03:04:05.000000Z","until":"2026-01-02T03:04:05.000000Z","renew":"2026-01-02T03:04:05.000000Z"}"#
        );
        assert_eq!(serde_json::from_str::<CacheRow>(&json).unwrap(), row);
    }
}
