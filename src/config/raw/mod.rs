//! TOML to a checked [`Config`], telling every mistake at once.
//!
//! `toml` parses and goes on after errors (`syntax`); `sections` reads what is there through `reader`, which notes what is
//! wrong; `agree` holds the sections against each other; without a mistake, [`parse`] puts the parts together.

mod agree;
mod door;
mod lookup;
mod net;
mod policy;
mod reader;
mod sections;
mod syntax;
mod unknown;
mod values;

use std::net::SocketAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use toml::de::DeTable;

use self::reader::{Field, Notes, Section};
use self::sections::{Intercept, Mode, TimeoutSet, Timeouts, Watch};
use self::values::plain;
use super::{Config, ConfigErrors};
use crate::addr::Family;
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;
use crate::source::live;
use crate::stream::WatchedPorts;
use crate::{engine, intercept, relay};

const INTERCEPT_PORT: u16 = 25;
const INTERCEPT_MARK: u32 = 0x6770;
const INTERCEPT_TABLE: u32 = 26_480;
const RETRY_AFTER: Duration = Duration::from_secs(10);
const DRAIN: Duration = Duration::from_secs(30);
const STRESS_ABOVE: u8 = 80;

/// The configuration that `text` says; `file` is for the messages.
pub(super) fn parse(text: &str, file: &str) -> Result<Config, ConfigErrors> {
    let mut notes = Notes::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    syntax::note(&errors, document.get_ref(), text, &mut notes);

    let mut root = Section::document(document.get_ref(), &mut notes);
    let listen = sections::listen(&mut root.section("listen"));
    let mode = agree::mode(&listen);
    let intercept = sections::intercept(&mut root.section("intercept"));
    let upstream = sections::upstream(&mut root.section("upstream"), mode);
    let proxy_trusted = sections::proxy_protocol(&mut root.section("proxy_protocol"));
    let mut names = Vec::new();
    let access = root.sections("access", |rule| sections::access(rule, &mut names));
    let mut count = 0;
    let policies = root.sections("policy", |rule| policy::policy(rule, &mut names, &mut count));
    let site = policy::site(&mut root.section("site"));
    let smtp = sections::smtp(&mut root.section("smtp"));
    let limits = sections::limits(&mut root.section("limits"));
    let timeouts = sections::timeouts(&mut root.section("timeouts"));
    let log = sections::log(&mut root.section("log"));
    let metrics = sections::metrics(&mut root.section("metrics"));
    let status = sections::status(&mut root.section("status"));
    let control = sections::control(&mut root.section("control"));
    let user = sections::process(&mut root.section("process"));
    let watch = sections::watch(&mut root.section("watch"));
    let lookup = lookup::lookup(&mut root.section("lookup"));
    let vantage = lookup::vantage(&mut root.section("vantage"));
    let door = door::door(&mut root.section("door"), vantage.as_ref());

    agree::interception(&listen, &intercept, &mut notes);
    agree::upstream(&listen, &upstream, &proxy_trusted, &mut notes);
    agree::policies(&listen, &policies, &proxy_trusted, &mut notes);
    agree::metrics(&listen, &metrics, &mut notes);
    agree::timeouts(&timeouts, &mut notes);
    let own_name = smtp.hostname.is_absent().then(|| own_name(&mut notes));

    let mistakes = notes.finish();
    if !mistakes.is_empty() {
        return Err(ConfigErrors::new(file, mistakes));
    }

    let mode = mode.unwrap_or_default();
    let addresses = plain(listen.addresses.or(Vec::new()));
    let intercept = (mode == Mode::Tproxy).then(|| interception(intercept, &addresses));
    let relay = relay::RelaySettings {
        listen: relay::ListenSettings {
            addresses,
            transparent: mode == Mode::Tproxy,
            threads: listen.threads.or(available_parallelism().map_or(1, NonZero::get)),
        },
        upstream: relay::UpstreamSettings {
            addresses: plain(upstream.addresses.or(Vec::new())),
            identity: upstream.identity.or(agree::default_identity(mode)),
            attempt_delay: upstream.attempt_delay.or(agree::ATTEMPT_DELAY),
            connect_timeout: upstream.connect_timeout.or(agree::CONNECT_TIMEOUT),
            retry_after: upstream.retry_after.or(RETRY_AFTER),
            mark: intercept.as_ref().map(|intercept| intercept.mark + 1),
        },
        proxy_trusted,
        access: AccessRules::new(access.into_iter().flatten().collect()),
        rules: Arc::new(PolicyRules::new(
            policies.into_iter().filter_map(|policy| policy.rule).collect(),
            site.addresses.clone(),
        )),
        smtp: engine::SmtpOptions {
            hostname: smtp.hostname.or(own_name.unwrap_or_default()),
            bare_newlines: smtp.bare_newlines.or_default(),
            refuse_at: smtp.refuse_at.or_default(),
            pregreet: smtp.pregreet.or_default(),
            hide: plain(smtp.hide.or_default()),
        },
        limits,
        drain: timeouts.drain.clone().or(DRAIN),
        timeouts: timeout_sets(timeouts),
    };
    let metrics = metrics.given().map(|address| *address.get_ref());
    let watch = watch.begins.then(|| watching(watch));
    let own_networks = site.addresses.clone();
    let lookup =
        crate::lookup::LookupSettings { own_networks, ..lookup::with_relay(lookup, &relay) };
    Ok(Config {
        relay,
        intercept,
        log,
        metrics,
        status,
        control,
        user,
        site,
        watch,
        door,
        lookup,
        vantage,
    })
}

fn watching(section: Watch) -> live::CaptureSettings {
    live::CaptureSettings {
        choice: section.source.or_default(),
        interfaces: plain(section.interfaces.or_default()),
        ports: WatchedPorts::with_defaults(&plain(section.ports.or_default())),
        buffer: section.buffer.or(live::CaptureSettings::BUFFER),
    }
}

fn interception(section: Intercept, listen: &[SocketAddr]) -> intercept::InterceptSettings {
    let port = |family| {
        let mut own = listen.iter().filter(|addr| Family::of(addr.ip()) == family);
        own.next().map(SocketAddr::port)
    };
    intercept::InterceptSettings {
        ports: section.ports.given().map_or_else(
            || vec![INTERCEPT_PORT],
            |ports| ports.get_ref().iter().map(|port| *port.get_ref()).collect(),
        ),
        interfaces: plain(section.interfaces.or_default()),
        mark: section.mark.or(INTERCEPT_MARK),
        table: section.table.or(INTERCEPT_TABLE),
        listen_ipv4: port(Family::Ipv4),
        listen_ipv6: port(Family::Ipv6),
    }
}

/// What `[timeouts.stress]` leaves out is as short as stress asks for, and never longer than the normal time.
fn timeout_sets(section: Timeouts) -> relay::TimeoutSets {
    fn set(section: TimeoutSet, default: engine::Timeouts) -> engine::Timeouts {
        engine::Timeouts {
            greeting: section.greeting.or(default.greeting),
            command: section.command.or(default.command),
            data: section.data.or(default.data),
            reply: section.reply.or(default.reply),
            acceptance: section.acceptance.or(default.acceptance),
            opaque: section.opaque.or(default.opaque),
        }
    }
    let normal = set(section.normal, engine::Timeouts::RFC_5321);
    let stress = engine::Timeouts {
        command: normal.command.min(engine::Timeouts::STRESS.command),
        data: normal.data.min(engine::Timeouts::STRESS.data),
        opaque: normal.opaque.min(engine::Timeouts::STRESS.opaque),
        ..normal
    };
    relay::TimeoutSets {
        normal,
        stress: set(section.stress, stress),
        stress_above: section.stress_above.or(STRESS_ABOVE),
    }
}

/// The host's name, for a file that gives none.
fn own_name(notes: &mut Notes<'_>) -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    let name = name.to_string_lossy().into_owned();
    if !net::is_domain(&name) {
        let shown = unknown::printable(&name);
        let problem = format!("missing, and the host's own name \"{shown}\" is not a domain");
        let advice = "add `hostname = \"mx.example.org\"` to [smtp]";
        notes.mistake(0, "smtp.hostname", problem, advice);
    }
    name
}

impl<T: Default> Field<T> {
    fn or_default(self) -> T {
        self.or(T::default())
    }
}
