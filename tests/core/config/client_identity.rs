//! No configuration lets the MTA take strangers for hosts that it trusts: an error that names the danger, or a setting under which
//! it sees the clients' own addresses.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gatepost::config::{Config, ConfigErrors, HostAddresses};
use gatepost::relay::UpstreamIdentity;

/// A host with these addresses, and one from which it connects to others.
#[derive(Default)]
struct Host {
    addresses: Vec<IpAddr>,
    source: Option<IpAddr>,
    /// Of a `local` route, on no interface.
    routed: Option<IpAddr>,
}

impl HostAddresses for Host {
    fn contains(&self, ip: IpAddr) -> bool {
        self.addresses.contains(&ip)
    }

    fn source_to(&self, ip: IpAddr) -> Option<IpAddr> {
        if self.routed == Some(ip) { Some(ip) } else { self.source }
    }
}

fn parse(listen: &str, upstream: &str, more: &str, host: &Host) -> Result<Config, ConfigErrors> {
    let text = format!(
        "smtp.hostname = \"mx.example.org\"\n[listen]\naddresses = [{listen}]\n{more}\n[upstream]\n{upstream}\n"
    );
    Config::parse_for(&text, "t", host)
}

fn is_open_relay(result: &Result<Config, ConfigErrors>) -> bool {
    result.as_ref().err().is_some_and(|errors| errors.to_string().contains("(open relay)"))
}

#[test]
fn a_stranger_never_looks_like_a_trusted_host() {
    let host = Host {
        addresses: ["192.0.2.25", "2001:db8::25", "10.0.0.1"]
            .map(|ip| ip.parse().unwrap())
            .to_vec(),
        source: Some("10.0.0.1".parse().unwrap()),
        routed: Some("10.9.0.1".parse().unwrap()),
    };
    let public = [
        r#""0.0.0.0:25""#,
        r#""[::]:25""#,
        r#""[::ffff:0.0.0.0]:25""#,
        r#""192.0.2.25:2526""#,
        r#""[2001:db8::25]:2526""#,
        r#""10.0.0.1:2526""#,
        r#""[fe80::1%2]:25""#,
        r#""[::1]:2525", "192.0.2.25:2526""#,
    ];
    let own = [
        "127.0.0.1:10025",
        "127.8.8.8:10025",
        "[::1]:10025",
        "[::ffff:127.0.0.1]:10025",
        "192.0.2.25:10025",
        "[::ffff:192.0.2.25]:10025",
        "[2001:db8::25]:10025",
        "10.0.0.1:10025",
        "10.9.0.1:10025",
    ];
    for listen in public {
        for upstream in own {
            let parse = |more: &str| {
                parse(listen, &format!("addresses = [\"{upstream}\"]\n{more}"), "", &host)
            };
            let case = format!("{listen} to {upstream}");
            for unsafe_lines in [
                "",
                "identity = \"none\"",
                "trusted_by_address = false",
                "identity = \"none\"\ntrusted_by_address = true",
            ] {
                let result = parse(unsafe_lines);
                assert!(is_open_relay(&result), "{case}, {unsafe_lines}: {result:?}");
            }
            let errors = parse("").unwrap_err().to_string();
            for remedy in
                ["\"proxy-v2\"", "\"xclient\"", "\"tproxy\"", "trusted_by_address = false"]
            {
                assert!(errors.contains(remedy), "{errors}");
            }
            assert!(errors.contains("strangers can relay"), "{errors}");
            for identity in ["proxy-v1", "proxy-v2"] {
                let config = parse(&format!("identity = \"{identity}\""));
                let config = config.unwrap_or_else(|errors| panic!("{case}, {identity}: {errors}"));
                assert_eq!(config.identity_warning(), None);
            }
            let config = parse("identity = \"none\"\ntrusted_by_address = false").unwrap();
            let warning = config.identity_warning().unwrap();
            assert!(warning.starts_with("trusted_by_address = false: "), "{warning}");
            assert!(warning.contains("strangers can relay mail"), "{warning}");
            assert!(config.warnings().contains(&warning));
        }
    }
    // Nobody but this host can connect.
    let local = parse(r#""[::1]:2525", "127.0.0.1:2525""#, "addresses = [\"[::1]:25\"]", "", &host);
    assert_eq!(local.unwrap().identity_warning(), None);
    // An MTA elsewhere may still trust this host.
    let elsewhere = parse(r#""[::]:25""#, "addresses = [\"198.51.100.25:25\"]", "", &host).unwrap();
    let warning = elsewhere.identity_warning().unwrap();
    assert!(warning.contains("must not trust its address"), "{warning}");
}

#[test]
fn clients_of_a_trusted_proxy_are_strangers() {
    let trusted = "[proxy_protocol]\ntrusted = [\"127.0.0.1\"]";
    let behind =
        parse(r#""127.0.0.1:2525""#, "addresses = [\"[::1]:25\"]", trusted, &Host::default());
    assert!(is_open_relay(&behind), "{behind:?}");
}

#[test]
fn networks_that_the_mta_trusts_are_named() {
    let listen = r#""192.0.2.25:25""#;
    let upstream = |networks: &str| {
        format!("addresses = [\"198.51.100.25:25\"]\ntrusted_networks = [{networks}]")
    };
    let source = |ip: &str| Host { source: Some(ip.parse().unwrap()), ..Host::default() };
    for (networks, source, expected) in [
        (r#""198.51.100.0/24""#, source("192.0.2.25"), true),
        (r#""::ffff:198.51.100.0/120""#, source("192.0.2.25"), true),
        // Where the gateway connects from.
        (r#""192.0.2.0/24""#, source("192.0.2.25"), true),
        (r#""203.0.113.0/24""#, source("192.0.2.25"), false),
        ("", source("192.0.2.25"), false),
    ] {
        let result = parse(listen, &upstream(networks), "", &source);
        assert_eq!(is_open_relay(&result), expected, "{networks}: {result:?}");
        assert_eq!(result.is_err(), expected, "{networks}");
    }
    let tproxy = |lines: &str| {
        let mode = r#""[::]:2525""#.to_owned();
        let more = "mode = \"tproxy\"\n[intercept]\ndestinations = [\"2001:db8::25\"]";
        parse(&mode, lines, more, &Host::default())
    };
    assert!(is_open_relay(&tproxy("identity = \"none\"\naddresses = [\"[::1]:25\"]")));
    assert!(is_open_relay(&tproxy("identity = \"none\"\ntrusted_networks = [\"2001:db8::/32\"]")));
    assert!(tproxy("trusted_networks = [\"2001:db8::/32\"]").is_ok(), "transparent by default");
}

#[test]
fn xclient_needs_hidden_starttls() {
    let xclient = "addresses = [\"[::1]:10025\"]\nidentity = \"xclient\"";
    // Also a client of this host could claim another address.
    for listen in [r#""[::]:25""#, r#""[::1]:2525""#, r#""[::]:587""#] {
        let errors = parse(listen, xclient, "", &Host::default()).unwrap_err().to_string();
        assert!(
            errors.contains("upstream.identity: identity = \"xclient\" while STARTTLS"),
            "{errors}"
        );
        assert!(errors.contains("(impersonation)"), "{errors}");
        let hidden = "[smtp]\nhide = [\"STARTTLS\"]\nhostname = \"mx.example.org\"\n";
        let text = format!("{hidden}[listen]\naddresses = [{listen}]\n[upstream]\n{xclient}\n");
        let config = Config::parse(&text, "t").unwrap_or_else(|errors| panic!("{errors}"));
        assert_eq!(config.relay.listeners[0].upstream.identity, UpstreamIdentity::Xclient);
    }
}

/// Every configuration that the documents, the package and the examples have: with public addresses in its first lines it lets no
/// stranger look like a trusted host, or is rejected with the error that says so.
#[test]
fn documented_configurations_are_safe_on_public_addresses() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut configurations = Vec::new();
    for folder in ["packaging", "packaging/examples", "tests/config/valid"] {
        for path in files(&root.join(folder), "toml") {
            configurations.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
    let pages = files(root, "md").into_iter().chain(files(&root.join("docs"), "md"));
    for page in pages.chain(files(&root.join("dashboards"), "md")) {
        for block in toml_blocks(&fs::read_to_string(&page).unwrap()) {
            if block.contains("[listen]") || block.contains("[[listener]]") {
                configurations.push((page.display().to_string(), block));
            }
        }
    }
    assert!(configurations.len() >= 18, "only {} configurations", configurations.len());
    let (mut safe, mut rejected) = (0, 0);
    for (name, text) in configurations {
        let given = Config::parse(&text, &name).unwrap_or_else(|errors| panic!("{errors}"));
        if given.relay.listeners.is_empty() {
            continue; // It has no client.
        }
        if given.relay.listeners[0].transparent || given.relay.listeners.len() > 1 {
            assert!(shows_clients(&given), "{name}");
            safe += 1;
            continue; // It has wildcard or public addresses.
        }
        for public in
            ["[\"[::]:25\", \"0.0.0.0:25\"]", "[\"[2001:db8:99::25]:25\", \"192.0.2.99:25\"]"]
        {
            let changed = with_addresses(&text, public);
            let own = ["2001:db8:99::25", "192.0.2.99"].map(|ip| ip.parse().unwrap());
            let host = Host { addresses: own.to_vec(), ..Host::default() };
            match Config::parse_for(&changed, &name, &host) {
                Ok(config) => {
                    assert!(shows_clients(&config), "{name}: strangers look local:\n{changed}");
                    safe += 1;
                }
                Err(errors) => {
                    assert!(errors.to_string().contains("(open relay)"), "{errors}");
                    rejected += 1;
                }
            }
        }
    }
    assert!(safe >= 8 && rejected >= 8, "{safe} safe, {rejected} rejected");
}

/// The MTA sees the clients' own addresses, or a person wrote that it trusts none.
fn shows_clients(config: &Config) -> bool {
    let written = "trusted_by_address = false";
    let mut listeners = config.relay.listeners.iter();
    listeners.all(|listener| listener.upstream.identity != UpstreamIdentity::None)
        || config.identity_warning().is_some_and(|warning| warning.starts_with(written))
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|it| it == extension)).collect();
    files.sort();
    files
}

/// The blocks of a page that are configurations, also indented ones.
fn toml_blocks(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if line.trim() == "```toml" {
            let block = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(block.map(|line| format!("{}\n", line.trim_start())).collect());
        }
    }
    blocks
}

/// The text with other listening addresses.
fn with_addresses(text: &str, addresses: &str) -> String {
    let start = text.find("[listen]").unwrap();
    let key = start + text[start..].find("addresses = [").unwrap() + "addresses = ".len();
    let end = key + text[key..].find("]\n").unwrap() + 1;
    format!("{}{addresses}{}", &text[..key], &text[end..])
}
