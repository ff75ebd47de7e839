//! `[door]`, `[door.ipv6]` and `[door.ipv4]`.

use std::time::Duration;

use toml::Spanned;

use super::net::network;
use super::reader::{Field, Section};
use super::values::{duration, integer, list, one_of};
use crate::addr::{Family, Networks};
use crate::config::DoorConfig;
use crate::intercept::door::RefuseMethod;
use crate::lookup::vantage;
use crate::policy::door::{DoorSettings, WhenUnproven};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[door]`; without the section there is no door, and nothing is ever closed. IPv6 is guarded with it, IPv4 only with a section of
/// its own.
///
/// With a `vantage` a closed door can be proven to be of use again, so what is unproven closes it, unless the file says otherwise. Its
/// calls have to come in through a closed door; from its other family they come by an address that only the file can tell.
pub(super) fn door(
    section: &mut Section<'_, '_, '_>,
    vantage: Option<&vantage::VantageSettings>,
) -> Option<DoorConfig> {
    let unproven = if vantage.is_some() { WhenUnproven::Close } else { WhenUnproven::default() };
    let default = DoorSettings { when_unproven: unproven, ..DoorSettings::default() };
    let words = RefuseMethod::ALL.map(|refuse| (refuse.as_str(), refuse));
    let exempt = section.read("exempt", list(network)).or(Vec::new());
    let exempt = exempt.into_iter().map(Spanned::into_inner);
    let exempt = exempt.chain(vantage.map(|vantage| vantage.address.ip().to_canonical().into()));
    let door = DoorConfig {
        refuse: section.read("refuse", one_of(&words)).or_default(),
        exempt: Networks::new(exempt),
        probe_every: section
            .read("probe_interval", duration(SECOND..=HOUR))
            .or(DoorConfig::PROBE_EVERY),
        ipv6: Some(family(&mut section.section(Family::Ipv6.as_str()), &default).0),
        ipv4: {
            let (settings, is_there) =
                family(&mut section.section(Family::Ipv4.as_str()), &default);
            is_there.then_some(settings)
        },
    };
    section.begins().map(|_| door)
}

/// The settings of a family's door, and whether it has a section.
fn family(section: &mut Section<'_, '_, '_>, default: &DoorSettings) -> (DoorSettings, bool) {
    let unproven = [("open", WhenUnproven::Open), ("close", WhenUnproven::Close)];
    let retry = section.read("retry", duration(SECOND..=DAY));
    let longest = section.read("retry_max", duration(SECOND..=7 * DAY));
    not_shorter(section, &retry, &longest, default);
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
        stall_threshold: section
            .read("stall_threshold", integer(1..=1_000))
            .or(default.stall_threshold),
        stall_window: section.read("stall_window", duration(SECOND..=DAY)).or(default.stall_window),
        grace: section.read("grace", duration(Duration::ZERO..=DAY)).or(default.grace),
        min_hold: section.read("min_hold", duration(SECOND..=DAY)).or(default.min_hold),
        retry_max: longest.or(default.retry_max).max(retry.clone().or(default.retry)),
        retry: retry.or(default.retry),
    };
    (settings, section.begins().is_some())
}

fn not_shorter(
    section: &mut Section<'_, '_, '_>,
    retry: &Field<Duration>,
    longest: &Field<Duration>,
    default: &DoorSettings,
) {
    if let (Some(retry), Some(longest)) = (retry.in_force(default.retry), longest.given())
        && *longest.get_ref() < retry
    {
        let problem = format!(
            "{} is shorter than retry, which is {}",
            super::values::spoken(*longest.get_ref()),
            super::values::spoken(retry)
        );
        let (at, field) = (longest.span().start, section.field("retry_max"));
        section.notes.mistake(at, &field, problem, "make it longer, or leave it out");
    }
}
