//! The output of `replay`: a report, JSON lines, one dialogue, or the results of re-enacted sessions.

use std::io::{self, Write as _, stderr, stdout};

use anyhow::{Context as _, bail};

use super::reenactment::Reenacted;
use crate::analyzer::{FinishedSession, PacketCounts};
use crate::app::output::{WRITING, has_colour};
use crate::cli::{OutputFormat, ReplayArgs};
use crate::lookup::PassiveDns;
use crate::report::replay::{
    InputSummary, NumberedSession, ReplayReport, json_damage, json_evidence, json_fallback,
    json_session, transcript,
};
use crate::stream::StreamCounters;
use crate::time::Timestamp;
use crate::traffic::Evidence;
use crate::traffic::fallback::Fallback;
use crate::wire::DecodeError;

pub(super) struct ReplayReporter {
    output: ReplayOutput,
    format: OutputFormat,
    policy_applied: bool,
    files: Vec<String>,
    packets: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    out: Box<dyn io::Write>,
    colour: bool,
}

enum ReplayOutput {
    Report(Box<ReplayReport>),
    Json,
    Dialogue {
        number: u64,
        found: bool,
    },
    /// Only the results of re-enacted sessions.
    Reenactment,
}

impl ReplayReporter {
    pub(super) fn new(args: &ReplayArgs) -> Self {
        let output = match (args.session, args.format) {
            (Some(number), _) => ReplayOutput::Dialogue { number, found: false },
            (None, _) if !args.reenact.target.is_empty() => ReplayOutput::Reenactment,
            (None, OutputFormat::Text) => ReplayOutput::Report(Box::default()),
            (None, OutputFormat::Json) => ReplayOutput::Json,
        };
        Self {
            output,
            format: args.format,
            policy_applied: args.policy.config.is_some(),
            files: args.files.iter().map(|file| file.display().to_string()).collect(),
            packets: 0,
            first: None,
            last: None,
            out: Box::new(io::BufWriter::new(stdout())),
            colour: has_colour(),
        }
    }

    pub(super) fn packet(&mut self, at: Timestamp) {
        self.packets += 1;
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
    }

    pub(super) fn session(
        &mut self,
        file: &str,
        session: &FinishedSession,
        unknown_facts: &[&str],
    ) -> anyhow::Result<()> {
        let numbered = NumberedSession {
            file,
            number: session.number,
            record: &session.record,
            policy_applied: self.policy_applied,
            unknown_facts,
        };
        match &mut self.output {
            ReplayOutput::Report(report) => report.add_session(&numbered),
            ReplayOutput::Json => self.write(&json_session(&numbered))?,
            ReplayOutput::Dialogue { number, found } if *number == session.number => {
                *found = true;
                transcript(&numbered, &session.transcript, self.colour, &mut self.out)
                    .context(WRITING)?;
            }
            ReplayOutput::Dialogue { .. } | ReplayOutput::Reenactment => {}
        }
        Ok(())
    }

    pub(super) fn reenacted(
        &mut self,
        session: &FinishedSession,
        result: &Reenacted,
    ) -> anyhow::Result<()> {
        self.write(&result.format(session, self.format))?;
        self.out.flush().context(WRITING)
    }

    pub(super) fn fallback(&mut self, fallback: &Fallback) -> anyhow::Result<()> {
        match &mut self.output {
            ReplayOutput::Report(report) => report.add_fallback(fallback),
            ReplayOutput::Json => self.write(&json_fallback(fallback))?,
            ReplayOutput::Dialogue { .. } | ReplayOutput::Reenactment => {}
        }
        Ok(())
    }

    /// A file that cannot be read at all.
    pub(super) fn unreadable(&mut self, file: &str, message: &str) -> anyhow::Result<()> {
        self.files.retain(|readable| readable != file);
        self.damage(file, message)?;
        if matches!(self.output, ReplayOutput::Report(_)) {
            warn(message)?;
        }
        Ok(())
    }

    /// A part of a file that cannot be read; `message` is one line that names the file.
    pub(super) fn damage(&mut self, file: &str, message: &str) -> anyhow::Result<()> {
        match &mut self.output {
            ReplayOutput::Report(report) => {
                report.add_damage(message);
                Ok(())
            }
            ReplayOutput::Json => {
                self.write(&json_damage(file, message))?;
                warn(message)
            }
            ReplayOutput::Dialogue { .. } | ReplayOutput::Reenactment => warn(message),
        }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.out.write_all(text.as_bytes()).context(WRITING)
    }

    /// Packets of a file that cannot be decoded.
    pub(super) fn undecoded(&mut self, file: &str, counts: &PacketCounts) -> anyhow::Result<()> {
        for (damage, count) in &counts.damaged {
            let link = counts.unknown_link.filter(|_| *damage == DecodeError::UnsupportedLink);
            let link =
                link.map_or_else(String::new, |link| format!(" (LINKTYPE {})", link.number()));
            let packets = if *count == 1 { "packet" } else { "packets" };
            let description = damage.description();
            self.damage(file, &format!("{file}: {count} {packets} {description}{link}"))?;
        }
        Ok(())
    }

    /// Data given up to stay within memory bounds.
    pub(super) fn given_up(
        &mut self,
        file: &str,
        counts: &StreamCounters,
        dns: &PassiveDns,
    ) -> anyhow::Result<()> {
        for (count, what) in [
            (counts.evicted, "flows given up: too many at once"),
            (counts.bytes_given_up, "bytes given up: too many out of order"),
            (dns.dropped(), "DNS answers given up: too many"),
        ] {
            if count > 0 {
                self.damage(file, &format!("{file}: {count} {what}"))?;
            }
        }
        Ok(())
    }

    /// `evidence` is known only with the addresses of our own side.
    pub(super) fn end(
        &mut self,
        ports: &[u16],
        evidence: Option<&Evidence<'_>>,
    ) -> anyhow::Result<()> {
        match &self.output {
            ReplayOutput::Report(_) if self.files.is_empty() => {}
            ReplayOutput::Report(report) => {
                let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
                let input = InputSummary {
                    files: &files,
                    packets: self.packets,
                    first: self.first,
                    last: self.last,
                    ports,
                    evidence,
                };
                report.write(&input, self.colour, &mut self.out).context(WRITING)?;
            }
            ReplayOutput::Dialogue { number, found: false } => {
                bail!("there is no session {number}; run without --session for a table of numbers");
            }
            ReplayOutput::Json => {
                if let Some(evidence) = evidence {
                    self.write(&json_evidence(evidence))?;
                }
            }
            ReplayOutput::Dialogue { .. } | ReplayOutput::Reenactment => {}
        }
        self.out.flush().context(WRITING)
    }
}

fn warn(message: &str) -> anyhow::Result<()> {
    writeln!(stderr(), "gatepost: {message}").context("cannot write to standard error")
}
