//! Mail flows whatever becomes of the gateway: killed, hung, restarted, its socket unreadable, Postfix chrooted.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{DOMAINS, asking, lines_with, policy_only, session, socket, unix_line};
use crate::harness::tests;
use crate::support::{Family, Gateway, Lab, Mode, Postfix, Smtp, port, until};

tests![
    mail_flows_without_an_answer,
    a_chrooted_postfix_asks_and_a_gateway_of_another_user_answers,
    the_socket_of_a_killed_gateway_is_replaced_and_a_live_one_is_not,
    over_tcp_the_documented_lines_work_too,
];

/// Without lookups: what a question costs is what is measured.
const REFUSE: &str =
    "[[policy]]\nname = \"nobody\"\nwhen = { family = \"ipv6\" }\notherwise = \"reject\"\n";

fn mail_flows_without_an_answer() {
    let lab = Lab::new();
    let path = socket(&lab, "asking");
    let postfix = asking(&lab, "asking", &unix_line());
    let config = policy_only(&lab, &path).policies(REFUSE);
    let mut gateway = Gateway::start(&lab, &config);
    assert_eq!(rcpt(&mut begin(&lab)).0, "5.7.1", "it is asked");

    gateway.kill();
    report("killed, its socket is left", &lab);
    fs::remove_file(&path).unwrap();
    report("no socket", &lab);

    gateway.start_again();
    let process = Pid::from_raw(gateway.id().try_into().unwrap());
    let mut open = begin(&lab);
    assert_eq!(rcpt(&mut open).0, "5.7.1", "it is asked again");
    kill(process, Signal::SIGSTOP).unwrap();
    report("hung", &lab);
    // The connection that smtpd(8) has open hangs as well.
    let (code, took) = rcpt(&mut open);
    assert_eq!(code, "2.1.5", "hung within a session");
    println!("hung within a session: {took:.1?} for a recipient");
    kill(process, Signal::SIGCONT).unwrap();
    assert_eq!(rcpt(&mut begin(&lab)).0, "5.7.1", "it runs again");

    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    // Those that run have a connection.
    postfix.kill_sessions();
    report("the socket is unreadable", &lab);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();

    // A restart within a session: smtpd(8) connects again.
    let mut open = begin(&lab);
    assert_eq!(rcpt(&mut open).0, "5.7.1");
    gateway.terminate();
    gateway.wait();
    gateway.start_again();
    let (code, took) = rcpt(&mut open);
    assert_eq!(code, "5.7.1", "after a restart it is asked again");
    println!("restarted within a session: {took:.1?} for a recipient");

    // A reload puts new rules in force without a new connection.
    let mut open = begin(&lab);
    assert_eq!(rcpt(&mut open).0, "5.7.1");
    gateway.reload(&policy_only(&lab, &path).toml());
    gateway.wait_for_log("configuration reloaded");
    assert_eq!(rcpt(&mut begin(&lab)).0, "2.1.5", "the rules are gone");
}

/// Two messages are accepted; prints what a recipient cost.
#[track_caller]
fn report(what: &str, lab: &Lab) {
    let mut smtp = begin(lab);
    let (code, took) = rcpt(&mut smtp);
    assert_eq!(code, "2.1.5", "{what}");
    assert_eq!(rcpt(&mut smtp).0, "2.1.5", "{what}, second recipient");
    println!("{what}: {took:.1?} for a recipient");
    assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
}

fn begin(lab: &Lab) -> Smtp {
    let mut smtp = session(lab, Family::Ipv6);
    smtp.dialogue(
        "S: 220\n C: EHLO client.example\n S: 250\n C: MAIL FROM:<a@client.example>\n S: 250",
    );
    smtp
}

/// The enhanced code of the reply, and the time until it came.
fn rcpt(smtp: &mut Smtp) -> (String, Duration) {
    let began = Instant::now();
    let reply = smtp.ask("RCPT TO:<someone@example.org>");
    let code = reply.lines.last().unwrap().split(' ').next().unwrap().to_owned();
    (code, began.elapsed())
}

fn a_chrooted_postfix_asks_and_a_gateway_of_another_user_answers() {
    let lab = Lab::new();
    let path = socket(&lab, "chrooted");
    let postfix = asking(&lab, "chrooted", &unix_line());
    let folder = postfix.config_directory();
    let chroot = ["-c", folder.to_str().unwrap(), "-F", "25/inet/chroot=y"];
    assert!(Command::new("postconf").args(chroot).status().unwrap().success());
    postfix.stop();
    postfix.start_again();
    // For the control socket.
    fs::set_permissions(lab.path(""), Permissions::from_mode(0o777)).unwrap();
    let config = policy_only(&lab, &path).set("process", "user = \"nobody\"").policies(REFUSE);
    let gateway = Gateway::start(&lab, &config);
    assert_eq!(rcpt(&mut begin(&lab)).0, "5.7.1");
    let session = until("the session's line", || lines_with(&gateway.log(), "verdict").pop());
    assert_eq!(session["verdict"]["rule"], "nobody");
    assert_eq!(session["outcome"], "delegated");
}

fn the_socket_of_a_killed_gateway_is_replaced_and_a_live_one_is_not() {
    let lab = Lab::new();
    let path = lab.path("policy");
    let config = policy_only(&lab, &path).policies(REFUSE);
    let mut gateway = Gateway::start(&lab, &config);
    let second = policy_only(&lab, &path).metrics("[::1]:9626");
    let message = refused(&lab, &second.toml());
    assert!(message.contains("another program listens on"), "{message}");
    gateway.kill_and_start_again();
    gateway.terminate();
    gateway.wait();
    assert!(!path.exists(), "removed at the end");
    let missing = policy_only(&lab, &lab.path("missing/policy"));
    let message = refused(&lab, &missing.toml());
    assert!(message.contains("there is no directory"), "{message}");
}

/// The error of a gateway that does not start.
fn refused(lab: &Lab, toml: &str) -> String {
    let file = lab.path("refused.toml");
    fs::write(&file, toml).unwrap();
    let words = [env!("CARGO_BIN_EXE_gatepost"), "run", "--config", file.to_str().unwrap()];
    let output = lab.gateway.output(words);
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

fn over_tcp_the_documented_lines_work_too() {
    let lab = Lab::new();
    let line = super::documented("text", "inet:127.0.0.1:10040");
    let toml = super::documented("toml", "inet:127.0.0.1:10040");
    let _postfix = Postfix::start(&lab, &lab.gateway, "tcp", None, &format!("{DOMAINS}{line}"));
    let toml = toml
        .replace("mode = \"shadow\"\n", "")
        .replace("require = [\"fcrdns\"]", "when = { family = \"ipv6\" }");
    let config = crate::support::Config::new(&lab, Mode::Proxy);
    let config = config.without("listen").without("upstream").policies(&toml);
    let gateway = Gateway::start(&lab, &config);
    gateway.wait_for_log("ready: answering Postfix on inet:127.0.0.1:10040");
    assert_eq!(rcpt(&mut begin(&lab)).0, "4.7.1");
    // Junk costs a connection, not the service.
    let to: SocketAddr = "127.0.0.1:10040".parse().unwrap();
    let mut junk = lab.gateway.connect(to).unwrap();
    std::io::Write::write_all(&mut junk, b"GET / HTTP/1.1\r\n\r\n").unwrap();
    gateway.wait_for_metric("gatepost_policy_connections_closed_total", &["malformed"], 1.0);
    assert_eq!(rcpt(&mut begin(&lab)).0, "4.7.1");
    let at = SocketAddr::new(lab.gateway_ip(Family::Ipv4), port::SMTP);
    lab.client.smtp(at).dialogue("S: 220\n C: QUIT\n S: 221");
}
