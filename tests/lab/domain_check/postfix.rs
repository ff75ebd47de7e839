//! Postfix configurations with one fault each; after the printed commands have run, the fault is gone.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::harness::tests;
use serde_json::Value;

use super::site::{SENDERS, SITE, Site};
use super::{check, not_passed};
use crate::support::world::KNOT;
use crate::support::{Lab, Postfix};

tests![printed_commands_repair_the_fault, no_advice_makes_gatepost_a_trusted_host];

const MAIN: &str = "\
compatibility_level = 3.7
mail_owner = postfix
setgid_group = postdrop
myhostname = out.ready.example
inet_protocols = all
inet_interfaces = all
mynetworks = 127.0.0.0/8 [::1]/128
smtp_tls_security_level = may
smtpd_forbid_bare_newline = normalize
";
macro_rules! master {
    () => {
        "smtp inet n - n - - smtpd\n\
         [::1]:10025 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n\
         smtp unix - - n - - smtp\n"
    };
}

const MASTER: &str = master!();

/// For [`configure`].
struct Fault {
    main: &'static str,
    master: &'static str,
    found: &'static [&'static str],
}

const fn fault(main: &'static str, master: &'static str, found: &'static [&'static str]) -> Fault {
    Fault { main, master, found }
}

const FAULTS: &[Fault] = &[
    fault("", "", &[]),
    fault("inet_protocols = ipv4", "", &["fail postfix_protocols"]),
    fault("inet_protocols = ipv6", "", &["warn postfix_protocols"]),
    fault(
        "",
        "smtp inet n - n - - smtpd\n[::1]:10025 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n\
         smtp unix - - n - - smtp\n  -o inet_protocols=ipv4\n",
        &["fail postfix_protocols"],
    ),
    fault("inet_interfaces = loopback-only", "", &["fail postfix_interfaces"]),
    fault("inet_interfaces = localhost", "", &["fail postfix_interfaces"]),
    fault("inet_interfaces = 198.51.100.1, 127.0.0.1", "", &["fail postfix_interfaces"]),
    fault("smtp_address_preference = ipv4", "", &["warn postfix_preference"]),
    fault("smtp_bind_address6 = 2001:db8:2::9999", "", &["fail postfix_bind"]),
    fault("smtp_bind_address6 = ::1", "", &["fail postfix_bind"]),
    fault("smtp_bind_address = 198.51.100.1", "", &["warn postfix_bind"]),
    fault("mynetworks = 127.0.0.0/8", "", &[]),
    fault("mynetworks = 127.0.0.0/8 [::1]/128 [::]/0", "", &["fail postfix_mynetworks"]),
    fault("mynetworks = 127.0.0.0/8 ::1/128", "", &["fail postfix_mynetworks"]),
    fault("myhostname = only4.ready.example", "", &["warn postfix_helo"]),
    fault(
        "",
        "smtp inet n - n - - smtpd\n127.0.0.1:10025 inet n - n - - smtpd\nsmtp unix - - n - - smtp\n",
        &["warn postfix_proxy"],
    ),
    fault(
        "",
        "smtp inet n - n - - smtpd\n10025 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n\
         smtp unix - - n - - smtp\n",
        &["fail postfix_proxy"],
    ),
    fault("smtp_tls_security_level =", "", &["warn postfix_tls"]),
    fault("smtp_tls_security_level = encrypt", "", &["warn postfix_tls"]),
    fault("smtp_tls_security_level = dane", "", &["warn postfix_tls"]),
    fault("smtp_tls_security_level = secure\nrelayhost = [mx.ready.example]", "", &[]),
    fault("smtpd_forbid_bare_newline = no", "", &["warn postfix_bare_newline"]),
    fault("smtpd_forbid_bare_newline = reject", "", &[]),
    fault(
        "",
        "smtp inet n - n - - smtpd\n  -o smtpd_forbid_bare_newline=no\n\
         [::1]:10025 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n\
         smtp unix - - n - - smtp\n  -o smtp_tls_security_level=none\n",
        &["warn postfix_bare_newline", "warn postfix_tls"],
    ),
    fault("smtpd_upstream_proxy_protocol = haproxy", "", &["fail postfix_proxy"]),
    fault("postscreen_upstream_proxy_protocol = haproxy", "", &["fail postfix_proxy"]),
    fault("smtpd_authorized_xclient_hosts = [::]/0 127.0.0.1", "", &["fail postfix_xclient"]),
    fault("smtpd_authorized_xforward_hosts = ::1", "", &["fail postfix_xclient"]),
    // The table, the service and the sessions.
    fault(
        "smtp_dns_reply_filter = socketmap:unix:private/gatepost-map:dns",
        "",
        &["fail postfix_outbound", "warn postfix_outbound", "warn postfix_outbound"],
    ),
    fault(
        "smtp_dns_reply_filter = texthash:/etc/hosts, socketmap:unix:private/gatepost-map:dns\n\
         smtp_mx_session_limit = 0",
        concat!(
            master!(),
            "gatepost-map unix - n y - 0 spawn user=nobody argv=gatepost postfix map\n"
        ),
        &["fail postfix_outbound", "warn postfix_outbound"],
    ),
    fault(
        "smtp_mx_session_limit = 10\nsmtp_delivery_status_filter = regexp:/etc/postfix/gatepost-dsn-filter\n\
         smtp_address_preference = ipv6",
        concat!(
            master!(),
            "gatepost-map unix - n n - - spawn user=nobody argv=gatepost postfix map\n"
        ),
        &["warn postfix_outbound", "warn postfix_outbound", "warn postfix_outbound"],
    ),
    fault(
        "smtp_mx_session_limit = 5\nsmtp_delivery_status_filter = regexp:/etc/postfix/gatepost-dsn-filter\n\
         smtp_dns_reply_filter = socketmap:unix:private/gatepost-map:dns",
        concat!(
            master!(),
            "gatepost-map unix - n n - 0 spawn user=nobody argv=gatepost postfix map\n"
        ),
        &[],
    ),
    // The policy service.
    fault(
        "smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service unix:private/gatepost",
        "",
        &["fail postfix_policy"],
    ),
    fault(
        "smtpd_data_restrictions = check_policy_service { inet:127.0.0.1:10040, default_action=DUNNO }",
        "",
        &["warn postfix_policy"],
    ),
    fault(
        "",
        "smtp inet n - n - - smtpd\n  -o { smtpd_recipient_restrictions = reject_unauth_destination, \
         check_policy_service { inet:127.0.0.1:10040, timeout=2s } }\n\
         [::1]:10025 inet n - n - - smtpd\n  -o smtpd_upstream_proxy_protocol=haproxy\n\
         smtp unix - - n - - smtp\n",
        &["fail postfix_policy"],
    ),
    fault(
        "smtpd_recipient_restrictions = reject_unauth_destination, \
         check_policy_service { unix:private/gatepost, timeout=2s, default_action=dunno }, reject_unlisted_recipient",
        "",
        &[],
    ),
];

/// The settings of `main` override those of [`MAIN`]; a non-empty `master` replaces [`MASTER`].
pub(crate) fn configure(folder: &Path, main: &str, master: &str) {
    let name = |line: &str| line.split('=').next().unwrap().trim().to_owned();
    let set: Vec<String> = main.lines().map(name).collect();
    let kept: String = MAIN
        .lines()
        .filter(|line| !set.contains(&name(line)))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(folder.join("main.cf"), format!("{kept}{main}\n")).unwrap();
    let master = if master.is_empty() { MASTER } else { master };
    fs::write(folder.join("master.cf"), master).unwrap();
    age(folder);
}

/// postconf(1) waits until a file just written is older, so it gets an old timestamp.
fn age(folder: &Path) {
    for file in ["main.cf", "master.cf"] {
        let file = File::options().write(true).open(folder.join(file)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    }
}

/// The findings about Postfix that do not pass, and all findings.
fn of_postfix(lab: &Lab, folder: &Path) -> (Vec<String>, Value) {
    age(folder);
    let domain = format!("good.{SITE}");
    let folder = folder.to_str().unwrap();
    let words = [
        &domain,
        "--dns",
        KNOT,
        "--from",
        SENDERS[0],
        "--from",
        SENDERS[1],
        "--postfix",
        "--postfix-config",
        folder,
        "--format=json",
    ];
    let checked = check(lab, &words);
    let json: Value =
        serde_json::from_str(&checked.printed).unwrap_or_else(|_| panic!("{}", checked.complained));
    let mut found = not_passed(&json);
    found.retain(|one| one.contains(" postfix_"));
    (found, json)
}

/// The lines of all findings.
fn lines(json: &Value) -> Vec<String> {
    let findings = json["findings"].as_array().unwrap().iter();
    let lines = findings.flat_map(|one| one["commands"].as_array().unwrap());
    lines.map(|line| line.as_str().unwrap().to_owned()).collect()
}

fn printed_commands_repair_the_fault() {
    let lab = Lab::new();
    let _site = Site::new(&lab);
    let mut wrong = Vec::new();
    for (number, fault) in FAULTS.iter().enumerate() {
        let folder = lab.folder(&format!("postfix-{number}"));
        configure(&folder, fault.main, fault.master);

        let (found, json) = of_postfix(&lab, &folder);
        let what = format!("{} {}", fault.main, fault.master);
        if found != fault.found {
            wrong.push(format!(
                "{what}\n    expected {:?}\n    found {found:?}\n{json}",
                fault.found
            ));
            continue;
        }
        let lines = lines(&json);
        assert_eq!(lines.is_empty(), fault.found.is_empty(), "{what}: {lines:?}");
        assert_eq!(json["activate"].as_array().unwrap().is_empty(), lines.is_empty(), "{what}");
        for line in &lines {
            lab.gateway.run(["sh", "-c", line]);
        }
        let (left, json) = of_postfix(&lab, &folder);
        if !left.is_empty() {
            wrong.push(format!("{what}\n    {lines:?}\n    left {left:?}\n{json}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));

    the_commands_repair_a_running_postfix(&lab);
}

/// Whatever `mynetworks` has, no command adds an address to it: gatepost connects from this host, and its clients are strangers.
fn no_advice_makes_gatepost_a_trusted_host() {
    let lab = Lab::new();
    let _site = Site::new(&lab);
    for (number, (list, found)) in [
        ("127.0.0.0/8", None),
        ("127.0.0.0/8 198.51.100.0/24", Some("warn postfix_mynetworks")),
        ("192.0.2.0/24 198.51.100.0/24", Some("warn postfix_mynetworks")),
        ("198.51.100.0/24 ::1", Some("fail postfix_mynetworks")),
        ("0.0.0.0/0 198.51.100.0/24", Some("fail postfix_mynetworks")),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = lab.folder(&format!("trust-{number}"));
        configure(&folder, &format!("mynetworks = {list}"), "");
        let (left, json) = of_postfix(&lab, &folder);
        assert_eq!(left, found.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{list}");
        let findings = json["findings"].as_array().unwrap();
        let about = findings.iter().find(|one| one["check"] == "postfix_mynetworks").unwrap();
        for line in lines(&json).iter().filter(|line| line.contains("mynetworks")) {
            let (_, set) = line.split_once("mynetworks").unwrap();
            let has = |item: &str| list.split(' ').any(|old| old == item);
            let items = set.trim_matches(['=', ' ', '\'', '"']).split(' ');
            for item in items.filter(|item| !item.is_empty()) {
                // `::1` gets its brackets.
                assert!(has(item) || item == "[::1]/128" && has("::1"), "{list}: {line}");
            }
        }
        if found == Some("warn postfix_mynetworks") {
            assert_eq!(about["commands"], serde_json::json!([]), "{about}");
            let advice = about["advice"].as_str().unwrap();
            assert!(
                advice.contains("Never add an address of this host or of gatepost"),
                "{advice}"
            );
        }
    }
}

/// Also runs the command that applies the changes; mail then arrives over IPv6, through the gateway's listener too.
fn the_commands_repair_a_running_postfix(lab: &Lab) {
    let main_cf =
        "myhostname = out.ready.example\ninet_protocols = ipv4\nmynetworks = 127.0.0.0/8\n";
    let postfix = Postfix::start(lab, &lab.gateway, "running", None, main_cf);
    let at = "[2001:db8:2::1]:25".parse().unwrap();
    assert!(lab.server.connect(at).is_err());
    let (found, json) = of_postfix(lab, &postfix.config_directory());
    // The lab's Postfix has two services that require a PROXY header.
    let faults = [
        "fail postfix_protocols",
        "fail postfix_proxy",
        "fail postfix_proxy",
        "warn postfix_bare_newline",
        "warn postfix_tls",
    ];
    assert_eq!(found, faults, "{json}");
    let activate =
        json["activate"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
    for line in lines(&json).into_iter().chain(activate) {
        lab.gateway.run(["sh", "-c", &line]);
    }
    lab.server.wait_for_listener(at);
    let (found, json) = of_postfix(lab, &postfix.config_directory());
    assert_eq!(found, Vec::<String>::new(), "{json}");
    let mut entrance = lab.gateway.smtp("[::1]:2501".parse().unwrap());
    entrance.raw(b"PROXY TCP6 2001:db8::7 2001:db8:2::1 4000 25\r\n").unwrap();
    entrance.dialogue("S: 220\n C: EHLO a.example\n S: 250\n C: QUIT\n S: 221");
}
