//! `gatepost postfix install` and `gatepost check --postfix` for the policy service.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{DOMAINS, asking, documented, policy_only, session, socket};
use crate::authentication::GOOGLE;
use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Host, Lab, Mode, Postfix, Smtp};

tests![
    the_printed_commands_make_postfix_ask,
    rules_at_the_end_of_a_message_have_a_question_of_their_own,
    each_part_is_installed_without_the_other,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const RECIPIENT: &str = "someone@example.org";
const REFUSE: &str =
    "[[policy]]\nname = \"nobody\"\nwhen = { family = \"ipv6\" }\notherwise = \"reject\"\n";

fn the_printed_commands_make_postfix_ask() {
    let lab = Lab::new();
    let path = socket(&lab, "installed");
    let postfix = asking(&lab, "installed", "");
    let gateway = Gateway::start(&lab, &policy_only(&lab, &path).policies(REFUSE));
    assert_eq!(rcpt(session(&lab, Family::Ipv6), RECIPIENT), "2.1.5", "it is not asked yet");
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "warn", "{found}");

    let commands = install(&lab, &postfix, gateway.file());
    assert!(!commands.contains("smtpd_end_of_data_restrictions"), "{commands}");
    lab.gateway.run(["sh", "-e", "-c", &commands]);
    // smtpd(8) processes of before the reload end with their sessions.
    postfix.kill_sessions();
    assert_eq!(rcpt(session(&lab, Family::Ipv6), RECIPIENT), "5.7.1");
    let own = lab.gateway.smtp("[::1]:25".parse().unwrap());
    assert_eq!(rcpt(own, RECIPIENT), "2.1.5", "mynetworks may relay, and is not asked about");
    let relayed = rcpt(session(&lab, Family::Ipv4), "a@other.example");
    assert_eq!(relayed, "5.7.1", "no relay for strangers");
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "pass", "{found}");
    assert_eq!(install(&lab, &postfix, gateway.file()), "", "nothing is left to do");

    // The operator writes a shorter line, by which a dead gateway defers mail.
    let set = "smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service unix:private/gatepost";
    postconf(&lab, &postfix, &["-e", set]);
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "fail", "{found}");
    let seen = found["seen"].as_str().unwrap();
    assert!(seen.contains("every recipient gets 451") && seen.contains("waits 100s"), "{seen}");
    let commands = install(&lab, &postfix, gateway.file());
    assert!(commands.starts_with("# smtpd_recipient_restrictions asks unix:private/gatepost: "));
    assert!(commands.contains("without default_action=DUNNO every recipient gets 451"));
    let [corrected] = found["commands"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert!(commands.contains(corrected.as_str().unwrap()), "{commands}");
    lab.gateway.run(["sh", "-e", "-c", &commands]);
    assert_eq!(install(&lab, &postfix, gateway.file()), "", "it is corrected");
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "pass", "{found}");
}

/// The item follows what the operator has, and the clients that may relay.
fn rules_at_the_end_of_a_message_have_a_question_of_their_own() {
    const OPERATORS: &str = "check_client_access static:{INFO of the operator}";
    let lab = Lab::new();
    let path = socket(&lab, "installed");
    let postfix =
        asking(&lab, "installed", &format!("smtpd_end_of_data_restrictions = {OPERATORS}\n"));
    let rule = REFUSE.replace("ipv6\"", "ipv6\", at = \"data\"");
    let gateway = Gateway::start(&lab, &policy_only(&lab, &path).policies(&rule));
    let send = |mut smtp: Smtp| {
        smtp.begin("a@client.example", RECIPIENT);
        smtp.data(b"Subject: x\r\n\r\nx\r\n")
    };
    assert_eq!(send(session(&lab, Family::Ipv6)).code, 250, "it is not asked yet");
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "warn", "{found}");
    let seen = found["seen"].as_str().unwrap();
    let both = "smtpd_recipient_restrictions and smtpd_end_of_data_restrictions do not ask";
    assert!(seen.starts_with(both), "{seen}");

    let commands = install(&lab, &postfix, gateway.file());
    lab.gateway.run(["sh", "-e", "-c", &commands]);
    postfix.kill_sessions();
    let list = postconf(&lab, &postfix, &["-h", "smtpd_end_of_data_restrictions"]);
    let documented = documented("text", "smtpd_end_of_data_restrictions = permit_mynetworks");
    let item = documented.split_once("check_policy_service").unwrap().1.trim();
    let item = item.replace("inet:127.0.0.1:10040", "unix:private/gatepost");
    assert_eq!(list.trim(), format!("{OPERATORS}, permit_mynetworks, check_policy_service {item}"));
    let rejected = send(session(&lab, Family::Ipv6));
    assert_eq!((rejected.code, &rejected.lines[0][..6]), (554, "5.7.1 "), "{rejected:?}");
    assert_eq!(send(session(&lab, Family::Ipv4)).code, 250);
    let own = send(lab.gateway.smtp("[::1]:25".parse().unwrap()));
    assert_eq!(own.code, 250, "mynetworks may relay, and is not asked about: {own:?}");
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "pass", "{found}");
    assert_eq!(install(&lab, &postfix, gateway.file()), "", "nothing is left to do");

    // The operator's list replaces it, and later has a shorter line.
    postconf(&lab, &postfix, &["-e", "smtpd_end_of_data_restrictions ="]);
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "warn", "{found}");
    let seen = found["seen"].as_str().unwrap();
    assert!(seen.starts_with("smtpd_end_of_data_restrictions does not ask"), "{seen}");
    let short = "smtpd_end_of_data_restrictions = check_policy_service unix:private/gatepost";
    postconf(&lab, &postfix, &["-e", short]);
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "fail", "{found}");
    assert!(found["seen"].as_str().unwrap().contains("every message gets 451"), "{found}");
    lab.gateway.run(["sh", "-e", "-c", &install(&lab, &postfix, gateway.file())]);
    let found = check(&lab.gateway, &postfix, gateway.file());
    assert_eq!(found["outcome"], "pass", "{found}");
}

fn each_part_is_installed_without_the_other() {
    let lab = Lab::new();
    let postfix = Postfix::start(&lab, &lab.gateway, "parts", None, DOMAINS);
    let file = lab.path("parts.toml");
    let config = || Config::new(&lab, Mode::Proxy);
    let outbound = format!("map = \"unix:{}\"", lab.path("map").display());
    let outbound = config().without("listen").without("upstream").set("outbound", &outbound);
    let policy = policy_only(&lab, &socket(&lab, "parts"));
    let printed = |config: &Config| {
        fs::write(&file, config.toml()).unwrap();
        install(&lab, &postfix, &file)
    };
    let commands = printed(&outbound);
    assert!(commands.contains("gatepost-map") && !commands.contains(" policy"), "{commands}");
    let commands = printed(&policy);
    assert!(!commands.contains("gatepost-map"), "{commands}");
    assert!(commands.contains("check_policy_service { unix:private/gatepost, "), "{commands}");

    // Postfix's questions cannot have what the rule needs: at the end of a message they would defer what the relay did not see.
    let googles = policy_beside_relay(config(), &lab).policies(GOOGLE);
    assert!(!printed(&googles).contains("smtpd_end_of_data_restrictions"));
    let in_shadow = format!("{GOOGLE}mode = \"shadow\"\n");
    let googles = policy_beside_relay(config(), &lab).policies(&in_shadow);
    assert!(printed(&googles).contains("smtpd_end_of_data_restrictions"));

    fs::write(&file, config().toml()).unwrap();
    let refused = lab.gateway.output(words(&postfix, &file));
    assert!(!refused.status.success());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("add [outbound]") && error.contains("or [postfix]"), "{error}");

    // A socket outside of the queue directory, and a listener in a chroot.
    let outside = policy_only(&lab, &lab.path("policy"));
    let path = format!("unix:{}, ", lab.path("policy").display());
    assert!(printed(&outside).contains(&path));
    postconf(&lab, &postfix, &["-F", "25/inet/chroot=y"]);
    let refused = lab.gateway.output(words(&postfix, &file));
    assert!(!refused.status.success());
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(error.contains("25/inet in master.cf runs in a chroot"), "{error}");
    assert!(error.contains("/queue/private/gatepost\""), "{error}");
}

fn policy_beside_relay(config: Config, lab: &Lab) -> Config {
    config.set("postfix", &format!("policy = \"unix:{}\"", socket(lab, "parts").display()))
}

/// The enhanced code of the reply to a recipient.
fn rcpt(mut smtp: Smtp, recipient: &str) -> String {
    smtp.dialogue(
        "S: 220\n C: EHLO client.example\n S: 250\n C: MAIL FROM:<a@client.example>\n S: 250",
    );
    let reply = smtp.ask(&format!("RCPT TO:<{recipient}>"));
    reply.lines.last().unwrap().split(' ').next().unwrap().to_owned()
}

fn words(postfix: &Postfix<'_>, file: &Path) -> Vec<String> {
    let directory = postfix.config_directory();
    let [file, directory] = [file, &directory].map(|path| path.to_str().unwrap());
    [GATEPOST, "postfix", "install", "--dry-run", "-c", file, "--postfix-config", directory]
        .map(str::to_owned)
        .to_vec()
}

fn install(lab: &Lab, postfix: &Postfix<'_>, file: &Path) -> String {
    lab.gateway.run(words(postfix, file))
}

fn postconf(lab: &Lab, postfix: &Postfix<'_>, options: &[&str]) -> String {
    let config = postfix.config_directory();
    let command = ["postconf", "-c", config.to_str().unwrap()];
    lab.gateway.run(command.iter().chain(options))
}

/// The finding about the policy service. No DNS server answers the rest of the check.
fn check(host: &Host, postfix: &Postfix<'_>, file: &Path) -> Value {
    let directory = postfix.config_directory();
    let [file, directory] = [file, &directory].map(|path| path.to_str().unwrap());
    let check = [GATEPOST, "check", "example.org", "--format=json", "--timeout=1s"];
    let options = ["--dns=[::1]:1053", "-c", file, "--postfix", "--postfix-config", directory];
    let output = host.output(check.into_iter().chain(options));
    let printed = String::from_utf8(output.stdout).unwrap();
    let json: Value = serde_json::from_str(&printed).unwrap_or_else(|_| panic!("{printed}"));
    let findings = json["findings"].as_array().unwrap();
    let mut of_policy = findings.iter().filter(|one| one["check"] == "postfix_policy");
    let found = of_policy.next().unwrap().clone();
    assert_eq!(of_policy.next(), None);
    found
}
