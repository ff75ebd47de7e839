//! To whom `watch` tells what: lines of JSON, lines for people and a summary, or the view that the main thread draws.

use std::io::{self, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;

use super::copy::Copy;
use super::watcher::Listener;
use crate::analyzer::FinishedSession;
use crate::app::print::WRITING;
use crate::app::reading::Reading;
use crate::report::replay::{
    NumberedSession, ReplayReport, json_damage, json_evidence, json_fallback, json_session,
};
use crate::report::watch::{
    CaptureLosses, CaptureSource, PendingConnections, SessionTable, WatchView, json_losses, summary,
};
use crate::source::CaptureLoss;
use crate::source::live::LiveError;
use crate::traffic::fallback::Fallback;
use crate::wire::Packet;

/// The view that the watching thread keeps and the main thread draws.
#[derive(Clone, Default)]
pub(super) struct Board(Arc<Mutex<WatchView>>);

impl Board {
    pub(super) fn lock(&self) -> MutexGuard<'_, WatchView> {
        // A view is whole between any two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Form {
    Json,
    Lines {
        lines: SessionTable,
        report: Box<ReplayReport>,
        colour: bool,
    },
    /// Somebody else draws the board.
    View,
}

pub(super) struct Telling {
    form: Form,
    /// Where `replay` has the file: the interfaces' names, with commas between them.
    place: String,
    pub(super) board: Board,
    began: Instant,
    /// Sessions that are still wanted.
    wanted: Option<u64>,
    copy: Option<Copy>,
    desyncs: u64,
}

impl Telling {
    pub(super) fn new(
        form: Form,
        post: CaptureSource,
        wanted: Option<u64>,
        copy: Option<Copy>,
    ) -> Self {
        let board = Board::default();
        let place = post.interfaces.join(",");
        board.lock().capture = post;
        Self { form, place, board, began: Instant::now(), wanted, copy, desyncs: 0 }
    }

    /// Before anything is told.
    pub(super) fn begin(&self) -> anyhow::Result<()> {
        match &self.form {
            Form::Lines { lines, .. } => lines.write_header(&mut stdout()).context(WRITING),
            Form::Json | Form::View => Ok(()),
        }
    }

    /// After everything was told.
    pub(super) fn end(&mut self, reading: &Reading) -> anyhow::Result<()> {
        if let Some(copy) = self.copy.take() {
            copy.finish()?;
        }
        let view = self.board.lock();
        match &self.form {
            Form::Json => {
                say(&json_evidence(&reading.traffic().evidence()))?;
                say(&json_losses(&view.losses))
            }
            Form::Lines { report, colour, .. } => {
                let mut text = b"\n".to_vec();
                summary(&view, report, *colour, &mut text).context(WRITING)?;
                write(&text)
            }
            Form::View => Ok(()),
        }
    }
}

impl Listener for Telling {
    fn packet(&mut self, packet: &Packet<'_>) -> anyhow::Result<()> {
        match &mut self.copy {
            Some(copy) => copy.packet(packet),
            None => Ok(()),
        }
    }

    fn session(&mut self, session: &FinishedSession) -> anyhow::Result<()> {
        let told = NumberedSession {
            file: &self.place,
            number: session.number,
            record: &session.record,
            policy_applied: false,
            unknown_facts: &[],
        };
        self.desyncs = self.desyncs.saturating_add(session.record.smtp.desyncs);
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(1));
        match &mut self.form {
            Form::Json => say(&json_session(&told)),
            Form::Lines { lines, report, .. } => {
                report.add_session(&told);
                let mut line = Vec::new();
                lines.write_session(&told, &mut line).context(WRITING)?;
                write(&line)
            }
            Form::View => {
                self.board.lock().latest.push(&told);
                Ok(())
            }
        }
    }

    fn fall_back(&mut self, pair: &Fallback) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Json => say(&json_fallback(pair)),
            Form::Lines { report, .. } => {
                report.add_fallback(pair);
                Ok(())
            }
            Form::View => Ok(()),
        }
    }

    fn look(&mut self, reading: &Reading, lost: CaptureLoss) -> anyhow::Result<()> {
        if let Some(copy) = &mut self.copy {
            copy.flush()?;
        }
        let mut view = self.board.lock();
        view.uptime = self.began.elapsed();
        view.losses = losses(reading, lost, self.desyncs);
        let analyst = reading.analyst();
        view.open = analyst.open_sessions().iter().sum::<usize>() as u64;
        let now = reading.traffic().now();
        view.pending = analyst.opening().map(|opening| PendingConnections {
            count: opening.flows as u64,
            oldest: opening.since.map(|since| now.since(since)).unwrap_or_default(),
        });
        view.set_traffic(reading.traffic());
        Ok(())
    }

    fn trouble(&mut self, what: &LiveError) -> anyhow::Result<()> {
        let message = what.to_string();
        match &mut self.form {
            Form::Json => say(&json_damage(&self.place, &message)),
            Form::Lines { report, .. } => {
                report.add_damage(&message);
                super::say(&message);
                Ok(())
            }
            Form::View => {
                self.board.lock().troubles.push(message);
                Ok(())
            }
        }
    }

    fn is_content(&self) -> bool {
        self.wanted == Some(0)
    }
}

fn losses(reading: &Reading, lost: CaptureLoss, desyncs: u64) -> CaptureLosses {
    let counts = reading.analyst().stream_counts();
    CaptureLosses {
        openings: lost.syns,
        packets: lost.packets,
        not_captured: counts.bytes_not_captured,
        cut: counts.bytes_cut,
        given_up: counts.bytes_given_up,
        unfinished: counts.bytes_unfinished,
        desyncs,
    }
}

fn say(line: &str) -> anyhow::Result<()> {
    write(line.as_bytes())
}

/// At once: whoever reads it waits for it.
fn write(octets: &[u8]) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    io::Write::write_all(&mut out, octets)
        .and_then(|()| io::Write::flush(&mut out))
        .context(WRITING)
}
