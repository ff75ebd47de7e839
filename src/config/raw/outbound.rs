//! `[outbound]`.

use std::path::PathBuf;

use super::net::unix_socket;
use super::policy::{Pattern, domains, pattern};
use super::reader::{List, Section};
use super::value::{Value, ValueResult, invalid};
use super::values::{list, string};
use crate::config::OutboundConfig;
use crate::outbound::Pins;

/// `None` without the section.
pub(super) fn outbound(section: &mut Section<'_, '_, '_>) -> Option<OutboundConfig> {
    let map = section.read("map", map_socket).or(OutboundConfig::MAP.into());
    let ipv4_only = section.read("ipv4_only", list(pattern));
    let keep_ipv6 = section.read("keep_ipv6", list(pattern));
    check_contradiction(section, &ipv4_only, &keep_ipv6);
    let pins = Pins { ipv4_only: domains(&ipv4_only), keep_ipv6: domains(&keep_ipv6) };
    section.start().map(|_| OutboundConfig { map, pins })
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
