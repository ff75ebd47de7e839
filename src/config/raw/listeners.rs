//! `[listen]` with `[upstream]`, or `[[listener]]`: both become the same list.

use std::net::SocketAddr;
use std::time::Duration;

use ipnet::IpNet;
use toml::Spanned;

use super::net::{listener, network, upstream_target};
use super::reader::{Field, List, Section};
use super::text::printable;
use super::upstream_tls::{UpstreamTlsKeys, upstream_tls};
use super::value::{Value, ValueResult, invalid};
use super::values::{boolean, duration, integer, into_values, list, non_empty, one_of, string};
use crate::addr::Networks;
use crate::engine::TlsMode;
use crate::policy::ListenerCondition;
use crate::relay::{
    ListenerSettings, ListenerTls, UpstreamCheck, UpstreamHost, UpstreamIdentity, UpstreamSettings,
    UpstreamSocket, UpstreamTarget,
};

pub(super) const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_secs(10);
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Proxy,
    Tproxy,
}

impl Mode {
    /// The default of `upstream.identity`: interception makes sense only if the MTA sees the client's address.
    pub(super) const fn default_identity(self) -> UpstreamIdentity {
        match self {
            Self::Proxy => UpstreamIdentity::None,
            Self::Tproxy => UpstreamIdentity::Transparent,
        }
    }
}

/// All listeners of a file.
pub(super) struct ListenersSection {
    /// Not checked against each other yet.
    pub(super) listeners: Vec<ListenerSection>,
    pub(super) threads: Field<usize>,
}

/// A listener in either form.
pub(super) struct ListenerSection {
    /// `listen` or `listener`: the section as messages name it.
    pub(super) path: &'static str,
    pub(super) name: Field<String>,
    pub(super) addresses: List<SocketAddr>,
    pub(super) mode: Field<Mode>,
    pub(super) proxy_trusted: Networks,
    pub(super) tls: Field<ListenerTls>,
    pub(super) upstream: UpstreamSection,
}

/// `[upstream]` or `[listener.upstream]`.
#[derive(Clone)]
pub(super) struct UpstreamSection {
    /// `upstream` or `listener.upstream`.
    pub(super) path: &'static str,
    pub(super) addresses: List<UpstreamTarget>,
    pub(super) resolve_interval: Field<Duration>,
    pub(super) identity: Field<UpstreamIdentity>,
    pub(super) trusted_by_address: Field<bool>,
    pub(super) trusted_networks: List<IpNet>,
    pub(super) attempt_delay: Field<Duration>,
    pub(super) connect_timeout: Field<Duration>,
    pub(super) retry_after: Field<Duration>,
    pub(super) check: Field<UpstreamCheck>,
    pub(super) check_interval: Field<Duration>,
    pub(super) tls: UpstreamTlsKeys,
}

/// Reads both forms. A file has one of them; `[listen] threads` belongs to both. `has_policy`: Postfix asks this gateway, which
/// then needs no listener.
pub(super) fn listeners(root: &mut Section<'_, '_, '_>, has_policy: bool) -> ListenersSection {
    let proxy_trusted = proxy_protocol(&mut root.section("proxy_protocol"));
    let has = |section: &&str| root.contains(section);
    // These serve Postfix by other ways.
    let needs_none = has_policy || ["outbound"].iter().any(has);
    if needs_none && !["listen", "listener", "upstream"].iter().any(has) {
        return ListenersSection { listeners: Vec::new(), threads: Field::Absent };
    }
    let mut names = Vec::new();
    let has_own = root.contains("listener");
    let own = root.sections("listener", |section| own_sections(section, &mut names));
    let listen = &mut root.section("listen");
    let threads = listen.read("threads", integer(1..=1024));
    let (addresses, mode, tls) = if !has_own {
        (listen.require("addresses", addresses), mode(listen), tls(listen))
    } else {
        (listen.read("addresses", addresses), mode(listen), tls(listen))
    };
    if has_own {
        let given =
            [("addresses", addresses.start()), ("mode", mode.start()), ("tls", tls.start())];
        for (key, at) in given {
            let Some(at) = at else { continue };
            let problem = "the file has [[listener]] sections as well";
            let remedy = "move it to a [[listener]], or write [listen] and [upstream] only";
            let field = listen.field(key);
            listen.diagnostics.error(at, &field, problem, remedy);
        }
    }
    let is_proxy = |mode: &Field<Mode>| mode.effective(Mode::default()) == Some(Mode::Proxy);
    let shared_is_needed = if !has_own {
        is_proxy(&mode)
    } else {
        own.iter().any(|one| one.upstream.is_none() && is_proxy(&one.mode))
    };
    let mut section = root.section("upstream");
    let shared = upstream(&mut section, "upstream", shared_is_needed);
    if let (Some(at), true) = (section.start(), has_own && !own.is_empty())
        && own.iter().all(|one| one.upstream.is_some())
    {
        let problem = "every [[listener]] has an upstream of its own";
        section.diagnostics.error(at, "[upstream]", problem, "remove it");
    }
    let listeners = if !has_own {
        let (path, name) = ("listen", Field::Absent);
        vec![ListenerSection { path, name, addresses, mode, proxy_trusted, tls, upstream: shared }]
    } else {
        let listener = |one: OwnSections| ListenerSection {
            path: "listener",
            name: one.name,
            addresses: one.addresses,
            mode: one.mode,
            tls: one.tls,
            proxy_trusted: match one.proxy_trusted {
                Field::Absent => proxy_trusted.clone(),
                given => Networks::new(into_values(given.or_default())),
            },
            upstream: one.upstream.unwrap_or_else(|| shared.clone()),
        };
        own.into_iter().map(listener).collect()
    };
    ListenersSection { listeners, threads }
}

/// A `[[listener]]` with its subsections.
struct OwnSections {
    name: Field<String>,
    addresses: List<SocketAddr>,
    mode: Field<Mode>,
    tls: Field<ListenerTls>,
    proxy_trusted: List<IpNet>,
    upstream: Option<UpstreamSection>,
}

/// `names` are those of the listeners before it, with their positions.
fn own_sections(
    section: &mut Section<'_, '_, '_>,
    names: &mut Vec<Spanned<String>>,
) -> OwnSections {
    let name = section.require("name", listener_name);
    if let Some(name) = name.given() {
        match names.iter().find(|earlier| earlier.get_ref() == name.get_ref()) {
            Some(earlier) => {
                let line = section.diagnostics.position(earlier.span().start).line;
                let problem = format!("the listener on line {line} has the same name");
                let (field, at) = (section.field("name"), name.span().start);
                let remedy = "give each listener a unique name";
                section.diagnostics.error(at, &field, problem, remedy);
            }
            None => names.push(name.clone()),
        }
        if let (true, Some(at)) = (names.len() == ListenerSettings::MOST + 1, section.start()) {
            let problem = format!("more than {} listeners", ListenerSettings::MOST);
            let remedy = "merge some: each takes a list of addresses";
            section.diagnostics.error(at, "[[listener]]", problem, remedy);
        }
    }
    let addresses = section.require("addresses", addresses);
    let mode = mode(section);
    let tls = tls(section);
    let proxy_trusted = section.read("proxy_trusted", list(network));
    let mut own_upstream = section.section("upstream");
    let upstream = own_upstream.start().map(|_| {
        let needs_addresses = mode.effective(Mode::default()) == Some(Mode::Proxy);
        upstream(&mut own_upstream, "listener.upstream", needs_addresses)
    });
    OwnSections { name, addresses, mode, tls, proxy_trusted, upstream }
}

fn addresses(value: &Value<'_>) -> ValueResult<Vec<Spanned<SocketAddr>>> {
    non_empty(listener, "write at least one address such as \"[::1]:2525\"")(value)
}

fn mode(section: &mut Section<'_, '_, '_>) -> Field<Mode> {
    section.read("mode", one_of(&[("proxy", Mode::Proxy), ("tproxy", Mode::Tproxy)]))
}

fn tls(section: &mut Section<'_, '_, '_>) -> Field<ListenerTls> {
    section.read("tls", one_of(&ListenerTls::ALL.map(|tls| (tls.as_str(), tls))))
}

fn proxy_protocol(section: &mut Section<'_, '_, '_>) -> Networks {
    Networks::new(into_values(section.read("trusted", list(network)).or_default()))
}

fn upstream(
    section: &mut Section<'_, '_, '_>,
    path: &'static str,
    needs_addresses: bool,
) -> UpstreamSection {
    let identities = [
        ("none", UpstreamIdentity::None),
        ("transparent", UpstreamIdentity::Transparent),
        ("proxy-v1", UpstreamIdentity::ProxyV1),
        ("proxy-v2", UpstreamIdentity::ProxyV2),
        ("xclient", UpstreamIdentity::Xclient),
    ];
    let checks = [("smtp", UpstreamCheck::Smtp), ("none", UpstreamCheck::None)];
    // RFC 8305 §5: at least 10 ms, and no more than 2 s recommended.
    let attempt_delay = Duration::from_millis(10)..=2 * SECOND;
    let upstream = UpstreamSection {
        path,
        addresses: section.read(
            "addresses",
            non_empty(upstream_target, "write at least one address such as \"[::1]:25\""),
        ),
        resolve_interval: section.read("resolve_interval", duration(SECOND..=HOUR)),
        identity: section.read("identity", one_of(&identities)),
        trusted_by_address: section.read("trusted_by_address", boolean),
        trusted_networks: section.read("trusted_networks", list(network)),
        attempt_delay: section.read("attempt_delay", duration(attempt_delay)),
        connect_timeout: section
            .read("connect_timeout", duration(Duration::from_millis(100)..=HOUR)),
        retry_after: section.read("retry_after", duration(Duration::ZERO..=HOUR)),
        check: section.read("check", one_of(&checks)),
        check_interval: section.read("check_interval", duration(SECOND..=HOUR)),
        tls: upstream_tls(section),
    };
    if upstream.addresses.is_absent() && needs_addresses {
        section.missing("addresses");
    }
    upstream
}

impl ListenerSection {
    /// The mode in force; `None` if it is invalid.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.mode.effective(Mode::default())
    }

    /// The identity in force; `None` if it is invalid, or the mode is.
    pub(super) fn identity(&self) -> Option<UpstreamIdentity> {
        self.upstream.identity.effective(self.mode()?.default_identity())
    }

    /// What clients get; `shared` is the mode of `[tls]`.
    pub(super) fn tls(&self, shared: TlsMode) -> ListenerTls {
        let default = match shared.terminates() {
            true => ListenerTls::Starttls,
            false => ListenerTls::Passthrough,
        };
        self.tls.effective(default).unwrap_or(default)
    }

    /// `section.key`, as messages name it.
    pub(super) fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    /// `shared` is the mode of `[tls]`.
    pub(super) fn settings(self, shared: TlsMode) -> ListenerSettings {
        let mode = self.mode().unwrap_or_default();
        let tls = self.tls(shared);
        let upstream = self.upstream;
        ListenerSettings {
            name: self
                .name
                .into_option()
                .as_deref()
                .unwrap_or(ListenerSettings::DEFAULT_NAME)
                .into(),
            addresses: into_values(self.addresses.or_default()),
            transparent: mode == Mode::Tproxy,
            proxy_trusted: self.proxy_trusted,
            tls,
            upstream: UpstreamSettings {
                addresses: into_values(upstream.addresses.or_default()),
                resolve_interval: upstream.resolve_interval.or(UpstreamSettings::RESOLVE_INTERVAL),
                identity: upstream.identity.or(mode.default_identity()),
                attempt_delay: upstream.attempt_delay.or(ATTEMPT_DELAY),
                connect_timeout: upstream.connect_timeout.or(CONNECT_TIMEOUT),
                retry_after: upstream.retry_after.or(RETRY_AFTER),
                check: upstream.check.or_default(),
                check_interval: upstream.check_interval.or(CHECK_INTERVAL),
                tls: upstream.tls.settings(),
            },
        }
    }
}

impl UpstreamSection {
    /// The addresses in the file, with their positions.
    pub(super) fn literal(&self) -> impl Iterator<Item = (usize, SocketAddr)> {
        self.addresses.items().filter_map(|target| {
            target.get_ref().address().map(|address| (target.span().start, address))
        })
    }

    /// The Unix socket in the file, with its position.
    pub(super) fn socket(&self) -> Option<(usize, &UpstreamSocket)> {
        let mut targets = self.addresses.items();
        targets.find_map(|one| one.get_ref().socket().map(|socket| (one.span().start, socket)))
    }

    /// The host names in the file, with their positions.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (usize, &UpstreamHost)> {
        self.addresses
            .items()
            .filter_map(|target| target.get_ref().host().map(|host| (target.span().start, host)))
    }

    /// `section.key`, as messages name it.
    pub(super) fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }
}

/// A label of metrics and a word in logs.
fn listener_name(value: &Value<'_>) -> ValueResult<String> {
    let name = string(value, "a name", "\"submission\"")?;
    if is_listener_name(name) {
        return Ok(name.to_owned());
    }
    let problem = format!("\"{}\" cannot be the name of a listener", printable(name));
    let remedy = "write 1 to 32 lower-case letters, digits, `-` and `_`, a letter first";
    invalid(value, problem, remedy)
}

fn is_listener_name(name: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    (1..=32).contains(&name.len())
        && name.bytes().all(allowed)
        && name.starts_with(|first: char| first.is_ascii_lowercase())
}

/// A listener in the conditions of a rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ListenerReference {
    Name(String),
    /// An address that clients connect to.
    Address(SocketAddr),
}

/// `"submission"`, or `"[::1]:2525"`.
pub(super) fn listener_or_address(value: &Value<'_>) -> ValueResult<ListenerReference> {
    let written = string(value, "a listener", "\"submission\"")?;
    if written.contains([':', '.', '[', '*']) {
        return listener(value).map(ListenerReference::Address);
    }
    listener_name(value).map(ListenerReference::Name)
}

pub(super) fn named_listeners(references: &List<ListenerReference>) -> ListenerCondition {
    let mut listeners = ListenerCondition::default();
    for reference in references.items() {
        match reference.get_ref() {
            ListenerReference::Name(name) => listeners.names.push(name.as_str().into()),
            ListenerReference::Address(address) => listeners.addresses.push(*address),
        }
    }
    listeners
}
