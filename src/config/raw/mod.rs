//! TOML to a checked [`Config`], with all errors at once.
//!
//! `toml` parses and recovers from errors (`syntax`). `listeners`, `tls`, `sections`, `intercept`, `policy`, `lookup`,
//! `postfix`, `outbound`, `canary` and `door` read the tables through `reader`, which records errors in `diagnostics`; `unknown` compares the keys of the file with the table in `config::keys`; `cross_checks`
//! compares sections with each other. Without an error, [`Config::parse`] puts the parts together.

mod canary;
mod client_identity;
mod cross_checks;
mod diagnostics;
mod door;
mod intercept;
mod listeners;
mod lookup;
mod net;
mod outbound;
mod policy;
mod postfix;
mod reader;
mod sections;
mod syntax;
mod text;
mod tls;
mod unknown;
mod upstream_tls;
mod value;
mod values;

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;

use toml::de::DeTable;

use self::diagnostics::Diagnostics;
use self::listeners::ListenersSection;
use self::reader::Section;
use self::sections::{TimeoutSection, TimeoutsSection};
use super::host::HostAddresses;
use super::{Config, ConfigErrors};
use crate::canary::MarkRules;
use crate::intercept::InterceptSettings;
use crate::lookup::LookupSettings;
use crate::policy::AccessRules;
use crate::policy::rules::PolicyRules;
use crate::{engine, relay};

impl Config {
    /// Parses a configuration in TOML, without checks that depend on the host; `file` is its name in messages.
    ///
    /// # Errors
    ///
    /// All errors in it.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        parse(text, file, &())
    }

    /// Parses a configuration for a gateway on `host`.
    ///
    /// # Errors
    ///
    /// All errors in it.
    pub fn parse_for(
        text: &str,
        file: &str,
        host: &dyn HostAddresses,
    ) -> Result<Self, ConfigErrors> {
        parse(text, file, host)
    }

    /// Reads the configuration file at `path`, without checks that depend on the host.
    ///
    /// # Errors
    ///
    /// All errors in it, or why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        Self::load_for(path, &())
    }

    /// Reads the configuration file at `path` for a gateway on `host`.
    ///
    /// # Errors
    ///
    /// All errors in it, or why it cannot be read.
    pub fn load_for(path: &Path, host: &dyn HostAddresses) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let bytes = fs::read(path).map_err(|error| ConfigErrors::unreadable(&file, &error))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => parse(text, &file, host),
            Err(error) => Err(ConfigErrors::not_utf8(&file, &bytes, error.valid_up_to())),
        }
    }
}

fn parse(text: &str, file: &str, host: &dyn HostAddresses) -> Result<Config, ConfigErrors> {
    let mut diagnostics = Diagnostics::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    syntax::check(&errors, document.get_ref(), text, &mut diagnostics);

    let mut root = Section::document(document.get_ref(), &mut diagnostics);
    let postfix = postfix::postfix(&mut root.section("postfix"));
    let ListenersSection { listeners, threads } =
        listeners::listeners(&mut root, postfix.has_policy());
    let intercept = intercept::intercept(&mut root.section("intercept"), &listeners);
    let mut names = Vec::new();
    let access = root.sections("access", |rule| sections::access(rule, &mut names));
    let mut count = 0;
    let policies = root.sections("policy", |rule| policy::policy(rule, &mut names, &mut count));
    let site = policy::site(&mut root.section("site"));
    let smtp = sections::smtp(&mut root.section("smtp"));
    let tls = tls::tls(&mut root.section("tls"));
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
    let canary = canary::canary(&mut root.section("canary"), vantage.is_some());
    let outbound = outbound::outbound(&mut root.section("outbound"), user.as_deref());
    let door = door::door(&mut root.section("door"), vantage.as_ref());

    unknown::check(document.get_ref(), &mut diagnostics);
    intercept::check(&listeners, &intercept, tls.mode, &mut diagnostics);
    cross_checks::addresses(&listeners, &mut diagnostics);
    cross_checks::upstreams(&listeners, &mut diagnostics);
    client_identity::check_open_relay(&listeners, host, &mut diagnostics);
    tls::check(&tls, &listeners, &smtp, &mut diagnostics);
    tls::check_rules(&tls, &policies, &mut diagnostics);
    cross_checks::upstream_tls(&listeners, tls.mode, &mut diagnostics);
    client_identity::check_impersonation(
        &listeners,
        &smtp.options.hide,
        tls.mode,
        &mut diagnostics,
    );
    let rules = (&access[..], &policies[..]);
    cross_checks::rule_listeners(&listeners, rules, postfix.has_policy(), &mut diagnostics);
    let asked = cross_checks::call_ahead(&listeners, &policies, &mut diagnostics);
    cross_checks::paths(&smtp.paths, &policies, &mut diagnostics);
    cross_checks::metrics(&listeners, &metrics.address, &mut diagnostics);
    postfix::check(&postfix, &listeners, &metrics.address, &policies, &mut diagnostics);
    cross_checks::timeouts(&timeouts, &mut diagnostics);
    let errors = diagnostics.finish();
    if !errors.is_empty() {
        return Err(ConfigErrors::new(file, errors));
    }

    let upstream_trust = listeners.iter().map(client_identity::trust).collect();
    let listeners: Vec<_> = listeners.into_iter().map(|one| one.settings(tls.mode)).collect();
    let transparent = listeners.iter().filter(|listener| listener.transparent);
    let transparent: Vec<_> =
        transparent.flat_map(|listener| listener.addresses.iter().copied()).collect();
    let intercept = (!transparent.is_empty()).then(|| intercept.settings(&transparent));
    let relay = relay::RelaySettings {
        listeners,
        threads: threads.or(available_parallelism().map_or(1, NonZero::get)),
        mark: intercept.as_ref().map(InterceptSettings::own_mark),
        access: AccessRules::new(access.into_iter().filter_map(|access| access.rule).collect()),
        rules: Arc::new(
            PolicyRules::new(
                policies.into_iter().filter_map(|policy| policy.rule).collect(),
                site.addresses.clone(),
            )
            .with_site_domains(site.domains.clone()),
        ),
        smtp: smtp.options,
        limits,
        tls: tls.mode,
        after_tls_failures: tls.after_failures,
        trace_header: tls.trace_header,
        canary_marks: canary.as_ref().map(|canary| MarkRules::new(canary.marks.clone())),
        drain: timeouts.drain.clone().or(sections::DRAIN),
        timeouts: timeout_sets(timeouts),
    };
    let own_networks = site.addresses.clone();
    let lookup = LookupSettings { own_networks, ..lookup::with_relay(lookup, &relay, asked) };
    Ok(Config {
        relay,
        upstream_trust,
        tls: tls.settings,
        intercept,
        log,
        metrics: metrics.settings(),
        status,
        control,
        policy_service: postfix.settings(),
        user,
        site,
        watch,
        door,
        lookup,
        outbound,
        vantage,
        canary,
    })
}

/// The defaults of `[timeouts.stress]` are short, and never longer than the normal times.
fn timeout_sets(section: TimeoutsSection) -> relay::TimeoutSets {
    fn set(section: TimeoutSection, default: engine::Timeouts) -> engine::Timeouts {
        engine::Timeouts {
            greeting: section.greeting.or(default.greeting),
            command: section.command.or(default.command),
            data: section.data.or(default.data),
            reply: section.reply.or(default.reply),
            acceptance: section.acceptance.or(default.acceptance),
            opaque: section.passthrough_idle.or(default.opaque),
            min_data_rate: section.min_data_rate.or(default.min_data_rate),
        }
    }
    let normal = set(section.normal, engine::Timeouts::RFC_5321);
    let stress = engine::Timeouts {
        command: normal.command.min(engine::Timeouts::STRESS.command),
        data: normal.data.min(engine::Timeouts::STRESS.data),
        opaque: normal.opaque.min(engine::Timeouts::STRESS.opaque),
        min_data_rate: normal.min_data_rate.max(engine::Timeouts::STRESS.min_data_rate),
        ..normal
    };
    relay::TimeoutSets {
        normal,
        stress: set(section.stress, stress),
        stress_above: section.stress_above.or(sections::STRESS_ABOVE),
    }
}
