//! To whom a replay tells what: a report for people, lines of JSON, or one dialogue.

use std::io::{self, IsTerminal as _, Write as _, stderr, stdout};

use anyhow::{Context as _, bail};

use super::reenactment::Reenacted;
use crate::analyzer::{FinishedSession, PacketCounts};
use crate::app::print::WRITING;
use crate::cli::{OutputFormat, ReplayArgs};
use crate::lookup::PassiveDns;
use crate::report::replay::{
    InputSummary, NumberedSession, ReplayReport, dialogue, json_damage, json_evidence,
    json_fallback, json_session,
};
use crate::stream;
use crate::time::Timestamp;
use crate::traffic::Evidence;
use crate::traffic::fallback::Fallback;
use crate::wire::DecodeError;

pub(super) struct Telling {
    form: Form,
    format: OutputFormat,
    judged: bool,
    files: Vec<String>,
    packets: u64,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
    out: Box<dyn io::Write>,
    colour: bool,
}

enum Form {
    Report(Box<ReplayReport>),
    Json,
    Dialogue {
        number: u64,
        found: bool,
    },
    /// Only what became of the sessions that were said again.
    Acting,
}

impl Telling {
    pub(super) fn new(asked: &ReplayArgs) -> Self {
        let form = match (asked.session, asked.format) {
            (Some(number), _) => Form::Dialogue { number, found: false },
            (None, _) if !asked.reenact.target.is_empty() => Form::Acting,
            (None, OutputFormat::Text) => Form::Report(Box::default()),
            (None, OutputFormat::Json) => Form::Json,
        };
        Self {
            form,
            format: asked.format,
            judged: asked.policy.config.is_some(),
            files: asked.files.iter().map(|file| file.display().to_string()).collect(),
            packets: 0,
            first: None,
            last: None,
            out: Box::new(io::BufWriter::new(stdout())),
            colour: stdout().is_terminal()
                && anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never,
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
        unknown: &[&str],
    ) -> anyhow::Result<()> {
        let told = NumberedSession {
            file,
            number: session.number,
            record: &session.record,
            policy_applied: self.judged,
            unknown_facts: unknown,
        };
        match &mut self.form {
            Form::Report(report) => report.add_session(&told),
            Form::Json => self.out.write_all(json_session(&told).as_bytes()).context(WRITING)?,
            Form::Dialogue { number, found } if *number == session.number => {
                *found = true;
                dialogue(&told, &session.transcript, self.colour, &mut self.out)
                    .context(WRITING)?;
            }
            Form::Dialogue { .. } | Form::Acting => {}
        }
        Ok(())
    }

    pub(super) fn reenacted(
        &mut self,
        session: &FinishedSession,
        outcome: &Reenacted,
    ) -> anyhow::Result<()> {
        let told = outcome.format(session, self.format);
        self.out.write_all(told.as_bytes()).context(WRITING)?;
        self.out.flush().context(WRITING)
    }

    pub(super) fn fall_back(&mut self, pair: &Fallback) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Report(report) => report.add_fallback(pair),
            Form::Json => self.out.write_all(json_fallback(pair).as_bytes()).context(WRITING)?,
            Form::Dialogue { .. } | Form::Acting => {}
        }
        Ok(())
    }

    /// A file of which nothing can be read.
    pub(super) fn unreadable(&mut self, file: &str, message: &str) -> anyhow::Result<()> {
        self.files.retain(|readable| readable != file);
        self.damage(file, message)?;
        if matches!(self.form, Form::Report(_)) {
            self.aloud(message)?;
        }
        Ok(())
    }

    /// What could not be read of a file, in one line that names it.
    pub(super) fn damage(&mut self, file: &str, message: &str) -> anyhow::Result<()> {
        match &mut self.form {
            Form::Report(report) => report.add_damage(message),
            Form::Json => {
                self.out.write_all(json_damage(file, message).as_bytes()).context(WRITING)?;
                // There too, for whoever reads the lines by a program.
                self.aloud(message)?;
            }
            Form::Dialogue { .. } | Form::Acting => self.aloud(message)?,
        }
        Ok(())
    }

    fn aloud(&self, message: &str) -> anyhow::Result<()> {
        writeln!(stderr(), "gatepost: {message}").context("cannot write to standard error")
    }

    /// Packets of a file that nothing could be made of.
    pub(super) fn unread(&mut self, file: &str, counts: &PacketCounts) -> anyhow::Result<()> {
        for (damage, count) in &counts.damaged {
            let link = counts.unknown_link.filter(|_| *damage == DecodeError::UnsupportedLink);
            let link =
                link.map_or_else(String::new, |link| format!(" (LINKTYPE {})", link.number()));
            let packets = if *count == 1 { "packet" } else { "packets" };
            self.damage(
                file,
                &format!("{file}: {count} {packets} {}{link}", damage.description()),
            )?;
        }
        Ok(())
    }

    /// What was given up to stay within the bounds.
    pub(super) fn given_up(
        &mut self,
        file: &str,
        counts: &stream::StreamCounters,
        dns: &PassiveDns,
    ) -> anyhow::Result<()> {
        for (count, what) in [
            (counts.evicted, "flows were given up: too many at once"),
            (counts.bytes_given_up, "octets were not waited for: too much was out of order"),
            (dns.dropped(), "DNS answers were forgotten: too many"),
        ] {
            if count > 0 {
                self.damage(file, &format!("{file}: {count} {what}"))?;
            }
        }
        Ok(())
    }

    /// `evidence` where it is known which side is ours.
    pub(super) fn end(
        &mut self,
        ports: &[u16],
        evidence: Option<&Evidence<'_>>,
    ) -> anyhow::Result<()> {
        match &self.form {
            Form::Report(_) if self.files.is_empty() => {}
            Form::Report(report) => {
                let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
                let reading = InputSummary {
                    files: &files,
                    packets: self.packets,
                    first: self.first,
                    last: self.last,
                    ports,
                    evidence,
                };
                report.write(&reading, self.colour, &mut self.out).context(WRITING)?;
            }
            Form::Dialogue { number, found: false } => {
                bail!(
                    "there is no session {number}; without --session a table shows their numbers"
                );
            }
            Form::Json => {
                if let Some(evidence) = evidence {
                    self.out.write_all(json_evidence(evidence).as_bytes()).context(WRITING)?;
                }
            }
            Form::Dialogue { .. } | Form::Acting => {}
        }
        self.out.flush().context(WRITING)
    }
}

/// Whoever reads standard output has gone away.
pub(in crate::app) fn is_unread(error: &anyhow::Error) -> bool {
    let gone = |why: &io::Error| why.kind() == io::ErrorKind::BrokenPipe;
    error.downcast_ref::<&str>() == Some(&WRITING)
        && error.root_cause().downcast_ref::<io::Error>().is_some_and(gone)
}
