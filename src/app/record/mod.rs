//! `gatepost record -w FILE`

mod scribe;

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use self::scribe::Scribe;
use super::output::{cannot_write, create};
use crate::cli::RecordArgs;
use crate::config::Config;
use crate::control::{self, ControlRequest};
use crate::recording::{FrameDecoder, RecordingFilter};
use crate::redact::{Key, Redactor};

/// Octets read from the gateway at once.
const READ: usize = 256 * 1024;
/// Longer than anybody records.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

pub(super) async fn record(wanted: RecordArgs) -> anyhow::Result<ExitCode> {
    let socket = match (&wanted.socket, &wanted.config) {
        (Some(socket), _) => socket.clone(),
        (None, Some(config)) => Config::load(config)?.control.socket,
        (None, None) => PathBuf::from(control::DEFAULT_SOCKET),
    };
    let redactor = match wanted.redact {
        true => Some(Redactor::new(&key(wanted.redact_key.as_deref())?)),
        false => None,
    };
    let RecordArgs { family, client, content, .. } = wanted;
    let selection = RecordingFilter { family, client, content };
    let mut stream = control::request(&socket, &ControlRequest::Record(selection)).await?;
    // Only now: without a gateway there shall be no empty file.
    let scribe = Scribe::new(open(&wanted)?, wanted.count);
    let mut scribe = scribe.with_context(|| cannot_write(&wanted.write))?;
    say(&format!(
        "recording sessions that begin from now on at {}, to {}{}",
        socket.display(),
        wanted.write.display(),
        if wanted.redact { ", redacted" } else { "" },
    ));

    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for signals")?;
    let mut over = Box::pin(sleep(wanted.duration.unwrap_or(FOR_EVER)));
    let mut input = Input { framing: FrameDecoder::default(), redactor };
    let mut chunk = vec![0; READ];
    let why = loop {
        let read = tokio::select! {
            _ = interrupt.recv() => break "interrupted",
            _ = terminate.recv() => break "terminated",
            () = &mut over => break "the time is over",
            read = stream.read(&mut chunk) => read,
        };
        let Ok(count @ 1..) = read else { break "the gateway ended" };
        input.take(chunk.get(..count).unwrap_or_default(), &mut scribe, &wanted.write)?;
        if scribe.is_complete() {
            break "as many sessions as wanted are whole";
        }
    };
    let tally = scribe.finish().with_context(|| cannot_write(&wanted.write))?;
    say(&format!("{why}: {tally}"));
    Ok(ExitCode::SUCCESS)
}

/// From the gateway's octets to what the scribe writes.
struct Input {
    framing: FrameDecoder,
    redactor: Option<Redactor>,
}

impl Input {
    fn take(
        &mut self,
        octets: &[u8],
        scribe: &mut Scribe<Box<dyn Write>>,
        path: &Path,
    ) -> anyhow::Result<()> {
        self.framing.push(octets);
        while let Some(frame) = self.framing.frame()? {
            let mut shown = Vec::new();
            match &mut self.redactor {
                Some(redactor) => redactor.frame(frame, &mut |frame| shown.push(frame)),
                None => shown.push(frame),
            }
            for frame in shown {
                scribe.frame(frame).with_context(|| cannot_write(path))?;
            }
        }
        Ok(())
    }
}

/// The key in a file, or one that nobody knows.
fn key(file: Option<&Path>) -> anyhow::Result<Key> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read the key in {}", path.display()))?;
        return Key::from_hex(text.trim()).with_context(|| {
            format!(
                "{}: expected 64 hexadecimal digits whose halves differ, such as `openssl rand -hex 32` prints",
                path.display()
            )
        });
    }
    let mut octets = [0; Key::OCTETS];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut octets));
    read.context("cannot read a random key from /dev/urandom")?;
    Key::new(octets).context("the random key is not random; try again")
}

fn open(wanted: &RecordArgs) -> anyhow::Result<Box<dyn Write>> {
    if wanted.write.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(create(&wanted.write, wanted.force)?))
}

/// On standard error: standard output may be the capture.
fn say(text: &str) {
    let _nobody_listens = writeln!(io::stderr(), "gatepost: {text}");
}
