//! What the traffic proves of the ways to us and from us.

use std::io;

use super::words::{clock, count, date, family};
use super::{BOLD, PLAIN, Page, RED, YELLOW};
use crate::addr::Family;
use crate::report::columns::cells;
use crate::report::escape::{Place, fitted};
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, Destination, Evidence};

/// Destinations that are shown.
const MAX_DESTINATIONS: usize = 20;
const LABEL: usize = 40;
const VALUE: usize = 19;
const STATE: usize = 11;

/// In this order, IPv6 comes first: it is what is in question.
const FAMILIES: [Family; 2] = [Family::Ipv6, Family::Ipv4];

/// Ways and families side by side, then destinations: those first that one family reaches and the other does not.
pub(super) fn write(evidence: &Evidence<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let heads = FAMILIES.map(|of| family(of).to_owned());
    page.line(BOLD, &row("EVIDENCE, seen from the networks of --local", heads))?;
    let received = FAMILIES.map(|family| evidence.receive.of(family));
    let accepted = received.map(|path| number(path.accepted.total));
    page.line(PLAIN, &row("sessions from outside with mail accepted", accepted))?;
    if received.iter().any(|path| path.last_connection.is_some()) {
        page.line(PLAIN, &row("  the last", received.map(|path| moment(path.last_accepted))))?;
        let last = received.map(|path| moment(path.last_connection));
        page.line(PLAIN, &row("  the last connection of any kind", last))?;
    }
    let returned = FAMILIES.map(|family| evidence.return_path.of(family));
    for (label, response) in [
        ("other servers that answered", ConnectionResponse::Answered),
        ("  refused", ConnectionResponse::Refused),
        ("  did not respond", ConnectionResponse::NoResponse),
        ("  were unreachable", ConnectionResponse::Unreachable),
        ("  behind a black hole", ConnectionResponse::BlackHole),
    ] {
        let counts = returned.map(|responses| *responses.of(response));
        if response == ConnectionResponse::Answered || counts != [0, 0] {
            let style = if response == ConnectionResponse::Answered { PLAIN } else { RED };
            page.line(style, &row(label, counts.map(number)))?;
        }
    }
    destinations(evidence, page)
}

fn destinations(evidence: &Evidence<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let mut all = evidence.return_path.destinations.clone();
    if all.is_empty() {
        return Ok(());
    }
    all.sort_by_key(|destination| standing(destination));
    page.say(PLAIN, "")?;
    let widths = [LABEL, STATE, STATE, VALUE];
    let [six, four] = FAMILIES.map(|of| family(of).to_owned());
    let head = ["OTHER SERVER".to_owned(), six, four, "LAST TRIED (UTC)".to_owned()];
    page.line(BOLD, &cells(&head, widths))?;
    for destination in all.iter().take(MAX_DESTINATIONS) {
        let style = match standing(destination) {
            Standing::Differs => RED,
            Standing::Fails => YELLOW,
            Standing::Answers => PLAIN,
        };
        let name = fitted(&destination.server.to_string(), Place::Word, LABEL);
        let [six, four] =
            FAMILIES.map(|family| word(destination.of(family).map(|tries| tries.state)));
        let cell = [name, six.to_owned(), four.to_owned(), moment(destination.last())];
        page.line(style, &cells(&cell, widths))?;
    }
    let more = evidence.return_path.destinations_total.saturating_sub(MAX_DESTINATIONS as u64);
    if more > 0 {
        page.say(PLAIN, &format!("… and {} more; --format json lists them", count(more)))?;
    }
    Ok(())
}

/// How bad it is, the worst first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// One family reaches it and the other does not.
    Differs,
    Fails,
    Answers,
}

fn standing(destination: &Destination) -> Standing {
    let of =
        |family| destination.of(family).map(|tries| tries.state == ConnectionResponse::Answered);
    match FAMILIES.map(of) {
        [Some(true), Some(false)] | [Some(false), Some(true)] => Standing::Differs,
        [Some(false), _] | [_, Some(false)] => Standing::Fails,
        _ => Standing::Answers,
    }
}

const fn word(response: Option<ConnectionResponse>) -> &'static str {
    match response {
        None => "-",
        Some(ConnectionResponse::NoResponse) => "no response",
        Some(ConnectionResponse::BlackHole) => "black hole",
        Some(other) => other.as_str(),
    }
}

fn row(label: &str, [six, four]: [String; 2]) -> String {
    format!("{label:<LABEL$} {six:>VALUE$} {four:>VALUE$}")
}

fn number(n: u64) -> String {
    if n == 0 { "-".to_owned() } else { count(n) }
}

/// `2026-01-02 03:04:05`
fn moment(at: Option<Timestamp>) -> String {
    at.map_or_else(
        || "-".to_owned(),
        |at| format!("{} {}", date(at), clock(at).chars().take(8).collect::<String>()),
    )
}
