//! `identity = "xclient"` passes the client's confirmed name on: Postfix's `reject_unknown_client_hostname` decides as it does
//! alone, with a real DNS server in which names are confirmed, missing, unconfirmed or cannot be looked up.

use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::world::{ASKED, World, sender_ip};
use crate::support::{Config, DOMAIN, Family, Gateway, Lab, Mode, Postfix, port};

tests![postfix_rejects_clients_by_their_names];

/// The permanent code shows which of the two Postfix was told: it defers what could not be looked up.
const RESTRICTIONS: &str = "\
unknown_client_reject_code = 550
smtpd_client_restrictions = warn_if_reject reject_unknown_reverse_client_hostname, reject_unknown_client_hostname
";

/// Much longer than the deadline of a lookup, and much shorter than the patience of a client.
const STALLED: Duration = Duration::from_secs(15);

fn postfix_rejects_clients_by_their_names() {
    let lab = Lab::new();
    let _world = World::new(&lab);
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, RESTRICTIONS);
    let resolver = ASKED.trim_start_matches('[').trim_end_matches("]:53");
    let config = Config::new(&lab, Mode::Proxy)
        .upstream_port(&lab, port::XCLIENT)
        .set("upstream", "identity = \"xclient\"")
        .set("smtp", "hide = [\"STARTTLS\"]")
        .set("lookup", &format!("dns = [{resolver:?}]"))
        .set("lookup", "deadline = \"1s\"");
    let gateway = Gateway::start(&lab, &config);
    for (client, code, name, has_reverse_name) in [
        ("good", 250, "good.client.example", true),
        ("alias", 250, "alias.client.example", true),
        ("slow", 250, "slow.client.example", true),
        // No PTR record: by NXDOMAIN, by NODATA.
        ("missing", 550, "unknown", false),
        ("empty", 550, "unknown", false),
        ("unconfirmed", 550, "unknown", true),
        // SERVFAIL, and no answer.
        ("broken", 450, "unknown", false),
        ("silent", 450, "unknown", false),
    ] {
        for family in Family::ALL {
            eprintln!("case: {client}, {family}");
            let ip = sender_ip(client, family);
            let recipient = format!("{client}-{family}@{DOMAIN}");
            let mut smtp = lab.client.smtp_from(ip, lab.entrance(Mode::Proxy, family));
            let began = Instant::now();
            smtp.dialogue(&format!(
                "S: 220
                 C: EHLO {client}.client.example
                 S: 250
                 C: MAIL FROM:<sender@example.net>
                 S: 250"
            ));
            let reply = smtp.ask(&format!("RCPT TO:<{recipient}>"));
            assert_eq!(reply.code, code, "{client}, {family}: {reply:?}");
            assert!(began.elapsed() < STALLED, "{client}, {family}: {:?}", began.elapsed());
            smtp.dialogue("C: QUIT\n S: 221");
            let line = postfix.wait_for_log(&recipient, |line| {
                line.contains(&format!("to=<{recipient}>")) && !line.contains("reject_warning")
            });
            let expected = format!(" RCPT from {name}[{ip}]: ");
            assert!(line.contains(&expected), "{client}, {family}: no {expected:?} in\n{line}");
            let reverse = "cannot find your reverse hostname";
            let log = postfix.log();
            let mut lines = log.lines();
            let warned = lines
                .any(|line| line.contains(reverse) && line.contains(&format!("to=<{recipient}>")));
            assert_eq!(warned, !has_reverse_name, "{client}, {family}");
        }
    }
    drop(gateway);
    // A resolver that is not there: a delay, not a stall.
    let nowhere = config.without("lookup").set("lookup", "dns = [\"2001:db8:1::10\"]");
    let _gateway = Gateway::start(&lab, &nowhere);
    let good = sender_ip("good", Family::Ipv6);
    let mut smtp = lab.client.smtp_from(good, lab.entrance(Mode::Proxy, Family::Ipv6));
    let began = Instant::now();
    smtp.dialogue(&format!(
        "S: 220
         C: EHLO good.client.example
         S: 250
         C: MAIL FROM:<sender@example.net>
         S: 250
         C: RCPT TO:<recipient@{DOMAIN}>
         S: 450"
    ));
    assert!(began.elapsed() < STALLED, "{:?}", began.elapsed());
}
