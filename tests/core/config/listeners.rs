//! Several listeners: the settings of each.

use std::net::SocketAddr;
use std::time::Duration;

use gatepost::addr::Networks;
use gatepost::config::Config;
use gatepost::policy::{ClientArrival, PolicyAction};
use gatepost::relay::{ListenerSettings, UpstreamHost, UpstreamIdentity, UpstreamTarget};

use super::valid;

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter().map(|addr| addr.parse().unwrap()).collect()
}

fn targets(list: &[&str]) -> Vec<UpstreamTarget> {
    addresses(list).into_iter().map(UpstreamTarget::Address).collect()
}

#[test]
fn each_listener_has_its_own_settings_or_the_shared_ones() {
    let config = valid("listeners.toml");
    let relay = &config.relay;
    let names: Vec<&str> = relay.listeners.iter().map(|listener| &*listener.name).collect();
    assert_eq!(names, ["mx", "submission", "internal"]);
    assert_eq!(relay.threads, 3);
    let [mx, submission, internal] = relay.listeners.as_slice() else { panic!("{names:?}") };
    assert_eq!(mx.addresses, addresses(&["[2001:db8::25]:25", "192.0.2.25:25"]));
    assert_eq!(mx.upstream.addresses, targets(&["[2001:db8:1::25]:25", "192.0.2.26:25"]));
    assert_eq!(mx.upstream.identity, UpstreamIdentity::ProxyV1);
    assert_eq!(internal.upstream, mx.upstream);
    assert_eq!(submission.upstream.addresses, targets(&["[2001:db8:1::26]:587"]));
    assert_eq!(submission.upstream.identity, UpstreamIdentity::ProxyV2);
    assert_eq!(submission.upstream.check_interval, Duration::from_secs(10));
    let shared = Networks::new(["2001:db8:5::/48".parse().unwrap()]);
    assert_eq!(
        mx.proxy_trusted,
        Networks::new(["192.0.2.80".parse().unwrap()].map(|ip: std::net::IpAddr| ip.into()))
    );
    assert_eq!((&submission.proxy_trusted, &internal.proxy_trusted), (&shared, &shared));
    assert_eq!(relay.upstreams().len(), 2, "a shared upstream is one");
    // The upstream of the listeners whose rules ask for recipients.
    assert_eq!(config.lookup.upstreams, addresses(&["[2001:db8:1::25]:25", "192.0.2.26:25"]));
    assert_eq!(config.lookup.named_upstream, None);
    assert!(config.lookup.upstream_proxy_v1);
    let decide = |listener| {
        let (client, destination) = ("2001:db8:6::1".parse().unwrap(), submission.addresses[0]);
        relay.access.decide(&ClientArrival { client, listener, destination }).action
    };
    assert_eq!(decide(Some("submission")), PolicyAction::Reject);
    assert_eq!(decide(Some("mx")), PolicyAction::Accept);
}

#[test]
fn an_upstream_may_be_host_names_among_addresses() {
    let relay = &valid("upstream-names.toml").relay;
    let [mx, internal] = relay.listeners.as_slice() else { panic!("{relay:?}") };
    let host = |name: &str, port| UpstreamHost { name: name.into(), port };
    let [first, second] = [host("postfix", 10025), host("mail.svc.cluster.local.", 25)];
    let literal = UpstreamTarget::Address("[2001:db8:1::25]:25".parse().unwrap());
    assert_eq!(mx.upstream.addresses, [first.clone().into(), literal, second.clone().into()]);
    assert_eq!(mx.upstream.resolve_interval, Duration::from_secs(30));
    assert_eq!(internal.upstream.addresses, [host("my_postfix", 25).into()]);
    assert_eq!(relay.upstream_hosts(), [&first, &second, &host("my_postfix", 25)]);
}

#[test]
fn an_upstream_may_be_a_unix_socket() {
    let relay = valid("upstream-socket.toml").relay;
    let upstream = &relay.listeners[0].upstream;
    let [target] = upstream.addresses.as_slice() else { panic!("{upstream:?}") };
    assert_eq!(target.to_string(), "unix:/var/spool/postfix/public/smtpd-proxied");
    assert_eq!((target.address(), target.host(), target.port()), (None, None, None));
    assert_eq!(target.socket().unwrap().path.to_str(), target.to_string().strip_prefix("unix:"));
}

#[test]
fn one_listener_may_intercept_beside_others() {
    let relay = valid("tproxy-and-submission.toml").relay;
    let [intercepted, submission] = relay.listeners.as_slice() else { panic!("{relay:?}") };
    assert!(intercepted.transparent && intercepted.upstream.addresses.is_empty());
    assert_eq!(intercepted.upstream.identity, UpstreamIdentity::Transparent);
    assert!(!submission.transparent);
    assert_eq!(submission.upstream.identity, UpstreamIdentity::ProxyV2);
    assert!(relay.mark.is_some(), "no connection of the gateway's own is intercepted");
}

#[test]
fn the_short_form_is_one_listener() {
    let long = "[[listener]]\nname = \"default\"\naddresses = [\"[::1]:2525\"]\nproxy_trusted = [\"::1\"]\n\
                [listener.upstream]\naddresses = [\"[2001:db8::25]:25\"]\nidentity = \"proxy-v2\"\n";
    let short = "[listen]\naddresses = [\"[::1]:2525\"]\n[proxy_protocol]\ntrusted = [\"::1\"]\n\
                 [upstream]\naddresses = [\"[2001:db8::25]:25\"]\nidentity = \"proxy-v2\"\n";
    let parse =
        |text: &str| Config::parse(&format!("smtp.hostname = \"mx.example.org\"\n{text}"), "t");
    let (long, short) = (parse(long).unwrap(), parse(short).unwrap());
    assert_eq!(long, short);
    assert_eq!(&*short.relay.listeners[0].name, ListenerSettings::DEFAULT_NAME);
}

#[test]
fn a_warning_about_an_upstream_names_its_listeners() {
    let text = "smtp.hostname = \"mx.example.org\"\n\
                [[listener]]\nname = \"mx\"\naddresses = [\"[::]:25\"]\n\
                [[listener]]\nname = \"second\"\naddresses = [\"[::]:26\"]\n\
                [[listener]]\nname = \"users\"\naddresses = [\"[::]:587\"]\n\
                [listener.upstream]\naddresses = [\"[::1]:10587\"]\nidentity = \"none\"\ntrusted_by_address = false\n\
                [[listener]]\nname = \"local\"\naddresses = [\"[::1]:2525\"]\n\
                [upstream]\naddresses = [\"[2001:db8::25]:25\"]\n";
    let config = Config::parse(text, "t").unwrap();
    assert!(config.depends_on_trust());
    let warnings = config.warnings();
    let starts = [
        "listener users: trusted_by_address = false: ",
        "listeners mx, second: identity = \"none\": ",
    ];
    for start in starts {
        assert!(
            warnings.iter().any(|warning| warning.starts_with(start)),
            "{start}: {warnings:#?}"
        );
    }
    assert!(config.identity_warning().unwrap().starts_with(starts[0]));
}
