//! The installed example configurations: each passes `config check`, and runs in front of a real Postfix.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::authentication::signer::Signer;
use crate::authentication::{Case, GOOGLE, zones};
use crate::domain_check::monitoring::{CheckedSite, prometheus_with};
use crate::harness::tests;
use crate::support::world::{KNOT, knot, sender_ip};
use crate::support::{
    Authority, Family, HOSTNAME, Host, Lab, Mode, OwnTls, Postfix, Process, port, until,
};

tests![
    each_passes_config_check_without_a_warning,
    the_default_runs_beside_a_postfix_on_port_25,
    in_front_of_postfix_on_the_same_host,
    on_a_router,
    behind_a_load_balancer,
    googles_rule_for_senders,
    the_scrape_jobs,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const PACKAGED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging");

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(PACKAGED).join("examples").join(name)).unwrap()
}

/// The certificate and key of an example, and where they are in a test.
fn with_certificate(text: &str, authority: &Authority) -> String {
    let certificate = authority.server_certificate().display().to_string();
    let key = authority.server_key().display().to_string();
    text.replace("/etc/gatepost/fullchain.pem", &certificate)
        .replace("/etc/gatepost/privkey.pem", &key)
}

/// The installed `.toml` files.
fn all() -> Vec<PathBuf> {
    let examples = fs::read_dir(Path::new(PACKAGED).join("examples")).unwrap();
    let mut all: Vec<PathBuf> = examples.map(|entry| entry.unwrap().path()).collect();
    all.push(Path::new(PACKAGED).join("gatepost.toml"));
    all
}

fn each_passes_config_check_without_a_warning() {
    assert!(all().len() >= 5, "{:?}", all());
    let folder = std::env::temp_dir().join(format!("gatepost-examples-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let authority = Authority::new(folder.clone(), HOSTNAME);
    let copy = folder.join("example.toml");
    for file in all() {
        fs::write(&copy, with_certificate(&fs::read_to_string(&file).unwrap(), &authority))
            .unwrap();
        let check = Command::new(GATEPOST).args(["config", "check"]).arg(&copy).output().unwrap();
        let printed = String::from_utf8_lossy(&check.stdout).into_owned();
        let warned = String::from_utf8_lossy(&check.stderr).into_owned();
        assert!(check.status.success() && printed.ends_with(": OK\n"), "{printed}{warned}");
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.lines().all(|line| line.chars().count() <= 128), "{}", file.display());
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Starts a gateway with `text`, with the host's files moved to the lab's folder.
fn run(lab: &Lab, host: &Host, text: &str) -> Process {
    let cache = lab.path("facts.redb");
    let text = text.replace("/var/lib/gatepost/facts.redb", cache.to_str().unwrap());
    let text = format!("{text}\n[control]\nsocket = {:?}\n", lab.path("control.sock"));
    let path = lab.path("gatepost.toml");
    fs::write(&path, text).unwrap();
    let mut process = host.spawn([GATEPOST, "run", "--config", path.to_str().unwrap()]);
    until("the ready line", || {
        assert!(!process.has_ended(), "{}", process.log());
        process.log().contains("ready: ").then_some(())
    });
    process
}

fn deliver(smtp: &mut crate::support::Smtp, recipient: &str) {
    smtp.dialogue("S: 220");
    deliver_after_greeting(smtp, recipient);
}

/// After the greeting.
fn deliver_after_greeting(smtp: &mut crate::support::Smtp, recipient: &str) {
    smtp.dialogue(&format!(
        "C: EHLO client.example.net
         S: 250
         C: MAIL FROM:<sender@example.net>
         S: 250
         C: RCPT TO:<{recipient}>
         S: 250"
    ));
    assert_eq!(smtp.data(b"Subject: example\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
}

fn the_default_runs_beside_a_postfix_on_port_25() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let text = fs::read_to_string(Path::new(PACKAGED).join("gatepost.toml")).unwrap();
    let _gateway = run(&lab, &lab.server, &text);
    for at in ["[::1]:2525", "127.0.0.1:2525"] {
        let at: SocketAddr = at.parse().unwrap();
        let recipient = format!("default-{}@example.org", Family::ALL[usize::from(at.is_ipv4())]);
        deliver(&mut lab.server.smtp(at), &recipient);
        postfix.message_to(&recipient);
    }
}

/// A Postfix of the server, whose addresses are those of the examples. The commands in the comments of `same-host.toml` have run.
fn postfix_behind_the_examples(lab: &Lab) -> Postfix<'_> {
    lab.server.configure("addr add 2001:db8::25/128 dev lo nodad\naddr add 192.0.2.25/32 dev lo\n");
    let postfix = Postfix::receiver(lab);
    let text = example("same-host.toml");
    let typed = text.lines().filter_map(|line| line.strip_prefix("#   "));
    let typed: Vec<&str> = typed.filter(|line| line.starts_with("post")).collect();
    assert_eq!(typed.len(), 4, "{typed:?}");
    for command in typed {
        let shell = format!("MAIL_CONFIG={} {command}", postfix.config_directory().display());
        lab.server.run(["sh", "-c", &shell]);
    }
    postfix
}

fn in_front_of_postfix_on_the_same_host() {
    let lab = Lab::new();
    let postfix = postfix_behind_the_examples(&lab);
    let text = example("same-host.toml");
    let _gateway = run(&lab, &lab.server, &text);
    for at in ["[2001:db8::25]:25", "192.0.2.25:25"] {
        let at: SocketAddr = at.parse().unwrap();
        let recipient = format!("{}@example.org", if at.is_ipv6() { "v6" } else { "v4" });
        deliver(&mut lab.server.smtp(at), &recipient);
        postfix.message_to(&recipient);
        let client = format!("client=unknown[{}]", at.ip());
        postfix.wait_for_log(&client, |line| line.contains(&client));
    }
}

/// Both jobs of `dashboards/prometheus/prometheus.yml`; the manual shows the second.
fn the_scrape_jobs() {
    let lab = Lab::new();
    let site = CheckedSite::new(&lab);
    let _gateway = site.gateway("");
    let prometheus = prometheus_with(&lab, &["good.example"], "10s");
    prometheus.wait_for("up{job=\"gatepost\"} == 1");
    prometheus.wait_for("up{job=\"gatepost-check\", instance=\"good.example\"} == 1");
    prometheus.wait_for("gatepost_check_ready{instance=\"good.example\"} == 1");

    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = repository.join("dashboards/prometheus/prometheus.yml");
    let file =
        fs::read_to_string(file).unwrap().replace("targets: []", "targets: [\"example.org\"]");
    let page = fs::read_to_string(repository.join("docs/check.md")).unwrap();
    let (_, shown) = page.split_once("```yaml\n").unwrap();
    let (shown, _) = shown.split_once("```").unwrap();
    for line in shown.lines() {
        assert!(file.lines().any(|one| one == line), "{line} is not in prometheus.yml");
    }
}

fn on_a_router() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    // The lab names a link after the host at its other end.
    let _gateway = run(&lab, &lab.gateway, &example("router.toml").replace("wan0", "client"));
    for family in Family::ALL {
        let recipient = format!("{family}@example.org");
        deliver(&mut lab.client.smtp(lab.entrance(Mode::Tproxy, family)), &recipient);
        postfix.message_to(&recipient);
        let client = format!("[{}]", lab.client_ip(family));
        postfix.wait_for_log(&client, |line| line.contains("client=") && line.contains(&client));
    }
}

/// The lab's client is the load balancer, with clients of both families behind it.
fn behind_a_load_balancer() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    lab.gateway
        .configure("addr add 2001:db8:25::11/128 dev lo nodad\naddr add 192.0.2.11/32 dev lo\n");
    let balancer = "2001:db8:25::10".parse().unwrap();
    lab.add_client_ip(balancer);
    let [v6, v4] = Family::ALL.map(|family| lab.server_socket(family, port::PROXY_PROTOCOL));
    let text = example("behind-load-balancer.toml")
        .replace("[2001:db8:25::21]:10025", &v6.to_string())
        .replace("192.0.2.21:10025", &v4.to_string());
    let _gateway = run(&lab, &lab.gateway, &text);
    let clients = [
        (
            "[2001:db8:25::11]:2525",
            balancer,
            "TCP6 2001:db8:9::9 2001:db8:25::10",
            "[2001:db8:9::9]",
        ),
        (
            "192.0.2.11:2525",
            lab.client_ip(Family::Ipv4),
            "TCP4 203.0.113.9 192.0.2.10",
            "[203.0.113.9]",
        ),
    ];
    for (number, (at, from, header, client)) in clients.into_iter().enumerate() {
        let at: SocketAddr = at.parse().unwrap();
        let mut smtp = lab.client.smtp_from(from, at);
        smtp.raw(format!("PROXY {header} 4242 25\r\n").as_bytes()).unwrap();
        let recipient = format!("balanced-{number}@example.org");
        deliver(&mut smtp, &recipient);
        postfix.message_to(&recipient);
        postfix.wait_for_log(client, |line| line.contains("client=") && line.contains(client));
    }
    // Other peers must not send a PROXY header.
    let from = "2001:db8:25::66".parse().unwrap();
    lab.add_client_ip(from);
    let mut outsider = lab.client.smtp_from(from, "[2001:db8:25::11]:2525".parse().unwrap());
    outsider.raw(b"PROXY TCP6 2001:db8:9::9 2001:db8:25::10 4242 25\r\n").unwrap();
    outsider.dialogue("S: 220\n S: 500 5.5.2");
    deliver_after_greeting(&mut outsider, "outsider@example.org");
    let own = format!("[{from}]");
    postfix.wait_for_log(&own, |line| line.contains("client=") && line.contains(&own));
}

/// In shadow mode, and in force without its line `mode`; the clients use STARTTLS.
fn googles_rule_for_senders() {
    let lab = Lab::new();
    let postfix = postfix_behind_the_examples(&lab);
    lab.client.configure("route add 192.0.2.25/32 via 192.0.2.1\n");
    lab.gateway.configure(
        "route add 2001:db8::25/128 via 2001:db8:2::25\nroute add 192.0.2.25/32 via 198.51.100.25\n",
    );
    for family in Family::ALL {
        lab.add_client_ip(sender_ip("good", family));
    }
    let tls = OwnTls::new(&lab);
    let signer = Signer::new(&lab.folder("signer"));
    let _knot = knot(&lab, &zones(&signer), &[]);
    let text = with_certificate(&example("google-sender-rule.toml"), &tls.authority);
    let text = text.replace("[lookup]\n", &format!("[lookup]\ndns = [\"{KNOT}\"]\n"));
    let in_force = text.replace("mode = \"shadow\"\n", "");
    assert!(in_force.contains(GOOGLE), "another rule than that of docs/policy.md");
    let send = |family, signature: Option<&str>| {
        let case = Case {
            client: "good",
            family,
            sender: "alice@spf-none.example".to_owned(),
            author: "author.example".to_owned(),
            signature: signature.map(|domain| (domain.to_owned(), "good")),
            reply: String::new(),
        };
        let at = if family == Family::Ipv6 { "[2001:db8::25]:25" } else { "192.0.2.25:25" };
        let mut smtp = lab.client.smtp_from(sender_ip("good", family), at.parse().unwrap());
        smtp.start_tls(tls.client(), HOSTNAME);
        smtp.begin(&case.sender, "bob@example.org");
        let reply = smtp.data(&case.message(&signer));
        smtp.dialogue("C: QUIT\n S: 221");
        let enhanced = reply.lines[0].split(' ').next().unwrap_or_default().to_owned();
        (reply.code, enhanced)
    };
    let accepted = (250, "2.0.0".to_owned());
    let signed = Some("signer.example");
    for (text, unsigned_over_ipv6) in
        [(text, accepted.clone()), (in_force, (550, "5.7.26".to_owned()))]
    {
        let gateway = run(&lab, &lab.server, &text);
        assert_eq!(send(Family::Ipv6, signed), accepted);
        assert_eq!(send(Family::Ipv4, None), accepted);
        let found = || gateway.log().matches("authenticated.not_authenticated").count();
        assert_eq!(found(), 0, "{}", gateway.log());
        assert_eq!(send(Family::Ipv6, None), unsigned_over_ipv6);
        until("the session's line", || (found() == 1).then_some(()));
        let verdict = if unsigned_over_ipv6.0 == 250 {
            "shadow=\"reject by IPv6 senders have a confirmed name and authenticate"
        } else {
            "rule=\"IPv6 senders have a confirmed name and authenticate\""
        };
        assert!(gateway.log().contains(verdict), "{}", gateway.log());
    }
    postfix.wait_until_idle();
    assert_eq!(postfix.count_to("bob@example.org"), 5);
}
