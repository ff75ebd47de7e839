//! `[outbound]`.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::door::check_retry_max;
use super::net::{network, unix_socket};
use super::policy::{Pattern, domains, pattern};
use super::reader::{List, Section};
use super::text::printable;
use super::value::{Value, ValueResult, invalid};
use super::values::{duration, integer, into_values, list, path, string};
use crate::addr::Networks;
use crate::config::OutboundConfig;
use crate::intercept::outbound_reset::OutboundResetSettings;
use crate::outbound::{Pins, SteeringSettings};
use crate::postfix::mail_log::MailLogSource;
use crate::privilege::{PrivilegeError, User};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// Connections of a shorter network are hardly those of one site's mail servers.
const SHORTEST_SOURCE: u8 = 32;

/// `None` without the section. `own` is `[process] user`.
pub(super) fn outbound(
    section: &mut Section<'_, '_, '_>,
    own: Option<&str>,
) -> Option<OutboundConfig> {
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
    let resets = resets(section, own);
    let parts = OutboundConfig { map, pins, steering, mail_log, config_directory, resets };
    section.start().map(|_| parts)
}

fn resets(section: &mut Section<'_, '_, '_>, own: Option<&str>) -> Option<OutboundResetSettings> {
    let users = section.read("reset_users", list(user));
    let sources = section.read("reset_sources", list(source));
    let own = own.and_then(|name| User::by_name(name).ok());
    for user in users.items() {
        if let Some(own) = own.as_ref().filter(|own| own.id() == *user.get_ref()) {
            let problem =
                format!("gatepost runs as {} itself, and its probes would be reset", own.name());
            let (field, at) = (section.field("reset_users"), user.span().start);
            section.diagnostics.error(at, &field, problem, "write the user of the MTA only");
        }
    }
    let mut users = into_values(users.or_default());
    users.sort_unstable();
    users.dedup();
    let sources = Networks::new(into_values(sources.or_default()));
    Some(OutboundResetSettings { users, sources }).filter(|settings| !settings.is_empty())
}

/// The number of an account of this host, by its name or number.
fn user(value: &Value<'_>) -> ValueResult<u32> {
    let id = match value.get_ref() {
        DeValue::Integer(number) if number.as_str() == "0" => 0,
        DeValue::Integer(_) => integer(1..=u32::MAX - 1)(value)?,
        _ => {
            let name = string(value, "the name or number of a user", "\"Debian-exim\"")?;
            let shown = printable(name);
            match User::by_name(name) {
                Ok(user) => user.id(),
                Err(PrivilegeError::NoUser { .. }) => {
                    let problem = format!("there is no user \"{shown}\" on this host");
                    let remedy = "write the user as which the MTA sends mail (`ps -eo user,comm`), by name or number";
                    return invalid(value, problem, remedy);
                }
                Err(error) => {
                    let remedy = "write the number of the user, without quotes";
                    return invalid(value, error.to_string(), remedy);
                }
            }
        }
    };
    if id == 0 {
        let problem = "connections of root are those of many programs, not only of an MTA";
        return invalid(value, problem, "write the user as which the MTA sends mail");
    }
    Ok(id)
}

/// An IPv6 network of MTAs.
fn source(value: &Value<'_>) -> ValueResult<IpNet> {
    let network = network(value)?;
    let example = "write the IPv6 address of the MTA, such as \"2001:db8:1::25\"";
    if network.addr().is_ipv4() {
        let problem = format!("{network} is IPv4: only connections over IPv6 are reset");
        return invalid(value, problem, example);
    }
    if network.prefix_len() < SHORTEST_SOURCE {
        let problem = format!(
            "{network} has the mail servers of others in it, whose connections would be reset as well"
        );
        return invalid(value, problem, example);
    }
    Ok(network)
}

fn map_socket(value: &Value<'_>) -> ValueResult<PathBuf> {
    let example = format!("unix:{}", OutboundConfig::MAP);
    let written = string(value, "a Unix socket", &format!("\"{example}\""))?;
    match written.strip_prefix("unix:") {
        Some(path) => unix_socket(value, path, &example).map(PathBuf::from),
        None => {
            let problem = format!("\"{}\" is not a Unix socket", printable(written));
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
            let problem = format!("\"{}\" is not an absolute path", printable(written));
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
