//! `[lookup]`, `[lookup.ttl]` and `[vantage]`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::net::{domain, network, peer};
use super::reader::Section;
use super::text::printable;
use super::value::{Value, ValueResult, invalid};
use super::values::{
    boolean, duration, format_duration, integer, into_values, list, non_empty, size, string,
};
use crate::addr::Networks;
use crate::lookup::{
    CacheLimits, LookupSettings, ProbeSettings, Ttls, check_redis_url, parse_server, vantage,
};
use crate::relay::{self, UpstreamIdentity, UpstreamTarget};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// 365.25 days, as in humantime.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// `[lookup]`; [`with_relay`] adds the settings that depend on other sections.
pub(super) fn lookup(section: &mut Section<'_, '_, '_>) -> LookupSettings {
    const MOST: u32 = 1_000_000;
    let default = LookupSettings::default();
    let (limits, probes) = (default.cache_limits, default.probes);
    let shortest = Duration::from_millis(100);
    LookupSettings {
        dns_servers: into_values(section.read("dns", list(server)).or_default()),
        deadline: section.read("deadline", duration(shortest..=MINUTE)).or(default.deadline),
        traffic_max_age: section
            .read("traffic_max_age", duration(SECOND..=60 * MINUTE))
            .or(default.traffic_max_age),
        cache_limits: CacheLimits {
            entries: section.read("cache_entries", integer(100..=100_000_000)).or(limits.entries),
            bytes: section.read("cache_size", size(1 << 20..=64 << 30)).or(limits.bytes),
        },
        probes: ProbeSettings {
            port: section.read("probe_port", integer(1..=u16::MAX)).or(probes.port),
            timeout: section
                .read("probe_timeout", duration(shortest..=5 * MINUTE))
                .or(probes.timeout),
            callouts: section.read("callouts", boolean).or(probes.callouts),
            large_segments: section.read("probe_large_segments", boolean).or(probes.large_segments),
            max_concurrent: section
                .read("max_concurrent_probes", integer(1..=100_000))
                .or(probes.max_concurrent),
            per_second: section.read("probes_per_second", integer(1..=MOST)).or(probes.per_second),
            per_server_per_minute: section
                .read("probes_per_server_per_minute", integer(1..=MOST))
                .or(probes.per_server_per_minute),
            per_client_per_minute: section
                .read("probes_per_client_per_minute", integer(1..=MOST))
                .or(probes.per_client_per_minute),
        },
        special_networks: Networks::new(into_values(
            section.read("probe_special_networks", list(network)).or_default(),
        )),
        max_pending_recipients: section
            .read("max_pending_recipients", integer(1..=100_000))
            .or(default.max_pending_recipients),
        cache_file: section.read("cache_file", file).into_option(),
        redis: section.read("redis", redis_url).into_option(),
        ttls: ttls(&mut section.section("ttl")),
        ..default
    }
}

/// `[lookup.ttl]`
fn ttls(section: &mut Section<'_, '_, '_>) -> Ttls {
    const RANGE: RangeInclusive<Duration> = SECOND..=YEAR;
    let default = Ttls::default();
    let mut read = |key, default| section.read(key, duration(RANGE)).or(default);
    let ttls = Ttls {
        dns_min: read("dns_min", default.dns_min),
        dns_max: read("dns_max", default.dns_max),
        dns_negative_max: read("dns_negative_max", default.dns_negative_max),
        unknown: read("unknown", default.unknown),
        probe_positive: read("probe_positive", default.probe_positive),
        probe_negative: read("probe_negative", default.probe_negative),
        callout_positive: read("callout_positive", default.callout_positive),
        callout_negative: read("callout_negative", default.callout_negative),
        recipient_positive: read("recipient_positive", default.recipient_positive),
        recipient_negative: read("recipient_negative", default.recipient_negative),
    };
    let min = ttls.dns_min;
    for (key, max) in [("dns_max", ttls.dns_max), ("dns_negative_max", ttls.dns_negative_max)] {
        if let (true, Some(at)) = (max < min, section.start()) {
            let field = section.field(key);
            let (max, min) = (format_duration(max), format_duration(min));
            let problem = format!("{max} is less than dns_min, which is {min}");
            section.diagnostics.error(at, &field, problem, "make it longer, or dns_min shorter");
        }
    }
    ttls
}

/// Adds the settings that follow from the relay's.
/// `asked` is the number of the listener whose upstream is asked for recipients.
pub(super) fn with_relay(
    lookup: LookupSettings,
    relay: &relay::RelaySettings,
    asked: usize,
) -> LookupSettings {
    let lookup =
        LookupSettings { hostname: relay.smtp.hostname.clone(), mark: relay.mark, ..lookup };
    let Some(listener) = relay.listeners.get(asked) else { return lookup };
    let upstream = &listener.upstream;
    LookupSettings {
        upstreams: upstream.addresses.iter().filter_map(UpstreamTarget::address).collect(),
        named_upstream: upstream.has_names().then(|| Arc::clone(&listener.name)),
        upstream_proxy_header: match upstream.identity {
            // LOCAL, without addresses (proxy-protocol.txt §2.2).
            UpstreamIdentity::ProxyV2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
            _ => Vec::new(),
        },
        upstream_proxy_v1: upstream.identity == UpstreamIdentity::ProxyV1,
        ..lookup
    }
}

/// `[vantage]`; `None` without the section, or if it is invalid.
pub(super) fn vantage(section: &mut Section<'_, '_, '_>) -> Option<vantage::VantageSettings> {
    section.start()?;
    let domains = non_empty(domain, "write at least one domain such as \"example.org\"");
    let timeout = section.read("timeout", duration(SECOND..=5 * MINUTE));
    let address = section.require("address", peer);
    let key = section.require("key_file", file);
    let domains = section.require("domains", domains);
    Some(vantage::VantageSettings {
        address: address.into_option()?,
        key: key.into_option()?,
        domains: into_values(domains.into_option()?),
        timeout: timeout.or(vantage::DEFAULT_TIMEOUT),
    })
}

/// The address of a DNS server, with or without a port.
fn server(value: &Value<'_>) -> ValueResult<SocketAddr> {
    let written = string(value, "an address", "\"192.0.2.53\"")?;
    parse_server(written).or_else(|_error| {
        let problem = format!("\"{}\" is not the address of a DNS server", printable(written));
        invalid(value, problem, "write one such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"")
    })
}

fn file(value: &Value<'_>) -> ValueResult<PathBuf> {
    const EXAMPLE: &str = "\"/var/lib/gatepost/facts.redb\"";
    let path = string(value, "a path", EXAMPLE)?;
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a file", printable(path));
        return invalid(value, problem, format!("write a path such as {EXAMPLE}"));
    }
    Ok(path.into())
}

/// The message does not repeat the URL, which may have a password.
fn redis_url(value: &Value<'_>) -> ValueResult<String> {
    const EXAMPLE: &str = "\"redis://192.0.2.6:6379/0\"";
    let url = string(value, "the URL of a Redis server", EXAMPLE)?;
    check_redis_url(url).map(|()| url.to_owned()).or_else(|error| {
        let problem = format!("not the URL of a Redis server ({})", printable(&error));
        invalid(value, problem, format!("write one such as {EXAMPLE}"))
    })
}
