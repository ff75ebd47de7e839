//! The keys of each section, with their ranges and defaults: the only place that names them.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::net::{hostname, interface, keyword, listener, network, peer};
use super::reader::{Field, Read, Section, Value};
use super::unknown::printable;
use super::values::{duration, fault, integer, list, one_of, path, size, some, text, truth};
use crate::addr::{Family, Networks};
use crate::config::WATCH_BUFFER;
use crate::control;
use crate::engine::{BareNewlines, Limits as SessionLimits, Pregreet, RefuseAt};
use crate::policy::{AccessRule, PolicyAction};
use crate::relay::{RelayLimits, UpstreamIdentity};
use crate::report::{LogFormat, LogSettings, status};
use crate::smtp::Keyword;
use crate::source::live::SourceChoice;

type List<T> = Field<Vec<Spanned<T>>>;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Proxy,
    Tproxy,
}

pub(super) struct Listen {
    pub(super) addresses: List<SocketAddr>,
    pub(super) mode: Field<Mode>,
    pub(super) threads: Field<usize>,
}

pub(super) fn listen(section: &mut Section<'_, '_, '_>) -> Listen {
    const EXAMPLE: &str = r#"addresses = ["[::1]:2525", "127.0.0.1:2525"]"#;
    let addresses = some(listener, "write at least one address such as \"[::1]:2525\"");
    Listen {
        addresses: section.require("addresses", EXAMPLE, addresses),
        mode: section.read("mode", one_of(&[("proxy", Mode::Proxy), ("tproxy", Mode::Tproxy)])),
        threads: section.read("threads", integer(1..=1024)),
    }
}

pub(super) struct Intercept {
    /// Where the section begins, if there is one.
    pub(super) begins: Option<usize>,
    pub(super) ports: List<u16>,
    pub(super) interfaces: List<String>,
    pub(super) mark: Field<u32>,
    pub(super) table: Field<u32>,
}

pub(super) fn intercept(section: &mut Section<'_, '_, '_>) -> Intercept {
    Intercept {
        begins: section.begins(),
        ports: section.read("ports", some(integer(1..=u16::MAX), "write [25], or leave it out")),
        interfaces: section.read("interfaces", list(interface)),
        // The mark after it is upstream's.
        mark: section.read("mark", integer(1..=u32::MAX - 1)),
        table: section.read("table", routing_table),
    }
}

/// A routing table of our own: what is put into the kernel's would break the host's routing.
fn routing_table(value: &Value<'_>) -> Read<u32> {
    let table = integer(1..=u32::MAX)(value)?;
    let owner = match table {
        253 => "default",
        254 => "main",
        255 => "local",
        _ => return Ok(table),
    };
    let problem = format!("{table} is the kernel's own table `{owner}`");
    fault(value, problem, "write a number that no other routing uses, or leave it out")
}

pub(super) struct Upstream {
    pub(super) addresses: List<SocketAddr>,
    pub(super) identity: Field<UpstreamIdentity>,
    pub(super) attempt_delay: Field<Duration>,
    pub(super) connect_timeout: Field<Duration>,
    pub(super) retry_after: Field<Duration>,
}

pub(super) const UPSTREAM_EXAMPLE: &str = r#"addresses = ["[::1]:25", "127.0.0.1:25"]"#;

pub(super) fn upstream(section: &mut Section<'_, '_, '_>, mode: Option<Mode>) -> Upstream {
    let identities = [
        ("none", UpstreamIdentity::None),
        ("transparent", UpstreamIdentity::Transparent),
        ("proxy-v1", UpstreamIdentity::ProxyV1),
        ("proxy-v2", UpstreamIdentity::ProxyV2),
        ("xclient", UpstreamIdentity::Xclient),
    ];
    // RFC 8305 §5 allows no less than 10 ms and advises no more than 2 s.
    let attempt_delay = Duration::from_millis(10)..=2 * SECOND;
    let upstream = Upstream {
        addresses: section
            .read("addresses", some(peer, "write at least one address such as \"[::1]:25\"")),
        identity: section.read("identity", one_of(&identities)),
        attempt_delay: section.read("attempt_delay", duration(attempt_delay)),
        connect_timeout: section
            .read("connect_timeout", duration(Duration::from_millis(100)..=HOUR)),
        retry_after: section.read("retry_after", duration(Duration::ZERO..=HOUR)),
    };
    if upstream.addresses.is_absent() && mode == Some(Mode::Proxy) {
        section.missing("addresses", UPSTREAM_EXAMPLE);
    }
    upstream
}

pub(super) fn proxy_protocol(section: &mut Section<'_, '_, '_>) -> Networks {
    let trusted = section.read("trusted", list(network)).or(Vec::new());
    Networks::new(trusted.into_iter().map(Spanned::into_inner))
}

/// One `[[access]]` rule; `None` when it is wrong. `names` are those of the rules before it, with their places.
pub(super) fn access(
    section: &mut Section<'_, '_, '_>,
    names: &mut Vec<Spanned<String>>,
) -> Option<AccessRule> {
    let actions = [PolicyAction::Accept, PolicyAction::Tempfail, PolicyAction::Reject]
        .map(|a| (a.as_str(), a));
    let families = Family::ALL.map(|family| (family.as_str(), family));
    let name = section.require("name", r#"name = "no mail from there""#, rule_name);
    let family = section.read("family", one_of(&families));
    let networks = section.read("networks", some(network, "leave it out for every address"));
    let action = section.require("action", r#"action = "reject""#, one_of(&actions));

    own_name(section, &name, names);
    if let (Field::Absent, Field::Absent, Some(at)) = (&family, &networks, section.begins()) {
        let advice = "add `family` or `networks`, to say whom it is about";
        section.notes.mistake(at, "[[access]]", "the rule has no condition", advice);
    }
    can_match(section, &family, &networks);
    Some(AccessRule {
        name: name.given()?.get_ref().as_str().into(),
        family: family.given().map(|family| *family.get_ref()),
        networks: Networks::new(networks.or(Vec::new()).into_iter().map(Spanned::into_inner)),
        action: *action.given()?.get_ref(),
    })
}

/// No other rule may have it: verdicts and metrics name a rule by it. `names` are those before it, with their places.
pub(super) fn own_name(
    section: &mut Section<'_, '_, '_>,
    name: &Field<String>,
    names: &mut Vec<Spanned<String>>,
) {
    let Some(name) = name.given() else { return };
    match names.iter().find(|earlier| earlier.get_ref() == name.get_ref()) {
        Some(earlier) => {
            let line = section.notes.position(earlier.span().start).line;
            let problem = format!("the rule on line {line} has the same name");
            let (field, at) = (section.field("name"), name.span().start);
            section.notes.mistake(at, &field, problem, "give each rule a name of its own");
        }
        None => names.push(name.clone()),
    }
}

/// A rule for one family is not about networks of the other.
pub(super) fn can_match(
    section: &mut Section<'_, '_, '_>,
    family: &Field<Family>,
    networks: &List<IpNet>,
) {
    let (Some(family), Some(networks)) = (family.given(), networks.given()) else { return };
    let family = *family.get_ref();
    for network in networks.get_ref() {
        if Family::of(network.get_ref().addr()) != family {
            let problem =
                format!("{} can never match with family = \"{family}\"", network.get_ref());
            let (field, at) = (section.field("networks"), network.span().start);
            section.notes.mistake(at, &field, problem, "remove one of the two");
        }
    }
}

/// It is said in replies, so it has to be what a reply can hold.
pub(super) fn rule_name(value: &Value<'_>) -> Read<String> {
    let name = text(value, "a name", "\"no mail from there\"")?;
    let fits = (1..=64).contains(&name.len());
    if fits && name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && !name.trim().is_empty() {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be said in a reply", printable(name));
    fault(value, problem, "write 1 to 64 printable ASCII characters")
}

pub(super) struct Smtp {
    pub(super) hostname: Field<String>,
    pub(super) refuse_at: Field<RefuseAt>,
    pub(super) bare_newlines: Field<BareNewlines>,
    pub(super) pregreet: Field<Pregreet>,
    pub(super) hide: List<Keyword>,
}

pub(super) fn smtp(section: &mut Section<'_, '_, '_>) -> Smtp {
    let bare_newlines = [
        ("normalize", BareNewlines::Normalize),
        ("reject", BareNewlines::Reject),
        ("pass", BareNewlines::Pass),
    ];
    let refuse_at = [("connect", RefuseAt::Connect), ("rcpt", RefuseAt::Rcpt)];
    let pregreet = [("accept", Pregreet::Accept), ("reject", Pregreet::Reject)];
    Smtp {
        hostname: section.read("hostname", hostname),
        refuse_at: section.read("refuse_at", one_of(&refuse_at)),
        bare_newlines: section.read("bare_newlines", one_of(&bare_newlines)),
        pregreet: section.read("pregreet", one_of(&pregreet)),
        hide: section.read("hide", list(keyword)),
    }
}

pub(super) fn limits(section: &mut Section<'_, '_, '_>) -> RelayLimits {
    const MOST: u32 = 1_000_000;
    let session = SessionLimits::default();
    let new_sessions = section.read("new_sessions_per_client_per_minute", integer(0..=MOST)).or(0);
    RelayLimits {
        sessions: section.read("sessions", integer(1..=1_000_000)).or(10_000),
        sessions_per_client: section.read("sessions_per_client", integer(1..=1_000_000)).or(50),
        new_sessions_per_client_per_minute: (new_sessions > 0).then_some(new_sessions),
        session: SessionLimits {
            line_length: section.read("line_length", integer(512..=65_536)).or(session.line_length),
            commands: section.read("commands", integer(1..=MOST)).or(session.commands),
            errors: section.read("errors", integer(1..=MOST)).or(session.errors),
        },
    }
}

/// The keys that `[timeouts]` and `[timeouts.stress]` share.
pub(super) struct TimeoutSet {
    pub(super) greeting: Field<Duration>,
    pub(super) command: Field<Duration>,
    pub(super) data: Field<Duration>,
    pub(super) reply: Field<Duration>,
    pub(super) acceptance: Field<Duration>,
    pub(super) opaque: Field<Duration>,
}

pub(super) struct Timeouts {
    pub(super) normal: TimeoutSet,
    pub(super) stress: TimeoutSet,
    pub(super) stress_above: Field<u8>,
    pub(super) drain: Field<Duration>,
}

pub(super) fn timeouts(section: &mut Section<'_, '_, '_>) -> Timeouts {
    Timeouts {
        normal: timeout_set(section),
        stress_above: section.read("stress_above", integer(1..=100)),
        drain: section.read("drain", duration(Duration::ZERO..=HOUR)),
        stress: timeout_set(&mut section.section("stress")),
    }
}

fn timeout_set(section: &mut Section<'_, '_, '_>) -> TimeoutSet {
    const RANGE: RangeInclusive<Duration> = SECOND..=HOUR;
    TimeoutSet {
        greeting: section.read("greeting", duration(RANGE)),
        command: section.read("command", duration(RANGE)),
        data: section.read("data", duration(RANGE)),
        reply: section.read("reply", duration(RANGE)),
        acceptance: section.read("acceptance", duration(RANGE)),
        opaque: section.read("passthrough_idle", duration(RANGE)),
    }
}

pub(super) fn log(section: &mut Section<'_, '_, '_>) -> LogSettings {
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let format = section.read("format", one_of(&formats)).or(LogFormat::Text);
    let file: Field<PathBuf> = section.read("file", path);
    LogSettings { format, file: file.given().map(|file| file.get_ref().clone()) }
}

pub(super) fn metrics(section: &mut Section<'_, '_, '_>) -> Field<SocketAddr> {
    match section.begins() {
        Some(_) => section.require("address", r#"address = "[::1]:9625""#, listener),
        None => section.read("address", listener),
    }
}

pub(super) fn status(section: &mut Section<'_, '_, '_>) -> status::StatusSettings {
    let default = status::StatusSettings::default();
    status::StatusSettings {
        show_addresses: section.read("show_addresses", truth).or(default.show_addresses),
    }
}

pub(super) fn control(section: &mut Section<'_, '_, '_>) -> control::ControlSettings {
    let socket: Field<PathBuf> = section.read("socket", socket_path);
    match socket.given() {
        Some(socket) => {
            control::ControlSettings { socket: socket.get_ref().clone(), required: true }
        }
        None => control::ControlSettings::default(),
    }
}

/// `[process] user`
pub(super) fn process(section: &mut Section<'_, '_, '_>) -> Option<String> {
    let user: Field<String> = section.read("user", account);
    user.given().map(|user| user.get_ref().clone())
}

/// As adduser(8) lets accounts be named; whether it is there is seen at the start.
fn account(value: &Value<'_>) -> Read<String> {
    let name = text(value, "the name of an account", "\"gatepost\"")?;
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=32).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with(['-', '.']) {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be the name of an account", printable(name));
    fault(value, problem, "write a name such as \"gatepost\", not a number")
}

pub(super) struct Watch {
    pub(super) begins: bool,
    pub(super) source: Field<SourceChoice>,
    pub(super) interfaces: List<String>,
    pub(super) ports: List<u16>,
    pub(super) buffer: Field<usize>,
}

pub(super) fn watch(section: &mut Section<'_, '_, '_>) -> Watch {
    let sources =
        [("auto", SourceChoice::Auto), ("ebpf", SourceChoice::Ebpf), ("pcap", SourceChoice::Pcap)];
    Watch {
        begins: section.begins().is_some(),
        source: section.read("source", one_of(&sources)),
        interfaces: section.read("interfaces", list(interface)),
        ports: section.read("ports", list(integer(1..=u16::MAX))),
        buffer: section.read("buffer", size(WATCH_BUFFER)),
    }
}

fn socket_path(value: &Value<'_>) -> Read<PathBuf> {
    // unix(7): sun_path, with its final NUL.
    const LONGEST: usize = 107;
    let path = text(value, "a path", &format!("\"{}\"", control::DEFAULT_SOCKET))?;
    if path.is_empty() || path.contains('\0') || path.ends_with('/') {
        let problem = format!("\"{}\" cannot be the name of a socket", printable(path));
        return fault(
            value,
            problem,
            format!("write a path such as \"{}\"", control::DEFAULT_SOCKET),
        );
    }
    if path.len() > LONGEST {
        let problem = format!("the path has {} octets, a socket's at most {LONGEST}", path.len());
        return fault(value, problem, "write a shorter one");
    }
    Ok(path.into())
}
