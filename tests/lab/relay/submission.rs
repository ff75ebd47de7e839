//! Users who submit mail: STARTTLS on 587 and implicit TLS on 465 (RFC 8314), AUTH by a Postfix with Cyrus SASL behind them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};

use crate::harness::tests;
use crate::record::record;
use crate::support::{
    Config, Family, Gateway, HOSTNAME, Lab, Mode, OwnTls, PATIENCE, Postfix, port, until,
};

tests![
    users_authenticate_over_587_and_465_and_no_output_has_their_password,
    real_clients_verify_the_certificate_of_port_465,
    implicit_tls_behind_a_proxy_header,
    the_mail_servers_proxy_header_has_the_clients_tls,
    what_is_no_tls_ends_its_own_session,
    a_recording_of_port_465_is_sent_again_inside_tls,
    intercepted_submissions,
    a_gateway_that_stops_waits_for_no_handshake,
    a_reload_changes_what_a_port_speaks,
];

const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;
const USER: &str = "alice";
const PASSWORD: &str = "Tr0ub4dor&3-horse";
const WRONG: &str = "wr0ng-one";
/// See [`secret_in`].
const SECRETS: [&str; 6] = [
    "AGFsaWNlAFRyMHViNGRvciYzLWhvcnNl",
    "VHIwdWI0ZG9yJjMtaG9yc2U=",
    PASSWORD,
    "AGFsaWNlAHdyMG5nLW9uZQ==",
    "d3Iwbmctb25l",
    WRONG,
];

fn at_gateway(lab: &Lab, family: Family, port: u16) -> SocketAddr {
    SocketAddr::new(lab.gateway_ip(family), port)
}

fn addresses(lab: &Lab, port: u16) -> String {
    format!("{:?}", Family::ALL.map(|family| at_gateway(lab, family, port).to_string()))
}

/// Listeners for STARTTLS on 587 and implicit TLS on 465, with one certificate.
fn config(lab: &Lab, tls: &OwnTls) -> Config {
    let listeners = format!(
        "[[listener]]\nname = \"submission\"\naddresses = {}\nproxy_trusted = [\"203.0.113.9\"]\n\n\
         [[listener]]\nname = \"submissions\"\naddresses = {}\ntls = \"implicit\"\n\n",
        addresses(lab, SUBMISSION),
        addresses(lab, SUBMISSIONS)
    );
    tls.configure(Config::new(lab, Mode::Proxy).without("listen").policies(&listeners))
}

/// Mail only from users, whose passwords it accepts only inside TLS.
fn receiver<'lab>(lab: &'lab Lab, tls: &OwnTls) -> Postfix<'lab> {
    let sasl = lab.folder("sasl");
    let users = sasl.join("users");
    let shown = lab.server.output([
        "sh",
        "-c",
        &format!(
            "printf '%s' '{PASSWORD}' | saslpasswd2 -p -c -f {} -u example.org {USER}",
            users.display()
        ),
    ]);
    assert!(shown.status.success(), "saslpasswd2: {}", String::from_utf8_lossy(&shown.stderr));
    lab.server.run(["chown", "postfix", users.to_str().unwrap()]);
    let main_cf = "smtpd_tls_security_level = encrypt\nsmtpd_tls_auth_only = yes\nsmtpd_sasl_auth_enable = yes\n\
         smtpd_sasl_local_domain = example.org\nsmtpd_sasl_authenticated_header = yes\n\
         smtpd_recipient_restrictions = permit_sasl_authenticated, reject";
    let postfix = Postfix::start(lab, &lab.server, "receiver", Some(&tls.authority), main_cf);
    postfix.set_sasl(&format!(
        "pwcheck_method: auxprop\nauxprop_plugin: sasldb\nmech_list: PLAIN LOGIN\nsasldb_path: {}\n",
        users.display()
    ));
    postfix
}

fn users_authenticate_over_587_and_465_and_no_output_has_their_password() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = receiver(&lab, &tls);
    for format in ["text", "json"] {
        let config = config(&lab, &tls)
            .set("log", &format!("format = {format:?}"))
            .set("status", "show_addresses = true");
        let gateway = Gateway::start(&lab, &config);
        let capture = lab.path(&format!("{format}.pcapng"));
        let mut recorder = record(&lab, &config, &capture, &["--count", "16", "--redact"]);
        for port in [SUBMISSION, SUBMISSIONS] {
            for (mechanism, password) in
                [("PLAIN", PASSWORD), ("LOGIN", PASSWORD), ("PLAIN", WRONG), ("LOGIN", WRONG)]
            {
                for family in Family::ALL {
                    submit(&lab, &postfix, &tls, (port, family), &Login { mechanism, password });
                }
            }
        }
        assert!(recorder.wait().success(), "{}", recorder.log());
        let (listener, established, auth) = match format {
            "text" => (" listener=", " tls=established ", " auth=yes "),
            _ => ("\"listener\":\"", "\"tls\":\"established\"", "\"auth\":true"),
        };
        let log = until("every session in the log", || {
            let log = gateway.log();
            (log.matches(listener).count() >= 16).then_some(log)
        });
        for name in ["submission", "submissions"] {
            let end = if format == "text" { ' ' } else { '"' };
            let wanted = format!("{listener}{name}{end}");
            let sessions: Vec<_> = log.lines().filter(|line| line.contains(&wanted)).collect();
            assert_eq!(sessions.len(), 8, "{name}: {log}");
            assert!(sessions.iter().all(|line| line.contains(established)), "{name}: {log}");
            let authenticated = sessions.iter().filter(|line| line.contains(auth)).count();
            assert_eq!(authenticated, 4, "{name}: {log}");
        }
        let file = gateway.file().to_str().unwrap().to_owned();
        let recording = capture.to_str().unwrap();
        let replay = [
            env!("CARGO_BIN_EXE_gatepost"),
            "replay",
            "--config",
            &file,
            "--format",
            format,
            recording,
        ];
        let replayed = lab.gateway.run(replay);
        for (what, output) in [
            ("the log", log.into_bytes()),
            ("the recorder's log", recorder.log().into_bytes()),
            ("the metrics", gateway.get("/metrics").into_bytes()),
            ("the page", gateway.get("/").into_bytes()),
            ("replay", replayed.into_bytes()),
            ("the recording", fs::read(&capture).unwrap()),
        ] {
            assert_eq!(secret_in(&output), None, "{what}");
        }
    }
    assert_eq!(secret_in(format!("AUTH PLAIN {}", SECRETS[0]).as_bytes()), Some(SECRETS[0]));
}

/// With the right password the message arrives as one of the user's.
fn submit(
    lab: &Lab,
    postfix: &Postfix<'_>,
    tls: &OwnTls,
    (port, family): (u16, Family),
    login: &Login<'_>,
) {
    let mechanism = login.mechanism;
    eprintln!("case: {port}, {mechanism}, {family}, {}", login.password);
    let recipient = format!("{mechanism}-{port}-{family}@example.org").to_lowercase();
    let (accepted, shown) = swaks(lab, at_gateway(lab, family, port), tls, &recipient, login);
    assert_eq!(accepted, login.password == PASSWORD, "{shown}");
    if accepted {
        let stored = postfix.take_message_to(&recipient);
        let user = format!("(Authenticated sender: {USER}@example.org)");
        assert!(stored.trace.contains(&user), "{}", stored.trace);
    } else {
        assert!(shown.contains("535 5.7.8"), "{shown}");
    }
}

/// A password, or what AUTH PLAIN (`\0alice\0password`) or LOGIN makes of one in base64.
fn secret_in(output: &[u8]) -> Option<&'static str> {
    let is_in = |secret: &&str| output.windows(secret.len()).any(|part| part == secret.as_bytes());
    SECRETS.into_iter().find(is_in)
}

struct Login<'a> {
    mechanism: &'a str,
    password: &'a str,
}

/// Submits a message. Returns whether it was accepted, and the dialogue.
fn swaks(
    lab: &Lab,
    to: SocketAddr,
    tls: &OwnTls,
    recipient: &str,
    login: &Login<'_>,
) -> (bool, String) {
    let begin = if to.port() == SUBMISSIONS { "--tls-on-connect" } else { "--tls" };
    let trusted = tls.authority.certificate();
    let trusted = trusted.to_str().unwrap();
    let verify = [begin, "--tls-verify", "--tls-ca-path", trusted, "--tls-sni", HOSTNAME];
    let credentials = ["--auth-user", USER, "--auth-password", login.password];
    let user = ["--from", "alice@example.org", "--auth", login.mechanism];
    let options = [&verify[..], &user, &credentials].concat();
    let output = lab.client.swaks(to, recipient, &options);
    let shown = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&shown).into_owned())
}

fn real_clients_verify_the_certificate_of_port_465() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &config(&lab, &tls));
    let ca = tls.authority.certificate().display().to_string();
    for family in Family::ALL {
        let to = at_gateway(&lab, family, SUBMISSIONS);
        for (version, expected) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let shown = shown(
                &lab,
                &format!(
                    "(sleep 0.5; printf 'EHLO client.example.net\\r\\n'; sleep 0.5; printf 'QUIT\\r\\n') | timeout 20 openssl s_client \
                     -connect {to} {version} -quiet -verify_return_error -verify_hostname {HOSTNAME} -CAfile {ca}"
                ),
            );
            assert!(shown.contains("220 ") && shown.contains("221 "), "{shown}");
            assert!(!shown.contains("STARTTLS"), "{shown}");
            gateway.wait_for_metric(
                "gatepost_tls_handshakes_total",
                &[
                    &family.label(),
                    "result=\"full\"",
                    &format!("tls_version=\"{}\"", &expected[4..]),
                ],
                1.0,
            );
        }
        let (ip, port) = (to.ip(), to.port());
        let shown_by_gnutls = shown(
            &lab,
            &format!(
                "printf 'QUIT\\r\\n' | timeout 20 gnutls-cli --x509cafile={ca} --verify-hostname={HOSTNAME} --port={port} {ip}"
            ),
        );
        assert!(shown_by_gnutls.contains("The certificate is trusted"), "{shown_by_gnutls}");
        let shown_by_postfix = shown(
            &lab,
            &format!("posttls-finger -w -c -l verify -F {ca} '[{ip}]:{port}' {HOSTNAME}"),
        );
        assert!(
            shown_by_postfix.contains("Verified TLS connection established"),
            "{shown_by_postfix}"
        );
    }
}

/// Both outputs of a shell command on the client.
fn shown(lab: &Lab, command: &str) -> String {
    let output = lab.client.output(["sh", "-c", command]);
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// The header comes before TLS, and the first record of TLS possibly with it.
fn implicit_tls_behind_a_proxy_header() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let trusted = Family::ALL.map(|family| lab.client_ip(family).to_string());
    let listener = format!(
        "[[listener]]\nname = \"submissions\"\naddresses = {}\ntls = \"implicit\"\nproxy_trusted = {trusted:?}\n\n",
        addresses(&lab, SUBMISSIONS)
    );
    let config =
        tls.configure(Config::new(&lab, Mode::Proxy).without("listen").policies(&listener));
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(at_gateway(&lab, family, SUBMISSIONS));
        smtp.raw(b"PROXY TCP6 2001:db8:7::7 2001:db8:7::25 4000 465\r\n").unwrap();
        smtp.handshake(tls.client(), HOSTNAME).unwrap();
        let recipient = format!("{family}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        postfix.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!(" to=<{recipient}> "));
        assert!(line.contains(" client=[2001:db8:7::7]:4000 "), "{line}");
    }
}

/// Only implicit TLS is known when the header is sent. Postfix accepts it, and skips what it does not use.
fn the_mail_servers_proxy_header_has_the_clients_tls() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let at = lab.server_socket(Family::Ipv6, 2599);
    let listening = lab.server.in_thread(|| TcpListener::bind(at)).unwrap();
    let listener = |name: &str, port, kind: &str, upstreams: &[SocketAddr]| {
        let upstreams: Vec<_> = upstreams.iter().map(ToString::to_string).collect();
        format!(
            "[[listener]]\nname = {name:?}\naddresses = {}\ntls = {kind:?}\n[listener.upstream]\n\
             addresses = {upstreams:?}\nidentity = \"proxy-v2\"\ntls = \"off\"\ncheck = \"none\"\n\n",
            addresses(&lab, port)
        )
    };
    let postfixes = Family::ALL.map(|family| lab.server_socket(family, port::PROXY_PROTOCOL));
    let listeners = [
        listener("submissions", SUBMISSIONS, "implicit", &postfixes),
        listener("shown", 2465, "implicit", &[at]),
        listener("submission", SUBMISSION, "starttls", &[at]),
    ];
    let config = Config::new(&lab, Mode::Proxy).without("listen").without("upstream");
    let _gateway = Gateway::start(&lab, &tls.configure(config.policies(&listeners.concat())));
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(at_gateway(&lab, family, SUBMISSIONS));
        smtp.handshake(tls.client(), HOSTNAME).unwrap();
        let recipient = format!("{family}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        let stored = postfix.take_message_to(&recipient);
        assert!(stored.trace.contains(&lab.client_ip(family).to_string()), "{}", stored.trace);

        let mut smtp = lab.client.smtp(at_gateway(&lab, family, 2465));
        smtp.handshake(tls.client(), HOSTNAME).unwrap();
        let header = received_header(&listening);
        assert!(header.ends_with(b"TLS_AES_256_GCM_SHA384"), "{}", header.escape_ascii());
        let version = b"\x01\x00\x00\x00\x01\x21\x00\x07TLSv1.3\x23";
        let found = header.windows(version.len()).any(|part| part == version);
        assert!(found, "{}", header.escape_ascii());

        let _plain = lab.client.connect(at_gateway(&lab, family, SUBMISSION)).unwrap();
        let header = received_header(&listening);
        assert_eq!(header.len(), if family == Family::Ipv6 { 52 } else { 28 }, "addresses only");
    }
}

/// The header with which the next connection begins, version 2.
fn received_header(listening: &TcpListener) -> Vec<u8> {
    let (mut stream, _) = listening.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut header = vec![0; 16];
    stream.read_exact(&mut header).unwrap();
    let mut rest = vec![0; usize::from(u16::from_be_bytes([header[14], header[15]]))];
    stream.read_exact(&mut rest).unwrap();
    [header, rest].concat()
}

/// Each with a reason; a connection without a byte is a check of the port, not a failed handshake.
fn what_is_no_tls_ends_its_own_session() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &config(&lab, &tls));
    for family in Family::ALL {
        let to = at_gateway(&lab, family, SUBMISSIONS);
        let mut witness = lab.client.smtp(to);
        witness.handshake(tls.client(), HOSTNAME).unwrap();
        witness.begin("sender@example.net", &format!("witness-{family}@example.org"));
        for (case, bytes, outcome) in [
            ("plaintext", &b"EHLO client.example.net\r\n"[..], "outcome=tls_failed"),
            ("an alert", &[0x15, 3, 1, 0, 2, 2, 40], "outcome=tls_failed"),
            ("half a record", &[0x16, 3, 1, 2, 0, 1], "outcome=tls_failed"),
            ("nothing", b"", "outcome=client_closed"),
        ] {
            eprintln!("case: {case}, {family}");
            let mut socket = lab.client.connect(to).unwrap();
            let client = socket.local_addr().unwrap();
            socket.write_all(bytes).unwrap();
            socket.shutdown(std::net::Shutdown::Write).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut reply = Vec::new();
            let _reset = socket.read_to_end(&mut reply);
            assert!(!reply.starts_with(b"220"), "plaintext: {}", reply.escape_ascii());
            let line = gateway.wait_for_log(&format!(" client={client} "));
            assert!(line.contains(outcome), "{line}");
        }
        assert_eq!(witness.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        postfix.take_message_to(&format!("witness-{family}@example.org"));
    }
    let failed = gateway.metric("gatepost_tls_handshakes_total", &["tls_version=\"unknown\""]);
    assert_eq!(failed, 6.0);
    assert_eq!(gateway.metric("gatepost_tls_handshakes_total", &["result=\"closed\""]), 2.0);
}

/// And never in plaintext. Without the configuration it is a dialogue like others.
fn a_recording_of_port_465_is_sent_again_inside_tls() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config = config(&lab, &tls);
    let gateway = Gateway::start(&lab, &config);
    let capture = lab.path("submissions.pcapng");
    let mut recorder = record(&lab, &config, &capture, &["--count", "2"]);
    let mut clients = Vec::new();
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(at_gateway(&lab, family, SUBMISSIONS));
        smtp.handshake(tls.client(), HOSTNAME).unwrap();
        smtp.begin("sender@example.net", &format!("{family}@example.org"));
        assert_eq!(smtp.data(b"Subject: x\r\n\r\n.dots\r\n..\r\n").code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        postfix.take_message_to(&format!("{family}@example.org"));
        clients.push(smtp);
    }
    assert!(recorder.wait().success(), "{}", recorder.log());
    let gatepost = env!("CARGO_BIN_EXE_gatepost");
    let file = capture.to_str().unwrap();
    let replayed = lab.client.run([gatepost, "replay", "--format", "json", file]);
    assert_eq!(replayed.matches("\"data_code\":250").count(), 2, "{replayed}");
    assert_eq!(replayed.matches("\"anomalies\":[]").count(), 2, "{replayed}");

    let targets = |port| Family::ALL.map(|family| at_gateway(&lab, family, port).to_string());
    let again = |[ipv6, ipv4]: [String; 2]| {
        let words = [gatepost, "replay", "--target", &ipv6, "--target", &ipv4, file];
        let output = lab.client.output(words);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (same, printed) = again(targets(SUBMISSIONS));
    assert!(same, "{printed}");
    for family in Family::ALL {
        postfix.take_message_to(&format!("{family}@example.org"));
    }
    let (same, printed) = again(targets(SUBMISSION));
    assert!(!same && printed.contains("the TLS handshake failed"), "{printed}");
    assert_eq!(postfix.recipients(), [""; 0]);
    drop(gateway);
}

fn intercepted_submissions() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let postfix = Postfix::receiver(&lab);
    let config = tls
        .configure(Config::new(&lab, Mode::Tproxy))
        .set("listen", "tls = \"implicit\"")
        .set("intercept", &format!("ports = [{SUBMISSIONS}]"))
        .upstream_port(&lab, port::SMTP);
    let gateway = Gateway::start(&lab, &config);
    for family in Family::ALL {
        let to = lab.server_socket(family, SUBMISSIONS);
        let mut smtp = lab.client.smtp(to);
        smtp.handshake(tls.client(), HOSTNAME).unwrap();
        let recipient = format!("{family}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        postfix.take_message_to(&recipient);
        drop(smtp);
        gateway.wait_for_log(&format!(" to=<{recipient}> "));
    }
}

fn a_gateway_that_stops_waits_for_no_handshake() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let config = config(&lab, &tls).set("timeouts", "drain = \"1h\"");
    let mut gateway = Gateway::start(&lab, &config);
    let silent = lab.client.connect(at_gateway(&lab, Family::Ipv6, SUBMISSIONS)).unwrap();
    let mut begun = lab.client.connect(at_gateway(&lab, Family::Ipv4, SUBMISSIONS)).unwrap();
    begun.write_all(&[0x16, 3, 1, 2, 0, 1]).unwrap();
    gateway.wait_for_metric("gatepost_sessions_open", &[], 2.0);
    gateway.terminate();
    assert!(gateway.wait().success());
    let client = silent.local_addr().unwrap();
    let line = gateway.wait_for_log(&format!(" client={client} "));
    assert!(line.contains("outcome=shutdown"), "{line}");
}

fn a_reload_changes_what_a_port_speaks() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let listener = |kind: &str| {
        let listener = format!(
            "[[listener]]\nname = \"users\"\naddresses = {}\ntls = {kind:?}\n\n",
            addresses(&lab, 2587)
        );
        let config = Config::new(&lab, Mode::Proxy).without("listen").policies(&listener);
        if kind == "off" { config } else { tls.configure(config) }
    };
    let gateway = Gateway::start(&lab, &listener("starttls"));
    let to = at_gateway(&lab, Family::Ipv6, 2587);
    let mut before = lab.client.smtp(to);
    before.dialogue("S: 220\n C: EHLO client.example.net");
    assert!(before.reply().unwrap().offers("STARTTLS"));

    gateway.reload(&listener("implicit").toml());
    gateway.wait_for_log("configuration reloaded");
    let mut smtp = lab.client.smtp(to);
    smtp.handshake(tls.client(), HOSTNAME).unwrap();
    smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250\n C: QUIT\n S: 221");
    // A session keeps what it began with.
    before.dialogue("C: STARTTLS\n S: 220");
    before.handshake(tls.client(), HOSTNAME).unwrap();
    before.dialogue("C: EHLO client.example.net\n S: 250\n C: QUIT\n S: 221");

    gateway.reload(&listener("off").toml());
    until("the second reload", || {
        (gateway.log().matches("configuration reloaded").count() == 2).then_some(())
    });
    let mut smtp = lab.client.smtp(to);
    smtp.dialogue("S: 220\n C: EHLO client.example.net");
    assert!(!smtp.reply().unwrap().offers("STARTTLS"));
    smtp.dialogue("C: STARTTLS\n S: 502");
}
