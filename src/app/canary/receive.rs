//! `gatepost canary receive`: a pipe transport, the command of an alias, or the watch of a Maildir.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::bail;
use tokio::time::sleep;

use crate::app::output::note;
use crate::app::signals::Shutdown;
use crate::app::{block_on, control_client};
use crate::canary::{CanaryReport, CanaryToken, MarkRules};
use crate::canary_reports::ReportDirectory;
use crate::cli::CanaryReceiveArgs;
use crate::config::Config;
use crate::control::{self, ControlRequest};
use crate::dkim::{HeaderProgress, HeaderSection};
use crate::hmac_key::HmacKey;
use crate::lookup::vantage::SharedKey;
use crate::time::Timestamp;

/// Of sysexits.h, as mail servers read them.
const EX_NOUSER: u8 = 67;
const EX_TEMPFAIL: u8 = 75;
/// Limit of a header section, in bytes.
const MAX_HEADER: usize = 256 * 1024;
/// Interval of looks at a Maildir.
const POLL: Duration = Duration::from_secs(1);

pub(super) fn receive(args: CanaryReceiveArgs) -> anyhow::Result<ExitCode> {
    if args.maildirs.is_empty() {
        // A mail server that cannot write all of the message takes that for a failure of its own.
        let header = read_header(io::stdin().lock());
        return Ok(
            match header.map_err(Into::into).and_then(|header| receive_one(args, &header)) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => ExitCode::from(EX_NOUSER),
                Err(error) => {
                    note(&format!("{error:#}"));
                    ExitCode::from(EX_TEMPFAIL)
                }
            },
        );
    }
    let maildirs = args.maildirs.iter().map(|folder| (folder.clone(), false));
    let junk = args.junk.iter().map(|folder| (folder.clone(), true));
    let folders = maildirs.chain(junk).collect::<Vec<_>>();
    for (folder, _) in &folders {
        if !folder.join("new").is_dir() {
            bail!("{} is no Maildir: it has no folder `new`", folder.display());
        }
    }
    let mailbox = Mailbox::new(args)?;
    block_on(mailbox.watch(folders))
}

/// Whether the message is a canary; then its report is stored.
fn receive_one(args: CanaryReceiveArgs, header: &HeaderSection) -> anyhow::Result<bool> {
    let mailbox = Mailbox::new(args)?;
    Ok(match block_on(mailbox.on_message(header, false))? {
        Received::Canary => true,
        Received::Other(reason) => {
            // Mail servers put it into the message that they return.
            note(&format!(
                "{} takes canaries only, and this message is none: {reason}",
                mailbox.to
            ));
            false
        }
    })
}

enum Received {
    Canary,
    /// No canary, for this reason.
    Other(String),
}

struct Mailbox {
    key: HmacKey,
    to: String,
    rules: MarkRules,
    sink: ReportSink,
}

/// Where reports go.
enum ReportSink {
    Directory(ReportDirectory),
    /// The control socket of a running gateway.
    Gateway(PathBuf),
}

impl ReportSink {
    async fn store(&self, token: &CanaryToken, report: CanaryReport) -> anyhow::Result<()> {
        match self {
            Self::Directory(reports) => Ok(reports.store(token, &report)?),
            Self::Gateway(socket) => {
                control::request(socket, &ControlRequest::Canary(report)).await?;
                Ok(())
            }
        }
    }
}

impl Mailbox {
    fn new(args: CanaryReceiveArgs) -> anyhow::Result<Self> {
        let key = SharedKey::read(&args.key)?.hmac().clone();
        let mut marks = args.marks;
        let sink = match (args.reports, args.config) {
            (Some(directory), _) => ReportSink::Directory(ReportDirectory::new(directory)),
            (None, Some(config)) => {
                let config = Config::load(&config)?;
                marks.extend(config.canary.into_iter().flat_map(|canary| canary.marks));
                ReportSink::Gateway(config.control.socket)
            }
            (None, None) => ReportSink::Gateway(control_client::socket(args.socket, None)?),
        };
        Ok(Self { key, to: args.to, rules: MarkRules::new(marks), sink })
    }

    async fn on_message(&self, header: &HeaderSection, is_junk: bool) -> anyhow::Result<Received> {
        let now = Timestamp::from_system_time(SystemTime::now());
        let report = CanaryReport::of(header.fields(), &self.to, &self.key, &self.rules, now);
        let (token, mut report) = match report {
            Ok(report) => report,
            Err(reason) => return Ok(Received::Other(reason.to_string())),
        };
        if is_junk {
            report.judgement.add_junk_folder();
        }
        self.sink.store(&token, report).await?;
        Ok(Received::Canary)
    }

    /// Reports what the folders have, and what arrives, until a signal comes.
    async fn watch(self, folders: Vec<(PathBuf, bool)>) -> anyhow::Result<ExitCode> {
        let mut shutdown = Shutdown::new(None)?;
        let mut known = BTreeSet::new();
        note(&format!("watching for canaries to {}", self.to));
        loop {
            for (folder, is_junk) in &folders {
                for part in ["new", "cur"] {
                    self.look(&folder.join(part), *is_junk, &mut known).await;
                }
            }
            tokio::select! {
                () = sleep(POLL) => {}
                _ = shutdown.requested() => return Ok(ExitCode::SUCCESS),
            }
        }
    }

    /// A message keeps the first part of its name when it moves from `new` to `cur`.
    async fn look(&self, folder: &Path, is_junk: bool, known: &mut BTreeSet<OsString>) {
        let Ok(entries) = std::fs::read_dir(folder) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let unique = name.to_string_lossy().split(':').next().unwrap_or_default().to_owned();
            if known.contains(&OsString::from(&unique)) {
                continue;
            }
            // It may have moved since.
            let Ok(file) = File::open(entry.path()) else { continue };
            let Ok(header) = read_header(file) else { continue };
            match self.on_message(&header, is_junk).await {
                Ok(_) => drop(known.insert(unique.into())),
                // Tried again at the next look.
                Err(error) => note(&format!("{error:#}")),
            }
        }
    }
}

/// Reads all of a message and returns its header section, or as much of it as the limit allows.
fn read_header(mut message: impl Read) -> io::Result<HeaderSection> {
    let mut section = HeaderSection::new(MAX_HEADER);
    let mut buffer = [0; 8192];
    let mut progress = HeaderProgress::Incomplete;
    loop {
        let count = match message.read(&mut buffer) {
            Ok(0) => return Ok(section),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if progress == HeaderProgress::Incomplete {
            progress = section.write(buffer.get(..count).unwrap_or_default());
        }
    }
}
