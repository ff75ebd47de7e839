//! An upstream on a Unix socket: Postfix behind each identity, its restart, large chunks, and sockets that cannot be used.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use nix::unistd::Group;

use super::upstream::expect_unavailable;
use crate::harness::tests;
use crate::support::{
    Config, Family, Gateway, Lab, Mode, Postfix, UNIX, UNIX_PROXIED, UNIX_XCLIENT, until,
};

tests![
    postfix_on_a_unix_socket_learns_the_clients_address,
    a_large_chunk_passes_through_a_unix_socket,
    a_unix_socket_is_down_and_up_with_postfix,
    a_socket_that_cannot_be_used_is_reported,
    the_group_of_postfix_opens_its_sockets,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Postfix with a folder of sockets that every account may enter: a root without capabilities is one of them.
fn receiver(lab: &Lab) -> Postfix<'_> {
    let postfix = Postfix::receiver(lab);
    let folder = postfix.socket(UNIX).parent().unwrap().to_owned();
    fs::set_permissions(folder, Permissions::from_mode(0o711)).unwrap();
    postfix
}

fn config(lab: &Lab, postfix: &Postfix<'_>, service: &str, identity: &str) -> Config {
    let target = format!("unix:{}", postfix.socket(service).display());
    let config = Config::new(lab, Mode::Proxy)
        .targets(&[&target])
        .set("upstream", &format!("identity = {identity:?}"));
    match identity {
        "none" => config.set("upstream", "trusted_by_address = false"),
        "xclient" => config.set("smtp", "hide = [\"STARTTLS\"]"),
        _ => config,
    }
}

/// Without an identity every client is localhost, which Postfix trusts: the reason why that is an error without a statement.
fn postfix_on_a_unix_socket_learns_the_clients_address() {
    let lab = Lab::new();
    let postfix = receiver(&lab);
    for (service, identity) in [
        (UNIX, "none"),
        (UNIX_PROXIED, "proxy-v1"),
        (UNIX_PROXIED, "proxy-v2"),
        (UNIX_XCLIENT, "xclient"),
    ] {
        let gateway = Gateway::start(&lab, &config(&lab, &postfix, service, identity));
        for family in Family::ALL {
            eprintln!("case: {identity}, {family}");
            let recipient = format!("{identity}-{family}@example.org");
            let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, family));
            smtp.begin("sender@example.net", &recipient);
            assert_eq!(smtp.data(b"Subject: socket\r\n\r\nhello\r\n").code, 250);
            let relayed = smtp.ask("MAIL FROM:<sender@example.net>").code;
            assert_eq!(relayed, 250);
            let elsewhere = smtp.ask("RCPT TO:<stranger@elsewhere.example>").code;
            assert_eq!(elsewhere, if identity == "none" { 250 } else { 554 }, "{identity}");
            smtp.dialogue("C: QUIT\n S: 221");
            let client = match identity {
                "none" => "127.0.0.1".to_owned(),
                _ => smtp.local_addr().ip().to_string(),
            };
            let stored = postfix.message_to(&recipient);
            assert!(stored.trace.contains(&client), "{client} is not in\n{}", stored.trace);
            let line = gateway.wait_for_log(&format!(" client={} ", smtp.local_addr()));
            let socket = postfix.socket(service);
            let expected = format!(" upstream=unix:{} ", socket.display());
            assert!(line.contains(&expected), "no {expected:?} in\n{line}");
        }
    }
}

/// Spliced, as between TCP connections.
fn a_large_chunk_passes_through_a_unix_socket() {
    let lab = Lab::new();
    let postfix = receiver(&lab);
    let gateway = Gateway::start(&lab, &config(&lab, &postfix, UNIX_PROXIED, "proxy-v2"));
    let body =
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n".repeat(60_000);
    let message = format!("Subject: large\r\n\r\n{body}");
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Proxy, Family::Ipv6));
    smtp.begin("sender@example.net", "large@example.org");
    assert_eq!(smtp.bdat(message.as_bytes(), message.len()).code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    let stored = postfix.message_to("large@example.org");
    assert!(stored.content.ends_with(body.replace("\r\n", "\n").as_bytes()));
    drop(gateway);
}

fn a_unix_socket_is_down_and_up_with_postfix() {
    let lab = Lab::new();
    let postfix = receiver(&lab);
    for identity in ["proxy-v1", "proxy-v2"] {
        eprintln!("case: {identity}");
        let config = config(&lab, &postfix, UNIX_PROXIED, identity).with_upstream_checks();
        let gateway = Gateway::start(&lab, &config);
        gateway.wait_for_readiness(200);
        gateway.wait_for_metric("gatepost_upstreams", &["state=\"up\""], 2.0);
        postfix.stop();
        gateway.wait_for_readiness(503);
        gateway.wait_for_log(&format!("{UNIX_PROXIED} is down: "));
        expect_unavailable(&lab, Family::Ipv6);
        postfix.start_again();
        gateway.wait_for_readiness(200);
        gateway.wait_for_log(&format!("{UNIX_PROXIED} is up again"));
    }
}

fn a_socket_that_cannot_be_used_is_reported() {
    let lab = Lab::new();
    let (missing, file, left) = (lab.path("missing"), lab.path("file"), lab.path("left"));
    fs::write(&file, "").unwrap();
    drop(UnixListener::bind(&left).unwrap());
    for (path, sentence, is_error) in [
        (&missing, "there is no such socket; start the MTA, or correct the path", false),
        (&file, "this file is not a socket; ", true),
        (&left, "connection refused, no program listens on the socket; start the MTA", false),
    ] {
        eprintln!("case: {sentence}");
        let target = format!("unix:{}", path.display());
        let config = Config::new(&lab, Mode::Proxy)
            .targets(&[&target])
            .set("upstream", "identity = \"proxy-v2\"");
        let gateway = Gateway::start(&lab, &config);
        expect_unavailable(&lab, Family::Ipv4);
        let expected = format!("{target}: {sentence}");
        let line = gateway.wait_for_log("reason=\"upstream_unavailable\"");
        assert!(line.contains(&expected), "no {expected:?} in\n{line}");
        let file = gateway.file().to_str().unwrap();
        let checked = lab.gateway.output([GATEPOST, "config", "check", file]);
        assert_eq!(checked.status.success(), !is_error);
        let printed = String::from_utf8_lossy(&checked.stderr);
        assert!(printed.contains(&format!("upstream.addresses: {expected}")), "{printed}");
    }
}

/// As docs/listeners.md has it: the folder `public` belongs to the group `postdrop`.
fn the_group_of_postfix_opens_its_sockets() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let postdrop = Group::from_name("postdrop").unwrap().expect("the group `postdrop`").gid;
    for (groups, is_open) in
        [("--clear-groups".to_owned(), false), (format!("--groups={postdrop}"), true)]
    {
        eprintln!("case: {groups}");
        let listen = SocketAddr::new(lab.gateway_ip(Family::Ipv6), 2525);
        let config = config(&lab, &postfix, UNIX_PROXIED, "proxy-v2").listen(&[listen]);
        let file = lab.path("unprivileged.toml");
        fs::write(&file, config.without("control").toml()).unwrap();
        let gateway = lab.gateway.spawn([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            &groups,
            "--bounding-set=-all",
            GATEPOST,
            "run",
            "--config",
            file.to_str().unwrap(),
        ]);
        until("the gateway", || gateway.log().contains("ready: ").then_some(()));
        let mut smtp = lab.client.smtp(listen);
        if is_open {
            smtp.dialogue("S: 220\n C: QUIT\n S: 221");
        } else {
            smtp.expect_last_reply("421 4.3.2 ");
            until("the reason", || {
                gateway.log().contains("permission denied; let the gateway's account").then_some(())
            });
        }
    }
}
