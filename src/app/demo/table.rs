//! The demo's table: one row a session, as it ends.
//!
//! Layer 5. Everything fits [`WIDTH`] columns; only differences from the expectation take further lines.

use std::io::{self, IsTerminal as _, Write};

use super::clients::DemoClient;
use super::expectation::DemoRow;
use super::result::ClientResult;
use crate::addr::Family;
use crate::report::columns::{WIDTH, cells, wrapped};

const HEAD: [&str; 6] = ["CLIENT", "FAMILY", "ACTION", "REPLY", "ARRIVED", "REASON"];
const WIDTHS: [usize; 6] = [12, 6, 30, 9, 7, 25];

/// Capabilities of the terminal.
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

/// Totals of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub sessions: u64,
    /// Whose client made a TLS handshake.
    pub inside_tls: u64,
    /// Stored by the MTA.
    pub messages: u64,
    /// Sessions with a 4xx or 5xx reply.
    pub rejected: u64,
}

#[derive(Debug)]
pub(super) struct DemoTable<W> {
    pub out: W,
    style: Style,
}

impl<W: Write> DemoTable<W> {
    pub(super) fn new(out: W, style: Style) -> Self {
        Self { out, style }
    }

    pub(super) fn head(&mut self) -> io::Result<()> {
        let line = cells(&HEAD.map(str::to_owned), WIDTHS);
        writeln!(self.out, "{}", self.style.paint(BOLD, line.trim_end()))?;
        self.out.flush()
    }

    /// Shows the client that runs now, until [`Self::row`] overwrites it.
    pub(super) fn running(&mut self, client: &DemoClient) -> io::Result<()> {
        if self.style.live {
            let family = client.expected.family.to_string();
            let [name, action] = [client.name, client.action].map(str::to_owned);
            let texts = [name, family, action, "...".to_owned(), String::new(), String::new()];
            let line = cells(&texts, WIDTHS);
            write!(self.out, "{}", self.style.paint(DIM, line.trim_end()))?;
            self.out.flush()?;
        }
        Ok(())
    }

    /// The row of one session; returns whether it is as expected.
    pub(super) fn row(&mut self, client: &DemoClient, result: &ClientResult) -> io::Result<bool> {
        let DemoRow { family, reply, arrived, reason } = DemoRow::of(result);
        let arrived = match arrived {
            0 => "nothing".to_owned(),
            1 => "1 mail".to_owned(),
            n => format!("{n} mails"),
        };
        let [name, action, family] = [client.name, client.action, family].map(str::to_owned);
        let line = cells(&[name, family, action, reply, arrived, reason], WIDTHS);
        if self.style.live {
            write!(self.out, "\r\x1b[K")?;
        }
        let differences = client.expected.differences(result);
        if differences.is_empty() {
            writeln!(self.out, "{line} {}", self.style.paint(GREEN, "ok"))?;
        } else {
            writeln!(self.out, "{}", line.trim_end())?;
            for line in wrapped(&format!("FAILED: {}", differences.join("; ")), WIDTH - 4) {
                writeln!(self.out, "    {}", self.style.paint(RED, &line))?;
            }
        }
        self.out.flush()?;
        Ok(differences.is_empty())
    }

    /// The totals of `family` on one line.
    pub(super) fn totals(&mut self, family: Family, totals: Totals) -> io::Result<()> {
        let Totals { sessions, inside_tls, messages, rejected } = totals;
        let plural = |n: u64, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let line = format!(
            "{family}: {}, {inside_tls} inside TLS, {} relayed, rejections in {}",
            plural(sessions, "session"),
            plural(messages, "message"),
            plural(rejected, "session"),
        );
        writeln!(self.out, "{}", self.style.paint(BOLD, &line))
    }

    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")?;
        self.out.flush()
    }
}
