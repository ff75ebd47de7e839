//! Evidence of the receive and return paths from captured traffic.

use std::io;

use super::{FAMILIES, LABEL, VALUE, family_row, number};
use crate::humanize::{count, date_time, family};
use crate::report::columns::cells;
use crate::report::escape::{EscapeContext, fitted};
use crate::report::page::{BOLD, PLAIN, Page, RED, YELLOW};
use crate::report::wording;
use crate::time::Timestamp;
use crate::traffic::{ConnectionResponse, Destination, Evidence};

/// Listed destinations.
const MAX_DESTINATIONS: usize = 20;
const STATE: usize = 11;

/// Counts by path and family, then the destinations, those reached over one family only first.
pub(super) fn write(evidence: &Evidence<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let heads = FAMILIES.map(|of| family(of).to_owned());
    page.line(BOLD, &family_row("EVIDENCE for the --local networks", heads))?;
    let received = FAMILIES.map(|family| evidence.receive.of(family));
    let accepted = received.map(|path| number(path.accepted.total));
    page.line(PLAIN, &family_row("inbound sessions with accepted mail", accepted))?;
    if received.iter().any(|path| path.under_tls.total > 0) {
        let sessions = received.map(|path| number(path.under_tls.total));
        page.line(PLAIN, &family_row("  under TLS, mail not visible", sessions))?;
    }
    if received.iter().any(|path| path.last_connection.is_some()) {
        page.line(
            PLAIN,
            &family_row(
                "  last",
                received.map(|path| time(path.last_accepted.max(path.last_under_tls))),
            ),
        )?;
        let last = received.map(|path| time(path.last_connection));
        page.line(PLAIN, &family_row("  last inbound connection", last))?;
    }
    let returned = FAMILIES.map(|family| evidence.return_path.of(family));
    for (label, response) in [
        ("remote servers that responded", ConnectionResponse::Answered),
        ("  refused", ConnectionResponse::Refused),
        ("  no response", ConnectionResponse::NoResponse),
        ("  unreachable", ConnectionResponse::Unreachable),
        ("  black hole", ConnectionResponse::BlackHole),
    ] {
        let counts = returned.map(|responses| *responses.of(response));
        if response == ConnectionResponse::Answered || counts != [0, 0] {
            let style = if response == ConnectionResponse::Answered { PLAIN } else { RED };
            page.line(style, &family_row(label, counts.map(number)))?;
        }
    }
    destinations(evidence, page)
}

fn destinations(evidence: &Evidence<'_>, page: &mut Page<'_>) -> io::Result<()> {
    let mut all = evidence.return_path.destinations.clone();
    if all.is_empty() {
        return Ok(());
    }
    all.sort_by_key(|destination| severity(destination));
    page.paragraph(PLAIN, "")?;
    let widths = [LABEL, STATE, STATE, VALUE];
    let [six, four] = FAMILIES.map(|of| family(of).to_owned());
    let head = ["REMOTE SERVER".to_owned(), six, four, "LAST ATTEMPT (UTC)".to_owned()];
    page.line(BOLD, &cells(&head, widths))?;
    for destination in all.iter().take(MAX_DESTINATIONS) {
        let style = match severity(destination) {
            DestinationSeverity::OneFamilyFails => RED,
            DestinationSeverity::Fails => YELLOW,
            DestinationSeverity::Responds => PLAIN,
        };
        let name = fitted(&destination.server.to_string(), EscapeContext::Word, LABEL);
        let [six, four] = FAMILIES.map(|family| {
            destination.of(family).map_or("-", |tries| wording::response(tries.state)).to_owned()
        });
        let row = [name, six, four, time(destination.last())];
        page.line(style, &cells(&row, widths))?;
    }
    let more = evidence.return_path.destinations_total.saturating_sub(MAX_DESTINATIONS as u64);
    if more > 0 {
        page.paragraph(PLAIN, &format!("… and {} more; --format json lists them", count(more)))?;
    }
    Ok(())
}

/// The most serious first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum DestinationSeverity {
    OneFamilyFails,
    Fails,
    Responds,
}

fn severity(destination: &Destination) -> DestinationSeverity {
    let responds =
        |family| destination.of(family).map(|tries| tries.state == ConnectionResponse::Answered);
    match FAMILIES.map(responds) {
        [Some(true), Some(false)] | [Some(false), Some(true)] => {
            DestinationSeverity::OneFamilyFails
        }
        [Some(false), _] | [_, Some(false)] => DestinationSeverity::Fails,
        _ => DestinationSeverity::Responds,
    }
}

/// `2026-01-02 03:04:05`
fn time(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), date_time)
}
