//! `[lookup]` and `[vantage]`: how lookups are answered.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::net::{domain, peer};
use super::reader::{Field, Read, Section, Value};
use super::unknown::printable;
use super::values::{duration, fault, integer, list, plain, size, some, spoken, text, truth};
use crate::lookup::{
    CacheLimits, LookupSettings, ProbeSettings, Ttls, check_redis_url, parse_server, vantage,
};
use crate::relay::{self, UpstreamIdentity};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// As humantime has it: 365.25 days.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// `[lookup]`; what other sections decide is put in by [`with_relay`].
pub(super) fn lookup(section: &mut Section<'_, '_, '_>) -> LookupSettings {
    const MOST: u32 = 1_000_000;
    let default = LookupSettings::default();
    let (limits, probes) = (default.cache_limits, default.probes);
    let tenth = Duration::from_millis(100);
    LookupSettings {
        dns_servers: plain(section.read("dns", list(server)).or(Vec::new())),
        deadline: section.read("deadline", duration(tenth..=MINUTE)).or(default.deadline),
        traffic_max_age: section
            .read("traffic_max_age", duration(SECOND..=60 * MINUTE))
            .or(default.traffic_max_age),
        cache_limits: CacheLimits {
            entries: section.read("cache_entries", integer(100..=100_000_000)).or(limits.entries),
            bytes: section.read("cache_size", size(1 << 20..=64 << 30)).or(limits.bytes),
        },
        probes: ProbeSettings {
            port: section.read("probe_port", integer(1..=u16::MAX)).or(probes.port),
            timeout: section.read("probe_timeout", duration(tenth..=5 * MINUTE)).or(probes.timeout),
            callouts: section.read("callouts", truth).or(probes.callouts),
            large_segments: section.read("probe_large_segments", truth).or(probes.large_segments),
            max_concurrent: section
                .read("concurrent_probes", integer(1..=100_000))
                .or(probes.max_concurrent),
            per_second: section.read("probes_per_second", integer(1..=MOST)).or(probes.per_second),
            per_server_per_minute: section
                .read("probes_per_server_per_minute", integer(1..=MOST))
                .or(probes.per_server_per_minute),
        },
        max_pending_recipients: section
            .read("recipients_pending", integer(1..=100_000))
            .or(default.max_pending_recipients),
        cache_file: given(&section.read("cache_file", file)),
        redis: given(&section.read("redis", store)),
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
    let least = ttls.dns_min;
    for (key, most) in [("dns_max", ttls.dns_max), ("dns_negative_max", ttls.dns_negative_max)] {
        if let (true, Some(at)) = (most < least, section.begins()) {
            let field = section.field(key);
            let problem =
                format!("{} is less than dns_min, which is {}", spoken(most), spoken(least));
            section.notes.mistake(at, &field, problem, "make it longer, or dns_min shorter");
        }
    }
    ttls
}

/// What `[lookup]` takes from the relay's sections.
pub(super) fn with_relay(lookup: LookupSettings, relay: &relay::RelaySettings) -> LookupSettings {
    let upstream = &relay.upstream;
    LookupSettings {
        hostname: relay.smtp.hostname.clone(),
        mark: upstream.mark,
        upstreams: upstream.addresses.clone(),
        upstream_proxy_header: proxy_header(upstream.identity).to_vec(),
        ..lookup
    }
}

/// A PROXY header for a connection of the gateway's own: v1 `UNKNOWN`, v2 `LOCAL`.
const fn proxy_header(identity: UpstreamIdentity) -> &'static [u8] {
    match identity {
        UpstreamIdentity::ProxyV1 => b"PROXY UNKNOWN\r\n",
        UpstreamIdentity::ProxyV2 => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
        UpstreamIdentity::None | UpstreamIdentity::Transparent | UpstreamIdentity::Xclient => b"",
    }
}

/// `[vantage]`: `None` without the section, or when it is wrong.
pub(super) fn vantage(section: &mut Section<'_, '_, '_>) -> Option<vantage::VantageSettings> {
    const DOMAINS: &str = "write at least one domain such as \"example.org\"";
    let begins = section.begins().is_some();
    let timeout = section.read("timeout", duration(SECOND..=5 * MINUTE));
    let (address, key, domains) = if begins {
        (
            section.require("address", r#"address = "[2001:db8:2::9]:9626""#, peer),
            section.require("key_file", r#"key_file = "/etc/gatepost/vantage.key""#, file),
            section.require("domains", r#"domains = ["example.org"]"#, some(domain, DOMAINS)),
        )
    } else {
        (
            section.read("address", peer),
            section.read("key_file", file),
            section.read("domains", some(domain, DOMAINS)),
        )
    };
    Some(vantage::VantageSettings {
        address: *address.given()?.get_ref(),
        key: given(&key)?,
        domains: plain(domains.given()?.get_ref().clone()),
        timeout: timeout.or(vantage::DEFAULT_TIMEOUT),
    })
}

fn given<T: Clone>(field: &Field<T>) -> Option<T> {
    field.given().map(|value| value.get_ref().clone())
}

/// A DNS server's address, with or without a port.
fn server(value: &Value<'_>) -> Read<SocketAddr> {
    const EXAMPLE: &str = "\"192.0.2.53\"";
    let written = text(value, "an address", EXAMPLE)?;
    parse_server(written).or_else(|_why| {
        let problem = format!("\"{}\" is not the address of a DNS server", printable(written));
        fault(value, problem, "write one such as \"192.0.2.53\" or \"[2001:db8::53]:5353\"")
    })
}

fn file(value: &Value<'_>) -> Read<PathBuf> {
    const EXAMPLE: &str = "\"/var/lib/gatepost/facts.redb\"";
    let path = text(value, "a path", EXAMPLE)?;
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a file", printable(path));
        return fault(value, problem, format!("write a path such as {EXAMPLE}"));
    }
    Ok(path.into())
}

fn store(value: &Value<'_>) -> Read<String> {
    const EXAMPLE: &str = "\"redis://192.0.2.6:6379/0\"";
    let url = text(value, "the address of a Redis server", EXAMPLE)?;
    match check_redis_url(url) {
        Ok(()) => Ok(url.to_owned()),
        // The address may hold a password.
        Err(why) => {
            let problem = format!("it names no Redis server ({})", printable(&why));
            fault(value, problem, format!("write one such as {EXAMPLE}"))
        }
    }
}
