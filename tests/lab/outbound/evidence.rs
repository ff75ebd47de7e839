//! What the mail log proves about other hosts, and what becomes of the next messages to them.

use super::destinations::{Destination, Sender, ZONE};
use super::dsn_filter::table;
use crate::docs::page::{Page, Section};
use crate::harness::tests;
use crate::support::{Family, Gateway, Lab, until};

// Alone, since the helper answers by itself after 300 ms.
tests![
    Alone: the_second_message_meets_no_timeout,
    a_refused_message_is_delivered_over_ipv4_and_none_is_bounced,
    a_host_that_heals_gets_mail_over_ipv6_again,
    a_message_without_another_way_is_returned,
    where_many_refuse_the_cause_is_looked_for_here,
    a_message_refused_before_the_start_is_retried_after_it,
    the_documented_commands_run
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Short waits of Postfix, and no retries of its own.
const MAIN_CF: &str = "\
smtp_connect_timeout = 2s
smtp_mx_session_limit = 5
minimal_backoff_time = 1h
maximal_backoff_time = 2h
queue_run_delay = 1h
";

/// Postfix with both filters, and a gateway that reads its log.
fn start<'lab>(lab: &'lab Lab, retry: &str) -> (Sender<'lab>, Gateway<'lab>) {
    let sender = Sender::new(lab, MAIN_CF);
    sender.filter();
    let table = table(lab.folder("filter"));
    let filter = format!("smtp_delivery_status_filter = regexp:{}", table.display());
    sender.postconf(&["-e", &filter]);
    sender.reload();
    let config = sender
        .config(&[])
        .set("outbound", &format!("mail_log = {:?}", sender.postfix.log_file()))
        .set("outbound", &format!("config_directory = {:?}", sender.postfix.config_directory()))
        .set("outbound", &format!("retry = {retry:?}"))
        .set("smtp", &format!("hostname = \"mail.{ZONE}\""));
    let gateway = Gateway::start(lab, &config);
    (sender, gateway)
}

#[track_caller]
fn assert_sent(line: &str, destination: &str, family: Family) {
    assert!(line.contains(&Destination::of(destination).relay(family)), "{line}");
    assert!(line.contains("status=sent"), "{line}");
}

/// The lines about attempts at the IPv6 address of a destination.
fn attempts_over_ipv6(sender: &Sender<'_>, destination: &str) -> usize {
    let address = format!("[{}]", Destination::of(destination).address(Family::Ipv6));
    let log = sender.postfix.log();
    log.lines().filter(|line| line.contains(&address) && line.contains("/smtp[")).count()
}

fn outbound(lab: &Lab, gateway: &Gateway<'_>, name: &str) -> String {
    let config = gateway.file().to_str().unwrap();
    lab.gateway.run([GATEPOST, "outbound", name, "--config", config])
}

fn the_documented_commands_run() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "10m");
    assert_sent(&sender.send("a", "silent"), "silent", Family::Ipv4);
    gateway.wait_for_log("outbound: mx.silent.dest.example: IPv6 is avoided");
    let page = Page::open("docs/outbound.md");
    let sections = ["Evidence", "Messages without another way"].map(|title| page.section(title));
    let (file, log) = (gateway.file().to_str().unwrap(), sender.postfix.log_file());
    let commands = sections.into_iter().flat_map(Section::commands);
    let printed = commands.map(|command| {
        let line = command.line.replace("/var/log/mail.log", log.to_str().unwrap());
        let line = line.replace("gatepost.toml", file).replace("example.com", ZONE);
        let words: Vec<&str> =
            line.split(' ').map(|word| if word == "gatepost" { GATEPOST } else { word }).collect();
        lab.gateway.run(words)
    });
    let printed: Vec<String> = printed.collect();
    let [all, domain, from_log, returned] = &*printed else { panic!("{printed:?}") };
    for shown in [all, domain, from_log] {
        assert!(shown.contains("IPv6 is avoided: no answer, "), "{shown}");
    }
    assert_eq!(returned, "0 messages to return\n");
}

fn the_second_message_meets_no_timeout() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "10m");
    assert_sent(&sender.send("a", "silent"), "silent", Family::Ipv4);
    assert_eq!(attempts_over_ipv6(&sender, "silent"), 1, "{}", sender.postfix.log());
    gateway.wait_for_log("outbound: mx.silent.dest.example: IPv6 is avoided");
    for user in ["b", "c", "d"] {
        assert_sent(&sender.send(user, "silent"), "silent", Family::Ipv4);
        assert_sent(&sender.send(user, "healthy"), "healthy", Family::Ipv6);
    }
    assert_eq!(attempts_over_ipv6(&sender, "silent"), 1, "{}", sender.postfix.log());
    gateway.wait_for_metric(
        "gatepost_outbound_attempts_total",
        &["family=\"ipv6\"", "outcome=\"timed_out\""],
        1.0,
    );
    let shown = outbound(&lab, &gateway, "silent.dest.example");
    assert!(shown.contains("IPv6 is avoided: no answer, "), "{shown}");
    let shown = outbound(&lab, &gateway, "healthy.dest.example");
    assert!(shown.contains("IPv6   3 "), "{shown}");

    // The same from the log alone.
    let log = sender.postfix.log_file();
    let from_log = lab.gateway.run([
        GATEPOST,
        "outbound",
        "silent.dest.example",
        "--mail-log",
        log.to_str().unwrap(),
    ]);
    assert!(from_log.contains("IPv6 is avoided: no answer, "), "{from_log}");
}

fn a_refused_message_is_delivered_over_ipv4_and_none_is_bounced() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "10m");
    for destination in ["no-ptr", "no-ptr-at-end", "no-code"] {
        let first = sender.send("a", destination);
        assert!(first.contains("status=deferred"), "{first}");
        let recipient = format!("to=<a@{destination}.{ZONE}>");
        let is_sent = |line: &str| line.contains(&recipient) && line.contains("status=sent");
        let sent = sender.postfix.wait_for_log("the retry over IPv4", is_sent);
        assert_sent(&sent, destination, Family::Ipv4);
        assert_sent(&sender.send("b", destination), destination, Family::Ipv4);
    }
    let bounced = sender.send("a", "unknown");
    assert!(bounced.contains("dsn=5.1.1, status=bounced"), "{bounced}");
    let log = sender.postfix.log();
    assert_eq!(log.matches("status=bounced").count(), 1, "{log}");
    assert!(gateway.metric("gatepost_outbound_retries_total", &["result=\"requested\""]) >= 3.0);
    let shown = outbound(&lab, &gateway, ZONE);
    assert!(shown.starts_with("3 of 4 hosts tried over IPv6 refuse our mail"), "{shown}");
    gateway.wait_for_metric("gatepost_outbound_hosts", &["state=\"ipv6_refused\""], 3.0);
}

fn a_host_that_heals_gets_mail_over_ipv6_again() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "2s");
    assert_sent(&sender.send("a", "silent"), "silent", Family::Ipv4);
    gateway.wait_for_log("outbound: mx.silent.dest.example: IPv6 is avoided");
    lab.server.run(["nft", "delete", "table", "inet", "dest"]);
    let _server = sender.open("silent");
    let mut number = 0;
    until("mail over IPv6", || {
        number += 1;
        let line = sender.send(&format!("b{number}"), "silent");
        line.contains(&Destination::of("silent").relay(Family::Ipv6)).then_some(())
    });
    gateway.wait_for_log("outbound: mx.silent.dest.example: IPv6 is used again");
    assert_sent(&sender.send("c", "silent"), "silent", Family::Ipv6);
}

fn a_message_without_another_way_is_returned() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "10m");
    let first = sender.send("a", "only6-no-ptr");
    assert!(first.contains("status=deferred"), "{first}");
    let queue_id = first.split("]: ").nth(1).unwrap().split(':').next().unwrap();
    let directory = sender.postfix.config_directory();
    let directory = directory.to_str().unwrap();
    let refused = || {
        let log = sender.postfix.log();
        log.lines()
            .filter(|line| line.contains(queue_id) && line.contains("status=deferred"))
            .count()
    };
    let to_return = || gateway.metric("gatepost_outbound_messages_to_return", &[]);
    assert_eq!(to_return(), 0.0);
    until("four refusals", || {
        lab.gateway.run(["postqueue", "-c", directory, "-i", queue_id]);
        (refused() >= 4).then_some(())
    });
    until("the message is due", || (to_return() == 1.0).then_some(()));
    let config = gateway.file().to_str().unwrap();
    let expire =
        [GATEPOST, "postfix", "expire", "--config", config, "--config-directory", directory];
    let dry = lab.gateway.run(expire.iter().copied().chain(["--dry-run"]));
    assert_eq!(dry, format!("{queue_id}\n1 message to return\n"));
    assert_eq!(lab.gateway.run(expire), "1 message returned\n");
    let is_expired = |line: &str| line.contains(queue_id) && line.contains("status=force-expired");
    sender.postfix.wait_for_log("the return", is_expired);
}

fn where_many_refuse_the_cause_is_looked_for_here() {
    let lab = Lab::new();
    let (sender, gateway) = start(&lab, "10m");
    let before = outbound(&lab, &gateway, ZONE);
    assert!(!before.contains("Checked now"), "{before}");
    for destination in ["no-ptr", "no-ptr-at-end", "no-code"] {
        sender.send("a", destination);
    }
    let shown = until("the refusals", || {
        let shown = outbound(&lab, &gateway, ZONE);
        shown.starts_with("3 of 3 hosts tried over IPv6 refuse our mail").then_some(shown)
    });
    let lines: Vec<&str> = shown.lines().collect();
    let headline =
        "3 of 3 hosts tried over IPv6 refuse our mail for our address: the cause is probably here.";
    assert_eq!(lines[0], headline);
    assert!(lines[1].starts_with("Checked now for "), "{shown}");
    assert!(lines.contains(&"  fail     2001:db8:2::1: no PTR record"), "{shown}");
    assert!(shown.contains("fail     mail.dest.example: no SPF record"), "{shown}");
    assert!(!shown.contains("192.0.2.1: no PTR record"), "{shown}");
    assert!(shown.contains("  not checked: DKIM"), "{shown}");
    assert!(shown.contains("mx.no-ptr.dest.example"), "{shown}");

    let config = gateway.file().to_str().unwrap();
    let printed = lab.gateway.run([GATEPOST, "outbound", "--config", config, "--format", "json"]);
    let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(json["hosts_ipv6_refused"], 3);
    let check = &json["sending_check"];
    assert_eq!(
        (&check["domain"], &check["domain_from"]),
        (&"mail.dest.example".into(), &"smtp.hostname".into())
    );
    let findings = check["findings"].as_array().unwrap();
    assert!(findings.iter().any(|one| one["check"] == "sender_ptr"), "{check}");

    // A log may be of another host.
    let log = sender.postfix.log_file().to_str().unwrap();
    let from_log = lab.gateway.run([GATEPOST, "outbound", "--mail-log", log]);
    assert!(from_log.contains("gatepost check DOMAIN"), "{from_log}");
    assert!(!from_log.contains("Checked now"), "{from_log}");
}

fn a_message_refused_before_the_start_is_retried_after_it() {
    let lab = Lab::new();
    let (sender, mut gateway) = start(&lab, "10m");
    gateway.terminate();
    gateway.wait();
    let first = sender.send("a", "no-ptr");
    assert!(first.contains("status=deferred"), "{first}");
    // Stamps of the log have whole seconds: the refusal is before the start.
    until("the next second", || {
        let stamp = &first[..15];
        let now = lab.gateway.run(["date", "+%b %d %H:%M:%S"]);
        (now.trim() != stamp).then_some(())
    });
    gateway.start_again();
    let is_sent =
        |line: &str| line.contains("to=<a@no-ptr.dest.example>") && line.contains("status=sent");
    let sent = sender.postfix.wait_for_log("the retry over IPv4", is_sent);
    assert_sent(&sent, "no-ptr", Family::Ipv4);
}
