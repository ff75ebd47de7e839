//! `[canary]`.

use std::time::Duration;

use super::reader::Section;
use super::text::printable;
use super::value::{Value, ValueResult, invalid};
use super::values::{boolean, duration, file, integer, into_values, list, string};
use crate::canary::{CanaryAddresses, MarkPattern, MarkPatternError};
use crate::config::CanaryConfig;
use crate::smtp::{EnvelopeArgument, PathKind};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
const TIMEOUT: Duration = Duration::from_secs(30 * 60);
const MAX_AGE: Duration = Duration::from_secs(25 * 3_600);
const PER_DAY: u32 = 48;

/// `None` without the section, or if it is invalid.
pub(super) fn canary(section: &mut Section<'_, '_, '_>, has_vantage: bool) -> Option<CanaryConfig> {
    section.start()?;
    let key = section.require("key_file", file("\"/etc/gatepost/canary.key\""));
    let inbound_to = section.require("inbound_to", mailbox);
    let outbound_to = section.read("outbound_to", mailbox);
    let outbound_from = match outbound_to.given().is_some() {
        true => section.require("outbound_from", mailbox),
        false => section.read("outbound_from", mailbox),
    };
    let prefer_ipv4 = section.read("prefer_ipv4", boolean).or(false);
    let timeout = section.read("timeout", duration(SECOND..=DAY)).or(TIMEOUT);
    let max_age = section.read("max_age", duration(SECOND..=30 * DAY)).or(MAX_AGE);
    let interval = section.read("interval", duration(SECOND..=DAY));
    let per_day = section.read("per_day", integer(1..=10_000)).or(PER_DAY);
    let marks = section.read("marks", list(mark));
    if let (Some(given), false) = (interval.given(), has_vantage) {
        let (field, at) = (section.field("interval"), given.span().start);
        let problem = "there is no [vantage] that could be asked".to_owned();
        let remedy =
            "add a section [vantage], or leave interval out and send with `gatepost canary send`";
        section.diagnostics.error(at, &field, problem, remedy);
    }
    Some(CanaryConfig {
        key: key.into_option()?,
        inbound_to: inbound_to.into_option()?,
        outbound: outbound_from
            .into_option()
            .zip(outbound_to.into_option())
            .map(|(from, to)| CanaryAddresses { from, to }),
        prefer_ipv4,
        timeout,
        max_age,
        interval: interval.into_option(),
        per_day,
        marks: into_values(marks.or_default()),
    })
}

fn mark(value: &Value<'_>) -> ValueResult<MarkPattern> {
    let text = string(value, "a header field", "\"X-Filter-Verdict: *junk*\"")?;
    MarkPattern::parse(text).or_else(|error| {
        let problem = format!("\"{}\" {}", printable(text), error.problem());
        invalid(value, problem, MarkPatternError::REMEDY)
    })
}

/// ASCII only, so that every server takes it.
fn mailbox(value: &Value<'_>) -> ValueResult<String> {
    const EXAMPLE: &str = "\"canary@example.org\"";
    let text = string(value, "an address", EXAMPLE)?;
    let argument = format!("TO:<{text}>");
    let parsed = EnvelopeArgument::parse(PathKind::Forward, argument.as_bytes());
    let is_mailbox = parsed.is_ok_and(|it| it.mailbox() == text && it.rerouting().is_none());
    if is_mailbox && text.is_ascii() && text.contains('@') {
        return Ok(text.to_owned());
    }
    let problem = format!("\"{}\" is not an address", printable(text));
    invalid(value, problem, format!("write one such as {EXAMPLE}"))
}
