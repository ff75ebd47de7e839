//! Configuration files: the settings of valid ones, and the exact messages about invalid ones.
//!
//! `UPDATE_EXPECT=1 cargo test --test core config` rewrites the `.stderr` files, tests/config/valid/full.toml and the tables of
//! docs/configuration.md; review the difference before you commit it.

mod client_identity;
mod keys;
mod listeners;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gatepost::addr::Family;
use gatepost::canary::MarkRules;
use gatepost::config::{Config, OutboundConfig};
use gatepost::engine::{Limits, Timeouts, TlsMode, UpstreamTls};
use gatepost::intercept::door::RefuseMethod;
use gatepost::outbound::Pins;
use gatepost::policy::facts::{DomainName, FamilyRequirement, ReturnPathLevel};
use gatepost::policy::rules::{
    Exemption, FactName, PolicyRule, PolicyStage, Requirement, RuleMode, When,
};
use gatepost::policy::{ClientArrival, PolicyAction, door};
use gatepost::postfix::policy::PolicySettings;
use gatepost::relay::{ListenerTls, UpstreamIdentity};
use gatepost::source::live::SourceChoice;
use gatepost::tls::MinVersion;

use proptest::prelude::*;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder(name)).unwrap();
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
        .collect();
    files.sort();
    files
}

fn valid(name: &str) -> Config {
    let path = folder("valid").join(name);
    Config::load(&path).unwrap_or_else(|errors| panic!("{errors}"))
}

fn update_expected() -> bool {
    std::env::var_os("UPDATE_EXPECT").is_some()
}

#[test]
fn every_invalid_file_has_its_exact_messages() {
    let files = files("invalid");
    assert!(files.len() >= 25, "only {} files", files.len());
    let mut wrong = Vec::new();
    for path in files {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let Err(errors) = Config::parse(&text, name) else {
            wrong.push(format!("{name}: no error found"));
            continue;
        };
        let messages = format!("{errors}\n");
        let expected = path.with_extension("stderr");
        if update_expected() {
            fs::write(&expected, messages).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != messages {
            wrong.push(format!("{name}: differs from {}:\n{messages}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_valid_file_is_accepted() {
    for path in files("valid") {
        if let Err(errors) = Config::load(&path) {
            panic!("{errors}");
        }
    }
}

#[test]
fn the_smallest_file_has_the_documented_defaults() {
    let config = valid("smallest.toml");
    let relay = &config.relay;
    let addresses = |list: &[&str]| -> Vec<std::net::SocketAddr> {
        list.iter().map(|addr| addr.parse().unwrap()).collect()
    };
    assert_eq!(relay.listeners[0].addresses, addresses(&["[::1]:2525", "127.0.0.1:2525"]));
    assert!(!relay.listeners[0].transparent);
    assert!(relay.threads >= 1);
    let upstream = &relay.listeners[0].upstream;
    let literal: Vec<_> = upstream.addresses.iter().map(|one| one.address().unwrap()).collect();
    assert_eq!(literal, addresses(&["[::1]:25", "127.0.0.1:25"]));
    assert_eq!(relay.listeners[0].upstream.identity, UpstreamIdentity::None);
    assert_eq!(relay.listeners[0].upstream.attempt_delay, Duration::from_millis(250));
    assert_eq!(relay.listeners[0].upstream.connect_timeout, Duration::from_secs(30));
    assert_eq!(relay.listeners[0].upstream.retry_after, Duration::from_secs(10));
    assert_eq!(relay.mark, None);
    assert!(relay.listeners[0].proxy_trusted.is_empty());
    assert!(!relay.smtp.hostname.is_empty());
    assert_eq!(relay.limits.sessions, 10_000);
    assert_eq!(relay.limits.sessions_per_client, 50);
    assert_eq!(relay.limits.new_sessions_per_client_per_minute, None);
    assert_eq!(relay.limits.session, Limits::default());
    assert_eq!(relay.timeouts.normal, Timeouts::RFC_5321);
    assert_eq!(relay.timeouts.stress, Timeouts::STRESS);
    assert_eq!(relay.timeouts.stress_above, 80);
    assert_eq!(relay.drain, Duration::from_secs(30));
    assert_eq!(config.intercept, None);
    assert_eq!(config.log, gatepost::report::LogSettings::default());
    let metrics = config.metrics.unwrap();
    assert_eq!(metrics.address, "[::1]:9625".parse().unwrap());
    assert_eq!(metrics.checks.max_age, Duration::from_secs(60));
    assert!(!config.status.show_addresses, "client addresses are private by default");
}

/// The full file has every default of the key table. It differs from the smallest file only in keys without a fixed default.
#[test]
fn defaults_of_the_key_table_are_those_in_force() {
    let (mut full, smallest) = (valid("full.toml"), valid("smallest.toml"));
    assert_eq!(full.relay.threads, 2);
    assert_eq!(full.relay.smtp.hostname, "mx.example.org");
    assert_eq!(full.log.file.take(), Some("/var/log/gatepost.log".into()));
    let destination = "[::1]:2525".parse().unwrap();
    let decide = |ip: &str| {
        let (client, listener) = (ip.parse().unwrap(), Some("default"));
        full.relay.access.decide(&ClientArrival { client, listener, destination })
    };
    assert_eq!(decide("2001:db8::1").action, PolicyAction::Reject);
    assert_eq!(decide("2001:db8::1").rule.as_deref(), Some("no mail from there"));
    assert_eq!(decide("2001:db9::1").action, PolicyAction::Accept);

    assert_eq!((full.user.take().as_deref(), &smallest.user), (Some("gatepost"), &None));
    assert!(full.control.required, "a configured socket is required");
    full.control.required = false;

    assert_eq!(
        (full.watch.take().map(|watch| watch.choice), smallest.watch.as_ref()),
        (Some(SourceChoice::Auto), None)
    );

    let outbound = full.outbound.take().unwrap();
    assert_eq!(outbound.map.to_str(), Some(OutboundConfig::MAP));
    assert_eq!(outbound.pins, Pins::default());
    assert_eq!(smallest.outbound, None, "Postfix's questions have no answer without the section");

    let door = full.door.take().unwrap();
    assert_eq!(door.refuse, RefuseMethod::Syn);
    assert!(door.exempt.contains("2001:db8:2::9".parse().unwrap()), "the vantage is exempt");
    assert!(!door.exempt.contains("2001:db8:2::8".parse().unwrap()));
    assert_eq!((door.ipv6, door.ipv4), (Some(door::DoorSettings::default()), None));
    assert_eq!(smallest.door, None, "no door without the section");
    assert_eq!(full.lookup.cache_file.take(), Some("/var/lib/gatepost/facts.redb".into()));
    assert_eq!(full.lookup.redis.take().as_deref(), Some("redis://192.0.2.6:6379/0"));
    full.lookup.hostname.clone_from(&smallest.lookup.hostname);
    let vantage = full.vantage.take().unwrap();
    assert_eq!(vantage.domains.len(), 1);
    assert_eq!(vantage.timeout, Duration::from_secs(20));
    assert_eq!(smallest.vantage, None);
    let canary = full.canary.take().unwrap();
    assert_eq!(canary.inbound_to, "canary@example.org");
    assert_eq!(canary.outbound.unwrap().to, "canary@vantage.example.net");
    assert!(!canary.prefer_ipv4);
    assert_eq!(canary.timeout, Duration::from_secs(30 * 60));
    assert_eq!(canary.max_age, Duration::from_secs(25 * 3_600));
    assert_eq!((canary.interval, canary.per_day), (Some(Duration::from_secs(3_600)), 48));
    assert_eq!(smallest.canary, None);
    assert_eq!(full.relay.canary_marks.take(), Some(MarkRules::new(canary.marks)));
    assert_eq!(smallest.relay.canary_marks, None);

    let policy = full.policy_service.take().unwrap();
    assert_eq!(policy.connections, PolicySettings::CONNECTIONS);
    assert_eq!(policy.deadline, PolicySettings::DEADLINE);
    assert_eq!(smallest.policy_service, None, "Postfix does not ask without the section");

    assert_eq!(full.relay.tls, TlsMode::Terminate { required: false });
    assert_eq!(full.tls.take().unwrap().min_version, MinVersion::Tls12);
    full.relay.tls = smallest.relay.tls;
    assert_eq!(full.relay.listeners[0].tls, ListenerTls::Starttls);
    full.relay.listeners[0].tls = smallest.relay.listeners[0].tls;
    let verified = std::mem::take(&mut full.relay.listeners[0].upstream.tls);
    assert_eq!(verified.level, Some(UpstreamTls::Verify));
    assert_eq!(verified.ca, Some("/etc/gatepost/ca.pem".into()));
    assert_eq!(verified.name.as_deref(), Some("mx.example.org"));

    full.relay.threads = smallest.relay.threads;
    full.relay.smtp.hostname.clone_from(&smallest.relay.smtp.hostname);
    full.relay.smtp.early_data = smallest.relay.smtp.early_data;
    let names: Vec<_> = full.relay.rules.iter().map(|rule| &*rule.name).collect();
    assert_eq!(names, ["ipv6 needs a forward-confirmed name"]);
    full.relay.rules = Arc::clone(&smallest.relay.rules);
    assert_eq!(full.site.domains.len(), 1);
    assert_eq!(full.lookup.own_networks, full.site.addresses, "own networks are never probed");
    full.lookup.own_networks = smallest.lookup.own_networks.clone();
    full.site = smallest.site.clone();
    full.relay.access = smallest.relay.access.clone();
    assert_eq!(full, smallest);
}

#[test]
fn policy_rules_have_defaults() {
    let policies = valid("policies.toml");
    let rules: Vec<_> = policies.relay.rules.iter().collect();
    let [bare, sender, one, other] = rules.as_slice() else { panic!("{} rules", rules.len()) };
    let dns = |fact| Requirement::new(fact);
    let expected = PolicyRule {
        name: "named".into(),
        at: PolicyStage::Connect,
        when: When::default(),
        exempt: Exemption::ALL.to_vec(),
        require: vec![dns(FactName::Fcrdns)],
        otherwise: PolicyAction::Tempfail,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    };
    assert_eq!(**bare, expected);

    assert_eq!(sender.at, PolicyStage::Mail, "the first stage that knows the sender");
    assert_eq!(sender.exempt, []);
    let name = |text| DomainName::parse(text).unwrap();
    assert_eq!(sender.when.sender.exact, [name("a.example")]);
    assert_eq!(sender.when.sender.below, [name("b.example")]);
    assert_eq!((sender.otherwise, sender.mode), (PolicyAction::Tag, RuleMode::Shadow));

    let path = Requirement {
        level: ReturnPathLevel::Rcpt,
        over: FamilyRequirement::SameFamily,
        ..dns(FactName::ReturnPath)
    };
    assert_eq!(one.require, [path, dns(FactName::Recipient)]);
    assert_eq!((one.at, one.on_unknown), (PolicyStage::Rcpt, PolicyAction::Accept));
    assert_eq!(
        (other.at, other.when.tls),
        (PolicyStage::Rcpt, Some(false)),
        "as configured, later than necessary"
    );
    assert_eq!(other.when.listeners.addresses, ["[::1]:2525".parse().unwrap()]);
    assert!(other.when.listeners.names.is_empty());
    assert_eq!(other.url.as_deref(), Some("https://mx.example.org/why"));

    assert!(policies.site.addresses.contains("2001:db8::7".parse().unwrap()));
    assert_eq!(policies.site.domains, [name("example.org")]);
}

#[test]
fn what_sessions_under_tls_escape_is_listed() {
    let smallest = fs::read_to_string(folder("valid").join("smallest.toml")).unwrap();
    let config = |more: &str| Config::parse(&(smallest.clone() + more), "t").unwrap();
    let always = [
        "[smtp] bare_newlines, paths, early_data",
        "[limits] commands, errors and line_length",
        "[timeouts] command, data and min_data_rate: passthrough_idle applies",
        "the rejection of XCLIENT and XFORWARD",
        "sender, recipients and replies in the log; the count of messages",
    ];
    assert_eq!(config("").not_applied_under_tls(), always);

    let rules = r#"
        [smtp]
        hide = ["CHUNKING", "DSN"]
        bare_newlines = "pass"
        [[policy]]
        name = "back"
        require = ["return_path"]
        [[policy]]
        name = "named"
        require = ["fcrdns"]
        exempt = ["postmaster", "authenticated"]
        [[policy]]
        name = "tagged"
        require = ["reverse_name"]
        otherwise = "tag"
        on_unknown = "accept"
        [[policy]]
        name = "without exceptions"
        require = ["helo_resolves"]
        exempt = []
        [[policy]]
        name = "only under TLS"
        when = { tls = true }
        require = ["fcrdns"]
    "#;
    let with_rules = config(rules);
    let expected = [
        "policy rule \"back\": it needs MAIL or RCPT",
        "policy rule \"named\": exempt (postmaster, authenticated)",
        "policy rule \"tagged\": the header of tag",
        "policy rule \"only under TLS\": it needs MAIL or RCPT",
        "[smtp] paths, early_data, hide = [\"CHUNKING\", \"DSN\"]",
    ];
    let listed = with_rules.not_applied_under_tls();
    assert_eq!(listed[..5], expected);
    assert_eq!(listed[5..], always[1..]);
    assert!(listed.iter().all(|phrase| phrase.len() <= 98));
    let named: Vec<_> =
        with_rules.rules_without_envelope().iter().map(|rule| &*rule.name).collect();
    assert_eq!(named, ["back", "only under TLS"]);
    let notice = with_rules.passthrough_notice().unwrap();
    assert!(notice.contains("policy rule \"back\": it needs MAIL or RCPT; policy"), "{notice}");
    assert_eq!(with_rules.warnings(), Vec::<String>::new());

    // Without STARTTLS every session is inspected.
    let hidden = config(&rules.replace("\"DSN\"", "\"STARTTLS\""));
    assert_eq!(hidden.not_applied_under_tls(), Vec::<String>::new());
    assert_eq!(hidden.passthrough_notice(), None);
    assert_eq!(hidden.rules_without_envelope().len(), 0);
    // So it is where the gateway ends TLS.
    let tls = fs::read_to_string(folder("valid").join("tls.toml")).unwrap();
    let path = "[[policy]]\nname = \"back\"\nrequire = [\"return_path\"]\n";
    let terminated = Config::parse(&(tls + path), "t").unwrap();
    assert_eq!(terminated.not_applied_under_tls(), Vec::<String>::new());
    assert_eq!(terminated.rules_without_envelope().len(), 0);
}

#[test]
fn a_hidden_starttls_is_warned_about() {
    let smallest = fs::read_to_string(folder("valid").join("smallest.toml")).unwrap();
    let text = smallest + "[smtp]\nhide = [\"STARTTLS\"]\n";
    let warnings = Config::parse(&text, "t").unwrap().warnings();
    let expected = "hide = [\"STARTTLS\"] in [smtp]: senders that require TLS (MTA-STS, DANE, \
        `smtp_tls_security_level = encrypt`) cannot deliver, and all other mail arrives unencrypted; remove it";
    assert_eq!(warnings, [expected]);
}

#[test]
fn resets_without_evidence_are_warned_about() {
    let with = |more: &str| {
        let text = format!(
            "smtp.hostname = \"mx.example.org\"\n[outbound]\nreset_users = [\"nobody\", 1]\n{more}"
        );
        let config = Config::parse(&text, "t").unwrap();
        let resets = config.outbound.as_ref().and_then(|outbound| outbound.resets.as_ref());
        assert_eq!(resets.unwrap().users, [1, 65_534]);
        config.warnings()
    };
    let expected = "reset_users or reset_sources in [outbound], without mail_log and [watch]: gatepost sees no attempt of the \
        MTA, and no connection is ever reset; add the section [watch]";
    assert_eq!(with(""), [expected]);
    assert_eq!(with("mail_log = \"-\"\n"), Vec::<String>::new());
    assert_eq!(with("[watch]\n"), Vec::<String>::new());
}

#[test]
fn canaries_that_no_restart_survives_are_warned_about() {
    let with = |more: &str| {
        let text = format!(
            "smtp.hostname = \"mx.example.org\"\nlisten.addresses = [\"[::1]:2525\"]\nupstream.addresses = [\"[::1]:25\"]\n\
             [canary]\nkey_file = \"k\"\ninbound_to = \"canary@example.org\"\n{more}"
        );
        Config::parse(&text, "t").unwrap().warnings()
    };
    let expected = "[canary] without cache_file in [lookup]: a restart forgets the results and how many pairs were sent; set \
        cache_file";
    assert_eq!(with(""), [expected]);
    assert_eq!(with("[lookup]\ncache_file = \"facts.redb\"\n"), Vec::<String>::new());
}

/// The names become labels of metrics.
#[test]
fn there_are_at_most_64_policy_rules() {
    let smallest = fs::read_to_string(folder("valid").join("smallest.toml")).unwrap();
    let with = |count: usize| {
        let rules =
            (0..count).map(|n| format!("[[policy]]\nname = \"{n}\"\nrequire = [\"fcrdns\"]\n"));
        Config::parse(&(smallest.clone() + &rules.collect::<String>()), "t")
    };
    assert_eq!(with(64).unwrap().relay.rules.iter().count(), 64);
    let errors = with(66).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "reported once: {errors}");
    assert!(errors.to_string().contains("[[policy]]: more than 64 rules; "), "{errors}");
}

#[test]
fn tproxy_derives_marks_ports_and_identity() {
    let both = valid("tproxy.toml");
    let intercept = both.intercept.unwrap();
    assert_eq!((intercept.mark, intercept.mask, intercept.table), (0x40, 0xc0, 26_480));
    assert_eq!(intercept.ports, [25]);
    assert!(intercept.interfaces.is_empty());
    assert_eq!((intercept.listen_ipv4, intercept.listen_ipv6), (Some(2525), Some(2525)));
    assert!(both.relay.listeners[0].transparent);
    assert!(both.relay.listeners[0].upstream.addresses.is_empty());
    assert_eq!(both.relay.listeners[0].upstream.identity, UpstreamIdentity::Transparent);
    assert_eq!(both.relay.mark, Some(0x80));

    let one = valid("tproxy-one-family.toml");
    let intercept = one.intercept.unwrap();
    assert_eq!((intercept.mark, intercept.mask, intercept.table), (0x10, 0x30, 77));
    assert_eq!(intercept.ports, [25, 587]);
    assert_eq!(intercept.interfaces, ["eth0"]);
    assert_eq!((intercept.listen_ipv4, intercept.listen_ipv6), (None, Some(2525)));
    assert_eq!(one.relay.mark, Some(0x20));

    assert_eq!(
        valid("tproxy-proxy-v2.toml").relay.listeners[0].upstream.identity,
        UpstreamIdentity::ProxyV2
    );
}

#[test]
fn lookup_settings_have_defaults_and_those_of_other_sections() {
    use gatepost::lookup::LookupSettings;
    let smallest = valid("smallest.toml").lookup;
    let expected = LookupSettings {
        hostname: smallest.hostname.clone(),
        upstreams: ["[::1]:25", "127.0.0.1:25"].map(|addr| addr.parse().unwrap()).to_vec(),
        ..LookupSettings::default()
    };
    assert_eq!(smallest, expected);
    let both = valid("tproxy-proxy-v2.toml");
    assert_eq!(both.lookup.mark, both.relay.mark);
    // PROXY v2, LOCAL, no addresses: proxy-protocol.txt §2.2.
    let header = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x20\x00\x00\x00";
    assert_eq!(both.lookup.upstream_proxy_header, header);
}

/// By default an unproven door closes only with a vantage, which can prove it open again.
#[test]
fn a_vantage_is_exempt_and_changes_the_default_of_when_unproven() {
    use gatepost::policy::door::WhenUnproven::{Close, Open};
    const VANTAGE: &str =
        "[vantage]\naddress = \"192.0.2.9:9626\"\nkey_file = \"k\"\ndomains = [\"example.org\"]\n";
    let smallest = fs::read_to_string(folder("valid").join("smallest.toml")).unwrap();
    for (sections, unproven, vantage_is_exempt) in [
        ("[door]\n".to_owned(), Open, false),
        (format!("{VANTAGE}[door]\n"), Close, true),
        (format!("[door]\n{VANTAGE}"), Close, true),
        (format!("[door]\nexempt = [\"2001:db8::/32\"]\n{VANTAGE}"), Close, true),
        (format!("[door.ipv6]\nwhen_unproven = \"open\"\n{VANTAGE}"), Open, true),
        ("[door.ipv6]\nwhen_unproven = \"close\"\n".to_owned(), Close, false),
    ] {
        let door = Config::parse(&(smallest.clone() + &sections), "t").unwrap().door.unwrap();
        assert_eq!(door.ipv6.unwrap().when_unproven, unproven, "{sections}");
        let exempt = |address: &str| door.exempt.contains(address.parse().unwrap());
        assert_eq!(exempt("192.0.2.9"), vantage_is_exempt, "{sections}");
        assert!(!exempt("192.0.2.8"), "{sections}");
        assert_eq!(exempt("2001:db8::9"), sections.contains("exempt"), "{sections}");
    }
}

#[test]
fn watch_has_defaults() {
    let full = valid("full.toml").watch.unwrap();
    let default = Config::parse(
        "[listen]\naddresses = [\"[::1]:2525\"]\n[upstream]\naddresses = [\"[::1]:25\"]\n[watch]\n",
        "t",
    );
    assert_eq!(default.unwrap().watch.unwrap(), full);
    assert_eq!((full.ports.as_slice(), full.buffer), ([25, 587, 2525].as_slice(), 64 << 20));

    let watch = valid("watch.toml").watch.unwrap();
    assert_eq!(watch.choice, SourceChoice::Pcap);
    assert_eq!(watch.interfaces, ["eth0", "eth1"]);
    assert_eq!(watch.ports, [25, 587, 2525, 2526]);
    assert_eq!(watch.buffer, 256 << 10);
}

#[test]
fn trusted_networks_are_canonical() {
    let trusted = valid("proxy-trusted.toml").relay.listeners[0].proxy_trusted.clone();
    for inside in ["2001:db8:1::7", "192.0.2.9", "::ffff:192.0.2.9", "10.0.0.1"] {
        assert!(trusted.contains(inside.parse().unwrap()), "{inside}");
    }
    for outside in ["2001:db8:2::7", "192.0.3.9", "10.0.0.2"] {
        assert!(!trusted.contains(outside.parse().unwrap()), "{outside}");
    }
    assert_eq!(Family::of("::ffff:192.0.2.9".parse().unwrap()), Family::Ipv4);
}

/// The defaults of `[timeouts.stress]` are never longer than the normal times.
#[test]
fn stress_timeouts_are_bounded_by_the_normal_ones() {
    let text = fs::read_to_string(folder("valid").join("smallest.toml")).unwrap();
    let text = text + "[timeouts]\ncommand = \"5s\"\nreply = \"7s\"\npassthrough_idle = \"1m\"\n";
    let stress = Config::parse(&text, "t").unwrap().relay.timeouts.stress;
    assert_eq!(stress.command, Duration::from_secs(5));
    assert_eq!(stress.reply, Duration::from_secs(7));
    assert_eq!(stress.opaque, Duration::from_secs(30));
}

#[test]
fn an_unreadable_file_is_reported() {
    let missing = folder("valid").join("no-such-file.toml");
    let errors = Config::load(&missing).unwrap_err().to_string();
    let expected = format!(
        "{}: cannot be read (No such file or directory (os error 2)); name a file that this user may read",
        missing.display()
    );
    assert_eq!(errors, expected);
}

#[test]
fn bytes_that_are_not_utf8_are_located() {
    let path = std::env::temp_dir().join(format!("gatepost-config-{}.toml", std::process::id()));
    fs::write(&path, b"[listen]\n# \xc3\xa4 \xff\n").unwrap();
    let errors = Config::load(&path);
    fs::remove_file(&path).unwrap();
    let errors = errors.unwrap_err().to_string();
    let expected = ":2:5: TOML: the byte 0xff here is not UTF-8; save the file in UTF-8";
    assert_eq!(errors, format!("{}{expected}", path.display()));
}

/// Neither a panic nor a stack overflow.
#[test]
fn deep_nesting_is_an_error() {
    let n = 100_000;
    let dotted = "a.".repeat(n) + "b = 1";
    let header = format!("[{}b]", "a.".repeat(n));
    for text in [dotted, header, format!("a = {}", "[".repeat(n)), "a={b=".repeat(n)] {
        assert!(Config::parse(&text, "deep.toml").is_err());
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in any::<String>()) {
        let _ = Config::parse(&text, "any.toml").map_err(|errors| errors.to_string());
    }

    #[test]
    fn no_toml_like_text_panics(
        text in r#"(\[{0,2}(listen|access|timeouts\.stress|x)\]{0,2}|(addresses|mode|ports|networks|name) ?=? ?|["'\[\]{},.=\n#]|0x|-?[0-9]{1,20}|1979-05-27|é|"[a-z:./0-9\[\]]{0,12}"){0,40}"#
    ) {
        let _ = Config::parse(&text, "like.toml").map_err(|errors| errors.to_string());
    }

    /// A valid file with some characters replaced.
    #[test]
    fn no_damaged_file_panics(at in any::<prop::sample::Index>(), cut in 0..40_usize, put in ".{0,6}") {
        let text = fs::read_to_string(folder("valid").join("full.toml")).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        let (before, after) = chars.split_at(at);
        let damaged: String =
            before.iter().copied().chain(put.chars()).chain(after.iter().copied().skip(cut)).collect();
        if let Err(errors) = Config::parse(&damaged, "damaged.toml") {
            prop_assert!(!errors.errors().is_empty());
            let lines = damaged.lines().count().max(1);
            for error in errors.errors() {
                let line = error.position.map_or(0, |position| position.line);
                prop_assert!((1..=lines + 1).contains(&line), "{}", errors);
            }
        }
    }
}
