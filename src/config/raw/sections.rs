//! The sections without a file of their own: types, ranges and defaults of their keys.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::listeners::{ListenerReference, listener_or_address, named_listeners};
use super::net::{
    control_host, domain, host_name_or_address, hostname, interface, is_domain, keyword, listener,
    network,
};
use super::reader::{Field, List, Section};
use super::text::printable;
use super::value::{Value, ValueResult, invalid};
use super::values::{
    boolean, duration, integer, into_values, list, non_empty, one_of, path, size, string,
};
use crate::addr::{Family, Networks};
use crate::config::MetricsConfig;
use crate::config::size::WATCH_BUFFER;
use crate::control;
use crate::engine::{
    BareNewlines, EarlyData, Limits as SessionLimits, PathSyntax, Pregreet, RefuseAt, SmtpOptions,
};
use crate::metrics::domain_check::DomainCheckSettings;
use crate::policy::{AccessRule, PolicyAction};
use crate::readiness::Control;
use crate::relay::RelayLimits;
use crate::report::{LogFormat, LogSettings, status};
use crate::source::live;
use crate::stream::WatchedPorts;

pub(super) const DRAIN: Duration = Duration::from_secs(30);
pub(super) const STRESS_ABOVE: u8 = 80;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// `names` are those of the rules before it, with their positions.
pub(super) fn access(
    section: &mut Section<'_, '_, '_>,
    names: &mut Vec<Spanned<String>>,
) -> AccessSection {
    let actions = [PolicyAction::Accept, PolicyAction::Tempfail, PolicyAction::Reject]
        .map(|a| (a.as_str(), a));
    let families = Family::ALL.map(|family| (family.as_str(), family));
    let name = section.require("name", rule_name);
    let family = section.read("family", one_of(&families));
    let networks = section.read("networks", non_empty(network, "leave it out for every address"));
    let listeners = section
        .read("listeners", non_empty(listener_or_address, "leave it out for every listener"));
    let action = section.require("action", one_of(&actions));

    check_unique_name(section, &name, names);
    let is_unconditional = family.is_absent() && networks.is_absent() && listeners.is_absent();
    if let (true, Some(at)) = (is_unconditional, section.start()) {
        let remedy = "add `family`, `networks` or `listeners`";
        section.diagnostics.error(at, "[[access]]", "the rule has no condition", remedy);
    }
    check_networks_of_family(section, &family, &networks);
    let rule = || {
        Some(AccessRule {
            name: name.given()?.get_ref().as_str().into(),
            family: family.given().map(|family| *family.get_ref()),
            networks: Networks::new(into_values(networks.or_default())),
            listeners: named_listeners(&listeners),
            action: *action.given()?.get_ref(),
        })
    };
    AccessSection { rule: rule(), listeners }
}

/// One `[[access]]` rule, `None` if it is invalid, and its condition for cross-checks.
pub(super) struct AccessSection {
    pub(super) rule: Option<AccessRule>,
    pub(super) listeners: List<ListenerReference>,
}

/// Verdicts and metrics identify a rule by its name. `names` are those before it, with their positions.
pub(super) fn check_unique_name(
    section: &mut Section<'_, '_, '_>,
    name: &Field<String>,
    names: &mut Vec<Spanned<String>>,
) {
    let Some(name) = name.given() else { return };
    match names.iter().find(|earlier| earlier.get_ref() == name.get_ref()) {
        Some(earlier) => {
            let line = section.diagnostics.position(earlier.span().start).line;
            let problem = format!("the rule on line {line} has the same name");
            let (field, at) = (section.field("name"), name.span().start);
            section.diagnostics.error(at, &field, problem, "give each rule a unique name");
        }
        None => names.push(name.clone()),
    }
}

/// A rule for one family never matches networks of the other.
pub(super) fn check_networks_of_family(
    section: &mut Section<'_, '_, '_>,
    family: &Field<Family>,
    networks: &List<IpNet>,
) {
    let Some(family) = family.given().map(|family| *family.get_ref()) else { return };
    for network in networks.items() {
        if Family::of(network.get_ref().addr()) != family {
            let problem =
                format!("{} can never match with family = \"{family}\"", network.get_ref());
            let (field, at) = (section.field("networks"), network.span().start);
            section.diagnostics.error(at, &field, problem, "remove one of the two");
        }
    }
}

/// A name that fits in a reply.
pub(super) fn rule_name(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "a name", "\"no mail from there\"")?;
    let fits = (1..=64).contains(&name.len());
    if fits && name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !name.trim().is_empty() {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be part of a reply", printable(name));
    invalid(value, problem, "write 1 to 64 printable ASCII characters")
}

/// `[smtp]`
pub(super) struct SmtpSection {
    pub(super) options: SmtpOptions,
    pub(super) paths: Field<PathSyntax>,
}

pub(super) fn smtp(section: &mut Section<'_, '_, '_>) -> SmtpSection {
    let bare_newlines = [
        ("normalize", BareNewlines::Normalize),
        ("reject", BareNewlines::Reject),
        ("pass", BareNewlines::Pass),
    ];
    let refuse_at = [("connect", RefuseAt::Connect), ("rcpt", RefuseAt::Rcpt)];
    let pregreet = [("accept", Pregreet::Accept), ("reject", Pregreet::Reject)];
    let early_data = [("reject", EarlyData::Reject), ("allow", EarlyData::Allow)];
    let hostname = match section.read("hostname", hostname) {
        Field::Absent => host_name(section),
        given => given.or_default(),
    };
    let paths = section
        .read("paths", one_of(&[("strict", PathSyntax::Strict), ("lenient", PathSyntax::Lenient)]));
    let options = SmtpOptions {
        hostname,
        paths: paths.clone().or_default(),
        refuse_at: section.read("refuse_at", one_of(&refuse_at)).or_default(),
        bare_newlines: section.read("bare_newlines", one_of(&bare_newlines)).or_default(),
        pregreet: section.read("pregreet", one_of(&pregreet)).or_default(),
        early_data: section.read("early_data", one_of(&early_data)).or_default(),
        hide: into_values(section.read("hide", list(keyword)).or_default()),
    };
    SmtpSection { options, paths }
}

/// The name of this host, the default of `smtp.hostname`.
fn host_name(section: &mut Section<'_, '_, '_>) -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if !is_domain(&name) {
        let problem =
            format!("missing, and the host's name \"{}\" is not a domain", printable(&name));
        let remedy = "add `hostname = \"mx.example.org\"` to [smtp]";
        section.diagnostics.error(0, "smtp.hostname", problem, remedy);
    }
    name
}

pub(super) fn limits(section: &mut Section<'_, '_, '_>) -> RelayLimits {
    const MOST: u32 = 1_000_000;
    let session = SessionLimits::default();
    let mut rate = |key| {
        let sessions = section.read(key, integer(0..=MOST)).or(0);
        (sessions > 0).then_some(sessions)
    };
    let new_sessions_per_client_per_minute = rate("new_sessions_per_client_per_minute");
    let new_sessions_per_network_per_minute = rate("new_sessions_per_network_per_minute");
    let sessions_per_client = section.read("sessions_per_client", integer(1..=1_000_000)).or(50);
    RelayLimits {
        sessions: section.read("sessions", integer(1..=1_000_000)).or(10_000),
        sessions_per_client,
        new_sessions_per_client_per_minute,
        sessions_per_network: section
            .read("sessions_per_network", integer(1..=1_000_000))
            .or(sessions_per_client.saturating_mul(4)),
        new_sessions_per_network_per_minute,
        session: SessionLimits {
            line_length: section.read("line_length", integer(512..=65_536)).or(session.line_length),
            commands: section.read("commands", integer(1..=MOST)).or(session.commands),
            errors: section.read("errors", integer(1..=MOST)).or(session.errors),
        },
    }
}

/// The keys that `[timeouts]` and `[timeouts.stress]` share.
pub(super) struct TimeoutSection {
    pub(super) greeting: Field<Duration>,
    pub(super) command: Field<Duration>,
    pub(super) data: Field<Duration>,
    pub(super) reply: Field<Duration>,
    pub(super) acceptance: Field<Duration>,
    pub(super) passthrough_idle: Field<Duration>,
    pub(super) min_data_rate: Field<u32>,
}

pub(super) struct TimeoutsSection {
    pub(super) normal: TimeoutSection,
    pub(super) stress: TimeoutSection,
    pub(super) stress_above: Field<u8>,
    pub(super) drain: Field<Duration>,
}

pub(super) fn timeouts(section: &mut Section<'_, '_, '_>) -> TimeoutsSection {
    TimeoutsSection {
        normal: timeout_section(section),
        stress_above: section.read("stress_above", integer(1..=100)),
        drain: section.read("drain", duration(Duration::ZERO..=HOUR)),
        stress: timeout_section(&mut section.section("stress")),
    }
}

fn timeout_section(section: &mut Section<'_, '_, '_>) -> TimeoutSection {
    const RANGE: RangeInclusive<Duration> = SECOND..=HOUR;
    TimeoutSection {
        greeting: section.read("greeting", duration(RANGE)),
        command: section.read("command", duration(RANGE)),
        data: section.read("data", duration(RANGE)),
        reply: section.read("reply", duration(RANGE)),
        acceptance: section.read("acceptance", duration(RANGE)),
        passthrough_idle: section.read("passthrough_idle", duration(RANGE)),
        min_data_rate: section.read("min_data_rate", integer(0..=1_000_000)),
    }
}

pub(super) fn log(section: &mut Section<'_, '_, '_>) -> LogSettings {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    LogSettings {
        format: section.read("format", one_of(&formats)).or(LogFormat::Text),
        file: section.read("file", path).into_option(),
    }
}

/// `[metrics]`
pub(super) struct MetricsSection {
    pub(super) address: Field<SocketAddr>,
    checks: DomainCheckSettings,
    controls: Vec<Control>,
}

impl MetricsSection {
    pub(super) fn settings(self) -> Option<MetricsConfig> {
        let address = self.address.into_option()?;
        Some(MetricsConfig { address, checks: self.checks, controls: self.controls })
    }
}

pub(super) fn metrics(section: &mut Section<'_, '_, '_>) -> MetricsSection {
    let address = match section.start() {
        Some(_) => section.require("address", listener),
        None => Field::Absent,
    };
    let domains = section.read("probe_domains", list(domain)).or_default();
    let max_age = section.read("probe_cache_time", duration(SECOND..=HOUR));
    let checks = DomainCheckSettings {
        domains: into_values(domains).into_iter().collect(),
        max_age: max_age.or(DomainCheckSettings::MAX_AGE),
    };
    let controls = into_values(section.read("probe_controls", list(control_host)).or_default());
    MetricsSection { address, checks, controls }
}

pub(super) fn status(section: &mut Section<'_, '_, '_>) -> status::StatusSettings {
    let default = status::StatusSettings::default();
    status::StatusSettings {
        show_addresses: section.read("show_addresses", boolean).or(default.show_addresses),
        hosts: into_values(section.read("hosts", list(host_name_or_address)).or_default()),
    }
}

pub(super) fn control(section: &mut Section<'_, '_, '_>) -> control::ControlSettings {
    match section.read("socket", socket_path).into_option() {
        Some(socket) => control::ControlSettings { socket, required: true },
        None => control::ControlSettings::default(),
    }
}

fn socket_path(value: &Value<'_>) -> ValueResult<PathBuf> {
    // unix(7): sun_path, with its final NUL.
    const LONGEST: usize = 107;
    let example = format!("\"{}\"", control::DEFAULT_SOCKET);
    let path = string(value, "a path", &example)?;
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a socket", printable(path));
        return invalid(value, problem, format!("write a path such as {example}"));
    }
    if path.len() > LONGEST {
        let problem =
            format!("the path has {} bytes, that of a socket at most {LONGEST}", path.len());
        return invalid(value, problem, "write a shorter one");
    }
    Ok(path.into())
}

/// `[process] user`
pub(super) fn process(section: &mut Section<'_, '_, '_>) -> Option<String> {
    section.read("user", account).into_option()
}

/// A name that adduser(8) allows. Whether the account exists is checked at start-up.
fn account(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "the name of an account", "\"gatepost\"")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins_well = !name.starts_with(['-', '.']);
    if (1..=32).contains(&name.len()) && name.bytes().all(allowed) && begins_well {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be the name of an account", printable(name));
    invalid(value, problem, "write a name such as \"gatepost\", not a number")
}

/// `None` without the section.
pub(super) fn watch(section: &mut Section<'_, '_, '_>) -> Option<live::CaptureSettings> {
    use live::SourceChoice;
    let sources =
        [("auto", SourceChoice::Auto), ("ebpf", SourceChoice::Ebpf), ("pcap", SourceChoice::Pcap)];
    let ports = section.read("ports", list(integer(1..=u16::MAX)));
    let settings = live::CaptureSettings {
        choice: section.read("source", one_of(&sources)).or_default(),
        interfaces: into_values(section.read("interfaces", list(interface)).or_default()),
        ports: WatchedPorts::with_defaults(&into_values(ports.or_default())),
        buffer: section.read("buffer", size(WATCH_BUFFER)).or(live::CaptureSettings::BUFFER),
    };
    section.start().map(|_| settings)
}
