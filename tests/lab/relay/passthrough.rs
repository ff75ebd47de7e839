//! Outcomes of sessions whose TLS passes through, with a real Postfix, and swaks, OpenSSL and posttls-finger as clients: in the
//! log, the metrics and the status page of the gateway, and in `gatepost watch` beside it, from either capture source.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::tests;
use crate::support::watcher::{Source, Watcher};
use crate::support::{Authority, Config, Family, Gateway, Lab, METRICS, Mode, Postfix, until};

tests![
    tls_that_passes_through_has_outcomes_of_its_own_proxy,
    tls_that_passes_through_has_outcomes_of_its_own_tproxy,
];

const HOSTNAME: &str = "mx.example.org";

fn tls_that_passes_through_has_outcomes_of_its_own_proxy() {
    outcomes(Mode::Proxy);
}

fn tls_that_passes_through_has_outcomes_of_its_own_tproxy() {
    outcomes(Mode::Tproxy);
}

/// A client.
struct Client {
    name: &'static str,
    /// Whether the certificate's authority is the one that it trusts.
    trusts: bool,
    /// In sh(1), with `$host`, `$port`, `$at` for both, and `$ca` for the trusted authority.
    command: String,
    outcome: &'static str,
}

fn clients() -> Vec<Client> {
    let swaks = "swaks --server $host --port $port --tls --tls-verify --tls-ca-path $ca --ehlo a.example \
                 --from a@a.example --to ann@example.org";
    let finger = "posttls-finger -t 5 -l encrypt -c -F $ca $bracketed:$port";
    let s_client = |input: &str, options: &str| {
        format!(
            "({input}) | openssl s_client -starttls smtp -connect $at -CAfile $ca -verify_return_error \
             {options}"
        )
    };
    let quit = "sleep 0.3; echo EHLO a.example; sleep 0.3; echo QUIT; sleep 0.3";
    // As a test of the certificate does. Without -quiet its end of input ends the session.
    let no_data = "sleep 0.3";
    let client = |name, trusts, command: &str, outcome| Client {
        name,
        trusts,
        command: command.to_owned(),
        outcome,
    };
    vec![
        client("swaks", true, swaks, "tls_completed"),
        client("posttls-finger", true, finger, "tls_completed"),
        client("TLS 1.3", true, &s_client(quit, "-quiet -tls1_3"), "tls_completed"),
        client("TLS 1.2", true, &s_client(quit, "-quiet -tls1_2"), "tls_completed"),
        client("TLS 1.3, no data", true, &s_client(no_data, "-tls1_3"), "tls_completed"),
        client("TLS 1.2, no data", true, &s_client(no_data, "-tls1_2"), "tls_completed"),
        client("swaks, untrusted", false, swaks, "tls_failed"),
        client("TLS 1.3, untrusted", false, &s_client(quit, "-quiet -tls1_3"), "tls_failed"),
        client("TLS 1.2, untrusted", false, &s_client(quit, "-quiet -tls1_2"), "tls_failed"),
        // It needs an RSA certificate.
        client(
            "no cipher",
            true,
            &s_client(quit, "-quiet -tls1_2 -cipher AES128-SHA"),
            "tls_failed",
        ),
    ]
}

impl Client {
    fn run(&self, lab: &Lab, to: SocketAddr, trusted: &Path) -> String {
        let ip = to.ip();
        let assignments = format!(
            "host={ip} port={} at={to} bracketed='[{ip}]' ca={}",
            to.port(),
            trusted.display()
        );
        let output = lab.client.output(["sh", "-c", &format!("{assignments}; {}", self.command)]);
        [output.stdout, output.stderr]
            .map(|text| String::from_utf8_lossy(&text).into_owned())
            .concat()
    }
}

fn outcomes(mode: Mode) {
    let lab = Lab::new();
    let authority = Authority::new(lab.folder("ca"), HOSTNAME);
    let stranger = Authority::new(lab.folder("another-ca"), HOSTNAME);
    let _postfix = Postfix::start(&lab, &lab.server, "receiver", Some(&authority), "");
    let gateway = Gateway::start(&lab, &Config::new(&lab, mode));
    let start = |source| Watcher::start(&lab, &lab.gateway, source, &[lab.client_link()], &[]);
    let watchers = Source::ALL.map(start);
    let clients = clients();
    let mut sessions = 0;
    for family in Family::ALL {
        for client in &clients {
            let trusted = if client.trusts { &authority } else { &stranger };
            let (name, to) = (client.name, lab.entrance(mode, family));
            eprintln!("case: {family}, {name}");
            let printed = client.run(&lab, to, &trusted.certificate());
            let line = until(format_args!("the session of {name}: {printed}"), || {
                let log = gateway.log();
                log.lines()
                    .filter(|line| line.contains(" session "))
                    .nth(sessions)
                    .map(str::to_owned)
            });
            sessions += 1;
            assert!(line.contains(&format!(" outcome={} ", client.outcome)), "{line}\n{printed}");
            assert!(line.contains(" tls=started ") && line.contains(" closed_by="), "{line}");
        }
        let of_family = format!("family=\"{family}\"");
        for (outcome, count) in [("tls_completed", 6.0), ("tls_failed", 4.0)] {
            let labels = [&*of_family, &*format!("outcome=\"{outcome}\"")];
            gateway.wait_for_metric("gatepost_sessions_total", &labels, count);
        }
        gateway.wait_for_metric("gatepost_sessions_total", &[&of_family], 10.0);
    }
    let page = lab.gateway.run(["curl", "-sS", &format!("http://{METRICS}/")]);
    for shown in
        ["No problems: 12 sessions under TLS in the last hour.", "relayed under TLS", "TLS failed"]
    {
        assert!(page.contains(shown), "no {shown:?} in {page}");
    }
    for watcher in watchers {
        watcher.wait_for_sessions(sessions as u64);
        let output = watcher.finish();
        let mut found = output.sessions();
        // A session whose last packets were not captured is printed late.
        found.sort_by_key(|session| session["number"].as_u64().unwrap());
        let found = found.into_iter().map(|session| session["outcome"].as_str().unwrap());
        let expected = clients.iter().map(|client| client.outcome);
        let expected: Vec<_> = expected.clone().chain(expected).collect();
        assert_eq!(found.collect::<Vec<_>>(), expected, "{output:#?}");
    }
}
