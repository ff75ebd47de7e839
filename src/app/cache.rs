//! `gatepost cache show|purge`: what a gateway has learnt.
//!
//! A running gateway is asked by its control socket; while none runs, the file of `[lookup] cache_file` is read.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;

use super::print::print;
use crate::cli::{CacheArgs, CacheCommand, OutputFormat};
use crate::config::Config;
use crate::control::{
    self, CacheRequest, ControlConnection, ControlError, ControlRequest, ControlResponse,
};
use crate::lookup::{self, CacheRow, LookupService, subject};
use crate::report::columns::{WIDTH, cells};
use crate::time::Timestamp;

/// Columns of the table, a space between two.
const WIDTHS: [usize; 6] = [14, 39, 22, 8, 6, 6];
const _: () = {
    let [a, b, c, d, e, f] = WIDTHS;
    assert!(a + b + c + d + e + f + WIDTHS.len() - 1 <= WIDTH, "the table is too wide");
};

/// Answers a request of this command.
pub(super) async fn serve(
    reach: Option<&LookupService>,
    request: CacheRequest,
    to: &mut ControlConnection,
) {
    let Some(reach) = reach else {
        let why = String::from("this gateway looks nothing up; its log says why");
        let _gone_already = to.respond(&ControlResponse::Error(why)).await;
        return;
    };
    let lines = match request {
        CacheRequest::Show { pattern } => {
            let kept = reach.entries(|lookup| lookup::matches_pattern(pattern.as_deref(), lookup));
            let rows = kept.into_iter().map(|(lookup, entry)| CacheRow {
                lookup,
                entry: lookup::CacheEntry::clone(&entry),
            });
            rows.filter_map(|row| serde_json::to_string(&row).ok()).collect::<Vec<_>>()
        }
        CacheRequest::Purge { pattern } => {
            let gone =
                reach.purge(|lookup| lookup::matches_pattern(pattern.as_deref(), lookup)).await;
            vec![gone.to_string()]
        }
    };
    if to.respond(&ControlResponse::Ok).await.is_ok() {
        for line in lines {
            if to.send(format!("{line}\n").as_bytes()).await.is_err() {
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
    let place = Place::of(&args)?;
    let pattern = args.pattern.clone();
    let rows = match place.ask(CacheRequest::Show { pattern }).await? {
        Told::Gateway(text) => text
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<Vec<CacheRow>, _>>()
            .context("the gateway's answer cannot be read: is it of this version?")?,
        Told::Nobody(file) => {
            let mut kept = lookup::read_disk_cache(&file)?;
            kept.retain(|(lookup, _)| lookup::matches_pattern(args.pattern.as_deref(), lookup));
            kept.sort_by_key(|(_, entry)| std::cmp::Reverse(entry.expires_at));
            kept.into_iter().map(|(lookup, entry)| CacheRow { lookup, entry }).collect()
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
    let place = Place::of(&args)?;
    let pattern = args.pattern.clone();
    let gone = match place.ask(CacheRequest::Purge { pattern }).await? {
        Told::Gateway(text) => text
            .trim()
            .parse()
            .context("the gateway's answer cannot be read: is it of this version?")?,
        Told::Nobody(file) => lookup::purge_disk_cache(&file, |lookup| {
            lookup::matches_pattern(args.pattern.as_deref(), lookup)
        })?,
    };
    let what = if gone == 1 { "answer" } else { "answers" };
    print(&format!("{gone} {what} forgotten\n"))?;
    Ok(ExitCode::SUCCESS)
}

/// Where a gateway keeps what it learns.
struct Place {
    socket: PathBuf,
    file: Option<PathBuf>,
}

enum Told {
    Gateway(String),
    /// No gateway runs; the file that it left.
    Nobody(PathBuf),
}

impl Place {
    fn of(args: &CacheArgs) -> anyhow::Result<Self> {
        let config = args.config.as_deref().map(Config::load).transpose()?;
        let (socket, file) = match config {
            Some(config) => (config.control.socket, config.lookup.cache_file),
            None => (PathBuf::from(control::DEFAULT_SOCKET), None),
        };
        Ok(Self { socket: args.socket.clone().unwrap_or(socket), file })
    }

    async fn ask(&self, request: CacheRequest) -> anyhow::Result<Told> {
        let mut stream = match control::request(&self.socket, &ControlRequest::Cache(request)).await
        {
            Ok(stream) => stream,
            Err(error @ ControlError::Connect { .. }) => match &self.file {
                Some(file) => {
                    let note = format!("no gateway runs; taken from {}", file.display());
                    let _nobody_listens = writeln!(io::stderr(), "gatepost: {note}");
                    return Ok(Told::Nobody(file.clone()));
                }
                None => bail!(
                    "{error}; while none runs, --config names the file that has `[lookup] cache_file`"
                ),
            },
            Err(error) => return Err(error.into()),
        };
        let mut text = String::new();
        stream.read_to_string(&mut text).await.map_err(ControlError::Lost)?;
        Ok(Told::Gateway(text))
    }
}

/// A line an answer, with how long ago it was given and how long it is good.
fn table(rows: &[CacheRow], now: Timestamp) -> Vec<String> {
    if rows.is_empty() {
        return vec![String::from("nothing is kept")];
    }
    let head = ["KIND", "ABOUT", "ANSWER", "SOURCE", "AGE", "LEFT"].map(String::from);
    let body = rows.iter().map(|row| {
        let age = row.entry.answered.at.map_or_else(|| String::from("-"), |at| brief(now, at));
        [
            row.lookup.kind().as_str().to_owned(),
            printable(&subject(&row.lookup)),
            printable(&row.answer()),
            row.entry.answered.source.as_str().to_owned(),
            age,
            brief(row.entry.expires_at, now),
        ]
    });
    let lines = std::iter::once(head).chain(body).map(|texts| cells(&texts, WIDTHS));
    lines.map(|line| line.trim_end().to_owned()).collect()
}

/// What strangers said, on a terminal.
fn printable(text: &str) -> String {
    text.chars().flat_map(char::escape_debug).collect()
}

/// How long `later` is after `earlier`, in six columns.
fn brief(later: Timestamp, earlier: Timestamp) -> String {
    let seconds = (later - earlier).as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::facts::{
        Answer as Known, DnsRecord, DomainName, Lookup, LookupResult, Reason, Source,
    };

    #[test]
    fn the_table_fits_whatever_is_kept() {
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
                entry: lookup::CacheEntry { answered, expires_at: until, refresh_at: until },
            }
        });
        let table = table(&rows, now);
        assert!(table.iter().all(|line| line.chars().count() <= WIDTH), "{table:#?}");
        insta::assert_snapshot!(table.join("\n"));
    }

    #[test]
    fn a_row_is_one_object() {
        let until = Timestamp::from_nanos(1_767_323_045_000_000_000);
        let answered =
            LookupResult { answer: Known::Yes(None), source: Source::Probe, at: Some(until) };
        let entry = lookup::CacheEntry { answered, expires_at: until, refresh_at: until };
        let row = CacheRow { lookup: Lookup::Greet("2001:db8::25".parse().unwrap()), entry };
        let json = serde_json::to_string(&row).unwrap();
        assert_eq!(
            json,
            r#"{"lookup":{"greet":"2001:db8::25"},"answer":{"yes":null},"source":"probe","at":"2026-01-02T03:04:05.000000Z","until":"2026-01-02T03:04:05.000000Z","renew":"2026-01-02T03:04:05.000000Z"}"#
        );
        assert_eq!(serde_json::from_str::<CacheRow>(&json).unwrap(), row);
    }
}
