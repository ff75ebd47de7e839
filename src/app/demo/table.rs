//! The table of the demo: one row a session, as it ends.
//!
//! Layer 5. Everything fits [`WIDTH`] columns; only differences from the claim may take further lines.

use std::io::{self, IsTerminal as _, Write};

use super::dialogue::Told;
use super::ledger::Counts;
use super::senders::Sender;
use super::stage::Performance;
use crate::addr::Family;
use crate::engine::SessionRecord;
use crate::report::columns::{WIDTH, cells, wrapped};

const HEAD: [&str; 6] = ["SENDER", "FAMILY", "WHAT IT DID", "ANSWER", "ARRIVED", "REFUSED, FOR"];
const WIDTHS: [usize; 6] = [12, 6, 30, 9, 7, 25];

/// What the terminal can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    /// Lines may be overwritten in place.
    pub live: bool,
    pub colour: bool,
}

impl Style {
    /// Plain in a pipe; no colour where `NO_COLOR` is set and not empty (no-color.org).
    pub(super) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        let live = io::stdout().is_terminal() && !dumb;
        Self { live, colour: live && !set("NO_COLOR") }
    }

    fn paint(self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// Writes rows to `out` as they come.
#[derive(Debug)]
pub(super) struct Table<W> {
    pub out: W,
    style: Style,
}

impl<W: Write> Table<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self { out, style }
    }

    pub(super) fn head(&mut self) -> io::Result<()> {
        let line = cells(&HEAD.map(str::to_owned), WIDTHS);
        writeln!(self.out, "{}", self.style.paint(BOLD, line.trim_end()))?;
        self.out.flush()
    }

    /// Shows who is sending now, until its row takes the place.
    pub(super) fn under_way(&mut self, sender: &Sender) -> io::Result<()> {
        if self.style.live {
            let family = sender.claim.family.to_string();
            let [name, did] = [sender.name, sender.did].map(str::to_owned);
            let line =
                cells(&[name, family, did, "...".to_owned(), String::new(), String::new()], WIDTHS);
            write!(self.out, "{}", self.style.paint(DIM, line.trim_end()))?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// The row of one session, made from evidence only, and its differences from what is claimed.
    pub(super) fn row(&mut self, sender: &Sender, done: &Performance) -> io::Result<()> {
        let told = done.told.as_ref();
        let family = told.map(|told| Family::of(told.peer.ip()));
        let texts = [
            sender.name.to_owned(),
            family.map_or("-", Family::as_str).to_owned(),
            sender.did.to_owned(),
            told.map_or_else(|| "-".to_owned(), answer),
            match done.arrived.len() {
                0 => "nothing".to_owned(),
                1 => "1 mail".to_owned(),
                n => format!("{n} mails"),
            },
            told.map_or_else(|| "-".to_owned(), |told| refused(told, done)),
        ];
        let line = cells(&texts, WIDTHS);
        if self.style.live {
            write!(self.out, "\r\x1b[K")?;
        }
        if done.differences.is_empty() {
            writeln!(self.out, "{line} {}", self.style.paint(GREEN, "ok"))?;
        } else {
            writeln!(self.out, "{}", line.trim_end())?;
            self.not_as_claimed(&done.differences)?;
        }
        self.out.flush()
    }

    /// Differences that belong to the line above.
    pub(super) fn not_as_claimed(&mut self, differences: &[String]) -> io::Result<()> {
        let text = format!("NOT AS CLAIMED: {}", differences.join("; "));
        for line in wrapped(&text, WIDTH - 4) {
            writeln!(self.out, "    {}", self.style.paint(RED, &line))?;
        }
        Ok(())
    }

    /// One line for `family`.
    pub(super) fn summary(&mut self, family: Family, counts: Counts) -> io::Result<()> {
        let Counts { sessions, messages, refused } = counts;
        let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let line = format!(
            "{family}: {}, {} relayed, something refused in {}",
            plural(sessions, "session"),
            plural(messages, "message"),
            plural(refused, "session"),
        );
        writeln!(self.out, "{}", self.style.paint(BOLD, &line))
    }

    /// Any other text, wrapped.
    pub(super) fn say(&mut self, text: &str) -> io::Result<()> {
        for line in wrapped(text, WIDTH) {
            writeln!(self.out, "{line}")?;
        }
        self.out.flush()
    }
}

/// The reply that decided: the last one that is not just the answer to QUIT.
fn answer(told: &Told) -> String {
    let mut replies = told.replies.iter().rev();
    let decisive = replies.find(|reply| reply.code != 221);
    decisive.map_or_else(|| "-".to_owned(), super::dialogue::Reply::codes)
}

/// Whether anything was refused in the session.
pub(super) fn any_refused(told: &Told) -> bool {
    told.replies.iter().any(|reply| reply.code >= 400)
}

/// Why something was refused: by which rule, for which anomaly, or else by the MTA; or what was made harmless.
fn refused(told: &Told, done: &Performance) -> String {
    let refusal = told.replies.iter().find(|reply| reply.code >= 400);
    let why = match &done.record {
        Some(record) => reason(record, done),
        None => "not told".to_owned(),
    };
    match refusal {
        None if why.is_empty() => "-".to_owned(),
        // Nothing was refused; the gateway only noticed.
        None => format!("no: {why}"),
        Some(reply) => {
            let why = if why.is_empty() { "by the MTA" } else { &why };
            // Where the answer column shows another reply, this one is shown here.
            if reply.codes() == answer(told) {
                why.to_owned()
            } else {
                format!("{} {why}", reply.codes())
            }
        }
    }
}

/// The gateway's own reason; empty where it had none.
fn reason(record: &SessionRecord, done: &Performance) -> String {
    let verdict = &record.verdict;
    if let Some(rule) = verdict.rule.as_ref().or(verdict.reason.as_ref()) {
        return rule.clone();
    }
    let anomalies = record.smtp.anomalies.iter().map(|anomaly| anomaly.as_str());
    let refusals = done.refusals.iter().map(|refusal| refusal.as_str());
    let words: Vec<_> =
        if record.smtp.anomalies.is_empty() { refusals.collect() } else { anomalies.collect() };
    words.join(", ").replace('_', " ")
}
