//! The output of `watch`: JSON lines, text lines with a summary, or the view that the main thread draws.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::Context as _;

use super::capture::CaptureSink;
use super::copy::PacketCopy;
use super::lines::LineOutput;
use crate::analyzer::FinishedSession;
use crate::app::output::{WRITING, note};
use crate::app::pipeline::AnalysisPipeline;
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

/// Updated by the capture thread, drawn by the main thread.
#[derive(Clone, Default)]
pub(super) struct SharedView(Arc<Mutex<WatchView>>);

impl SharedView {
    pub(super) fn lock(&self) -> MutexGuard<'_, WatchView> {
        // A view is consistent between any two changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum WatchOutput {
    Json(LineOutput),
    Lines {
        lines: LineOutput,
        table: SessionTable,
        report: Box<ReplayReport>,
        colour: bool,
    },
    /// The main thread draws [`SharedView`].
    View,
}

pub(super) struct WatchReporter {
    output: WatchOutput,
    /// In place of a file's name: the interfaces' names, separated by commas.
    place: String,
    pub(super) view: SharedView,
    start: Instant,
    /// Sessions left of `--count`.
    wanted: Option<u64>,
    copy: Option<PacketCopy>,
    desyncs: u64,
}

impl WatchReporter {
    pub(super) fn new(
        output: WatchOutput,
        source: CaptureSource,
        wanted: Option<u64>,
        copy: Option<PacketCopy>,
    ) -> Self {
        let view = SharedView::default();
        let place = source.interfaces.join(",");
        view.lock().capture = source;
        Self { output, place, view, start: Instant::now(), wanted, copy, desyncs: 0 }
    }

    pub(super) fn begin(&mut self) -> anyhow::Result<()> {
        match &mut self.output {
            WatchOutput::Lines { lines, table, .. } => {
                lines.push(text(|out| table.write_header(out))?)
            }
            WatchOutput::Json(_) | WatchOutput::View => Ok(()),
        }
    }

    /// Lines left out so far, because the reader of standard output was too slow.
    const fn dropped_lines(&self) -> u64 {
        match &self.output {
            WatchOutput::Json(lines) | WatchOutput::Lines { lines, .. } => lines.dropped(),
            WatchOutput::View => 0,
        }
    }

    /// Writes the summary and completes the copy.
    pub(super) fn end(&mut self, pipeline: &AnalysisPipeline) -> anyhow::Result<()> {
        if let Some(copy) = self.copy.take() {
            copy.finish()?;
        }
        let view = self.view.lock();
        match &mut self.output {
            WatchOutput::Json(lines) => {
                let evidence = json_evidence(&pipeline.traffic().evidence());
                lines.finish(&(evidence + &json_losses(&view.losses)))
            }
            WatchOutput::Lines { lines, report, colour, .. } => {
                let summary = text(|out| summary(&view, report, *colour, out))?;
                lines.finish(&format!("\n{summary}"))
            }
            WatchOutput::View => Ok(()),
        }
    }
}

impl CaptureSink for WatchReporter {
    fn on_packet(&mut self, packet: &Packet<'_>) -> anyhow::Result<()> {
        match &mut self.copy {
            Some(copy) => copy.packet(packet),
            None => Ok(()),
        }
    }

    fn on_session(&mut self, session: &FinishedSession) -> anyhow::Result<()> {
        let numbered = NumberedSession {
            file: &self.place,
            number: session.number,
            record: &session.record,
            policy_applied: false,
            unknown_facts: &[],
        };
        self.desyncs = self.desyncs.saturating_add(session.record.smtp.desyncs);
        self.wanted = self.wanted.map(|wanted| wanted.saturating_sub(1));
        match &mut self.output {
            WatchOutput::Json(lines) => lines.push(json_session(&numbered)),
            WatchOutput::Lines { lines, table, report, .. } => {
                report.add_session(&numbered);
                lines.push(text(|out| table.write_session(&numbered, out))?)
            }
            WatchOutput::View => {
                self.view.lock().latest.push(&numbered);
                Ok(())
            }
        }
    }

    fn on_fallback(&mut self, fallback: &Fallback) -> anyhow::Result<()> {
        match &mut self.output {
            WatchOutput::Json(lines) => return lines.push(json_fallback(fallback)),
            WatchOutput::Lines { report, .. } => report.add_fallback(fallback),
            WatchOutput::View => {}
        }
        Ok(())
    }

    fn on_tick(&mut self, pipeline: &AnalysisPipeline, loss: CaptureLoss) -> anyhow::Result<()> {
        if let Some(copy) = &mut self.copy {
            copy.flush()?;
        }
        if let WatchOutput::Json(lines) | WatchOutput::Lines { lines, .. } = &self.output {
            lines.check()?;
        }
        let dropped = self.dropped_lines();
        let mut view = self.view.lock();
        view.uptime = self.start.elapsed();
        view.losses = losses(pipeline, loss, self.desyncs, dropped);
        let analyzer = pipeline.analyzer();
        view.open = analyzer.open_sessions().iter().sum::<usize>() as u64;
        let now = pipeline.traffic().now();
        view.pending = analyzer.opening().map(|opening| PendingConnections {
            count: opening.flows as u64,
            oldest: opening.since.map(|since| now.since(since)).unwrap_or_default(),
        });
        view.set_traffic(pipeline.traffic());
        Ok(())
    }

    fn on_source(&mut self, source: CaptureSource) {
        self.view.lock().capture = source;
    }

    fn on_error(&mut self, error: &LiveError) -> anyhow::Result<()> {
        let message = error.to_string();
        // No fault remains; the heading of the view names the new source.
        if let LiveError::SourceChanged { .. } = error {
            if !matches!(self.output, WatchOutput::View) {
                note(&message);
            }
            return Ok(());
        }
        match &mut self.output {
            WatchOutput::Json(lines) => {
                note(&message);
                return lines.push(json_damage(&self.place, &message));
            }
            WatchOutput::Lines { report, .. } => {
                report.add_damage(&message);
                note(&message);
            }
            WatchOutput::View => self.view.lock().problems.push(message),
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.wanted == Some(0)
    }
}

fn losses(
    pipeline: &AnalysisPipeline,
    loss: CaptureLoss,
    desyncs: u64,
    lines: u64,
) -> CaptureLosses {
    let counts = pipeline.analyzer().stream_counts();
    CaptureLosses {
        syns: loss.syns,
        packets: loss.packets,
        hidden: loss.hidden.into(),
        not_captured: counts.bytes_not_captured,
        truncated: counts.bytes_truncated,
        given_up: counts.bytes_given_up,
        flow_ended: counts.bytes_unfinished,
        desyncs,
        lines,
    }
}

fn text(write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> anyhow::Result<String> {
    let mut text = Vec::new();
    write(&mut text).context(WRITING)?;
    String::from_utf8(text).context(WRITING)
}
