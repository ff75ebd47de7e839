//! `gatepost record -w FILE`.

mod pcapng_sink;

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::io::AsyncReadExt as _;

use self::pcapng_sink::RecordingWriter;
use super::control_client;
use super::output::{cannot_write, create, note};
use super::signals::Shutdown;
use crate::cli::RecordArgs;
use crate::control::{self, ControlRequest};
use crate::recording::{FrameDecoder, RecordingFilter};
use crate::redact::{RedactionKey, Redactor};

/// Bytes read from the gateway at once.
const READ: usize = 256 * 1024;

pub(super) async fn record(args: RecordArgs) -> anyhow::Result<ExitCode> {
    let socket = control_client::socket(args.socket.clone(), args.config.as_deref())?;
    let redactor = match args.redact {
        true => Some(Redactor::new(&key(args.redact_key.as_deref())?)),
        false => None,
    };
    let RecordArgs { family, client, content, .. } = args;
    let filter = RecordingFilter { family, client, content };
    let mut stream = control::request(&socket, &ControlRequest::Record(filter)).await?;
    // After the connection: without a gateway, no empty file is created.
    let writer = RecordingWriter::new(open(&args)?, args.count);
    let mut writer = writer.with_context(|| cannot_write(&args.write))?;
    note(&format!(
        "recording new sessions of {} to {}{}",
        socket.display(),
        args.write.display(),
        if args.redact { ", redacted" } else { "; mail and passwords are in it as they are" },
    ));

    let mut shutdown = Shutdown::new(args.duration)?;
    let mut input = FrameInput { frames: FrameDecoder::default(), redactor };
    let mut chunk = vec![0; READ];
    let reason = loop {
        let read = tokio::select! {
            reason = shutdown.requested() => break reason,
            read = stream.read(&mut chunk) => read,
        };
        let Ok(count @ 1..) = read else { break "the gateway stopped" };
        input.process(chunk.get(..count).unwrap_or_default(), &mut writer, &args.write)?;
        if writer.is_complete() {
            break "session count reached";
        }
    };
    let totals = writer.finish().with_context(|| cannot_write(&args.write))?;
    note(&format!("{reason}: {totals}"));
    Ok(ExitCode::SUCCESS)
}

/// Decodes and redacts frames on their way to the writer.
struct FrameInput {
    frames: FrameDecoder,
    redactor: Option<Redactor>,
}

impl FrameInput {
    fn process(
        &mut self,
        bytes: &[u8],
        writer: &mut RecordingWriter<Box<dyn Write>>,
        path: &Path,
    ) -> anyhow::Result<()> {
        self.frames.push(bytes);
        while let Some(frame) = self.frames.next_frame()? {
            let mut redacted = Vec::new();
            match &mut self.redactor {
                Some(redactor) => redactor.on_frame(frame, &mut |frame| redacted.push(frame)),
                None => redacted.push(frame),
            }
            for frame in redacted {
                writer.frame(frame).with_context(|| cannot_write(path))?;
            }
        }
        Ok(())
    }
}

/// The key in a file, or a random one that is discarded afterwards.
fn key(file: Option<&Path>) -> anyhow::Result<RedactionKey> {
    if let Some(path) = file {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read the key in {}", path.display()))?;
        return RedactionKey::from_hex(text.trim()).with_context(|| {
            format!(
                "{}: expected 64 hexadecimal digits whose halves differ, like the output of `openssl rand -hex 32`",
                path.display()
            )
        });
    }
    let mut bytes = [0; RedactionKey::LEN];
    let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes));
    read.context("cannot read a random key from /dev/urandom")?;
    RedactionKey::new(bytes).context("/dev/urandom returned a key without randomness; try again")
}

fn open(args: &RecordArgs) -> anyhow::Result<Box<dyn Write>> {
    if args.write.as_os_str() == "-" {
        return Ok(Box::new(io::stdout()));
    }
    Ok(Box::new(create(&args.write, args.force)?))
}
