//! `[door]`, `[door.ipv6]` and `[door.ipv4]`.

use std::time::Duration;

use ipnet::IpNet;

use super::net::network;
use super::reader::{Field, Section};
use super::values::{duration, format_duration, integer, into_values, list, one_of};
use crate::addr::{Family, Networks};
use crate::config::DoorConfig;
use crate::intercept::door::RefuseMethod;
use crate::lookup::vantage;
use crate::policy::door::{DoorSettings, SpamParity, WhenUnproven};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[door]`; `None` without the section. With it IPv6 has a door, IPv4 only with `[door.ipv4]`.
///
/// With a vantage the default is to close a door that is unproven, because the vantage can prove it open again. Its probes have
/// to pass a closed door, so its address is exempt; that of its other family is not known here and has to be in `exempt`.
pub(super) fn door(
    section: &mut Section<'_, '_, '_>,
    vantage: Option<&vantage::VantageSettings>,
) -> Option<DoorConfig> {
    let unproven = if vantage.is_some() { WhenUnproven::Close } else { WhenUnproven::default() };
    let default = DoorSettings { when_unproven: unproven, ..DoorSettings::default() };
    let methods = RefuseMethod::ALL.map(|method| (method.as_str(), method));
    let mut exempt = into_values(section.read("exempt", list(network)).or_default());
    exempt.extend(vantage.map(|vantage| IpNet::from(vantage.address.ip().to_canonical())));
    let interval = section.read("probe_interval", duration(SECOND..=HOUR));
    let interval = interval.or(DoorConfig::PROBE_INTERVAL);
    // A vantage that is late once or twice still responds.
    let max_age = |settings: DoorSettings| DoorSettings {
        probe_max_age: settings.retry.max(interval.saturating_mul(3)),
        ..settings
    };
    let door = DoorConfig {
        refuse: section.read("refuse", one_of(&methods)).or_default(),
        exempt: Networks::new(exempt),
        probe_interval: interval,
        ipv6: {
            let (settings, _) = family(&mut section.section(Family::Ipv6.as_str()), &default);
            Some(max_age(settings))
        },
        ipv4: {
            let (settings, is_given) =
                family(&mut section.section(Family::Ipv4.as_str()), &default);
            is_given.then(|| max_age(settings))
        },
    };
    section.start().map(|_| door)
}

/// The settings of a family's door, and whether the file has its section.
fn family(section: &mut Section<'_, '_, '_>, default: &DoorSettings) -> (DoorSettings, bool) {
    let parity = [("warn", SpamParity::Warn), ("close", SpamParity::Close)];
    let unproven = [("open", WhenUnproven::Open), ("close", WhenUnproven::Close)];
    let retry = section.read("retry", duration(SECOND..=DAY));
    let retry_max = section.read("retry_max", duration(SECOND..=7 * DAY));
    check_retry_max(section, &retry, &retry_max, default.retry);
    let settings = DoorSettings {
        when_unproven: section.read("when_unproven", one_of(&unproven)).or(default.when_unproven),
        proof_max_age: section
            .read("proof_max_age", duration(60 * SECOND..=30 * DAY))
            .or(default.proof_max_age),
        failure_threshold: section
            .read("failure_threshold", integer(1..=100))
            .or(default.failure_threshold),
        success_threshold: section
            .read("success_threshold", integer(1..=100))
            .or(default.success_threshold),
        probe_max_age: default.probe_max_age,
        agreeing_networks: section
            .read("agreeing_networks", integer(2..=1_000))
            .or(default.agreeing_networks),
        stall_threshold: section
            .read("stall_threshold", integer(1..=1_000))
            .or(default.stall_threshold),
        stall_duration: section
            .read("stall_duration", duration(SECOND..=DAY))
            .or(default.stall_duration),
        grace: section.read("grace", duration(Duration::ZERO..=DAY)).or(default.grace),
        min_hold: section.read("min_hold", duration(SECOND..=DAY)).or(default.min_hold),
        retry_max: retry_max.or(default.retry_max).max(retry.clone().or(default.retry)),
        retry: retry.or(default.retry),
        spam_parity: section.read("spam_parity", one_of(&parity)).or(default.spam_parity),
    };
    (settings, section.start().is_some())
}

pub(super) fn check_retry_max(
    section: &mut Section<'_, '_, '_>,
    retry: &Field<Duration>,
    retry_max: &Field<Duration>,
    default: Duration,
) {
    if let (Some(retry), Some(max)) = (retry.effective(default), retry_max.given())
        && *max.get_ref() < retry
    {
        let problem = format!(
            "{} is shorter than retry, which is {}",
            format_duration(*max.get_ref()),
            format_duration(retry)
        );
        let (at, field) = (max.span().start, section.field("retry_max"));
        section.diagnostics.error(at, &field, problem, "make it longer, or leave it out");
    }
}
