//! `[outbound]`.

use std::path::PathBuf;
use std::time::Duration;

use super::door::check_retry_max;
use super::net::unix_socket;
use super::policy::{Pattern, domains, pattern};
use super::reader::{List, Section};
use super::value::{Value, ValueResult, invalid};
use super::values::{duration, list, path, string};
use crate::config::OutboundConfig;
use crate::outbound::{Pins, SteeringSettings};
use crate::postfix::mail_log::MailLogSource;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// `None` without the section.
pub(super) fn outbound(section: &mut Section<'_, '_, '_>) -> Option<OutboundConfig> {
    let map = section.read("map", map_socket).or(OutboundConfig::MAP.into());
    let ipv4_only = section.read("ipv4_only", list(pattern));
    let keep_ipv6 = section.read("keep_ipv6", list(pattern));
    check_contradiction(section, &ipv4_only, &keep_ipv6);
    let pins = Pins { ipv4_only: domains(&ipv4_only), keep_ipv6: domains(&keep_ipv6) };
    let retry = section.read("retry", duration(SECOND..=DAY));
    let retry_max = section.read("retry_max", duration(SECOND..=7 * DAY));
    check_retry_max(section, &retry, &retry_max, SteeringSettings::RETRY);
    let steering = SteeringSettings {
        retry_max: retry_max
            .or(SteeringSettings::RETRY_MAX)
            .max(retry.clone().or(SteeringSettings::RETRY)),
        retry: retry.or(SteeringSettings::RETRY),
    };
    let config_directory = section.read("config_directory", path).into_option();
    let mail_log = section.read("mail_log", mail_log).into_option();
    let parts = OutboundConfig { map, pins, steering, mail_log, config_directory };
    section.start().map(|_| parts)
}

fn map_socket(value: &Value<'_>) -> ValueResult<PathBuf> {
    let example = format!("unix:{}", OutboundConfig::MAP);
    let written = string(value, "a Unix socket", &format!("\"{example}\""))?;
    match written.strip_prefix("unix:") {
        Some(path) => unix_socket(value, path, &example).map(PathBuf::from),
        None => {
            let problem = format!("\"{}\" is not a Unix socket", super::text::printable(written));
            invalid(value, problem, format!("write it as \"{example}\""))
        }
    }
}

fn mail_log(value: &Value<'_>) -> ValueResult<MailLogSource> {
    const EXAMPLE: &str = "\"/var/log/mail.log\"";
    let written = string(value, "a path, \"journal\" or \"-\"", EXAMPLE)?;
    let source = MailLogSource::parse(written);
    match &source {
        MailLogSource::File(path) if !path.is_absolute() => {
            let problem =
                format!("\"{}\" is not an absolute path", super::text::printable(written));
            invalid(value, problem, format!("write it as {EXAMPLE}, or \"journal\""))
        }
        _ => Ok(source),
    }
}

fn check_contradiction(
    section: &mut Section<'_, '_, '_>,
    ipv4_only: &List<Pattern>,
    keep_ipv6: &List<Pattern>,
) {
    for kept in keep_ipv6.items() {
        if ipv4_only.items().any(|pinned| pinned.get_ref() == kept.get_ref()) {
            let (field, at) = (section.field("keep_ipv6"), kept.span().start);
            let problem = "the same name is in ipv4_only";
            section.diagnostics.error(at, &field, problem, "remove it from one of the two");
        }
    }
}
