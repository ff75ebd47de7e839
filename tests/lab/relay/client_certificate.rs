//! `client_certificate = "request"`: real clients with certificates of all kinds, and rules about them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::harness::tests;
use crate::record::record;
use crate::support::{
    CertificateRequest, Config, Family, Gateway, HOSTNAME, KeyType, Lab, Mode, OwnTls, Postfix,
    Validity, port,
};

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

tests![
    every_kind_of_certificate_is_accepted,
    postfix_presents_its_certificate,
    rules_by_certificate_and_their_replay,
];

fn asking(lab: &Lab, tls: &OwnTls) -> Config {
    let ca = tls.authority.certificate();
    tls.configure(Config::new(lab, Mode::Proxy))
        .set("tls", "client_certificate = \"request\"")
        .set("tls", &format!("client_ca = {ca:?}"))
}

/// A certificate and its key, made by `openssl` in a folder of the lab.
fn made(lab: &Lab, name: &str, arguments: &str) -> [PathBuf; 2] {
    let folder = lab.folder(name);
    let command = format!("cd {} && openssl {arguments}", folder.display());
    lab.client.run(["sh", "-c", &command]);
    ["cert.pem", "key.pem"].map(|file| folder.join(file))
}

/// A QUIT inside TLS. What openssl prints.
fn openssl(lab: &Lab, to: SocketAddr, version: &str, [certificate, key]: &[PathBuf; 2]) -> String {
    let command = format!(
        "printf 'QUIT\\r\\n' | timeout 20 openssl s_client -quiet -starttls smtp \
         -connect {to} {version} -cipher DEFAULT@SECLEVEL=0 -cert {} -key {}",
        certificate.display(),
        key.display()
    );
    let output = lab.client.output(["sh", "-c", &command]);
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).into_owned()
}

/// The digest of a certificate, or of its public key, as openssl computes it.
fn digest(lab: &Lab, certificate: &Path, of: &str) -> String {
    let command = format!("openssl x509 -in {} {of} | sha256sum", certificate.display());
    lab.client.run(["sh", "-c", &command]).split(' ').next().unwrap().to_owned()
}

const OF_CERTIFICATE: &str = "-outform DER";
const OF_KEY: &str = "-noout -pubkey | openssl pkey -pubin -outform DER";

fn every_kind_of_certificate_is_accepted() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &asking(&lab, &tls));
    let issued = |file, validity| {
        let names = &["mx.partner.example", "other.partner.example"];
        let request = CertificateRequest { file, names, key: KeyType::EcdsaP256, validity };
        let issued = tls.authority.issue(&request);
        [issued.certificate, issued.key]
    };
    const SELF_SIGNED: &str = "req -x509 -nodes -keyout key.pem -out cert.pem -days 30";
    let san = "-subj '/CN=A \"partner\"' -addext subjectAltName=DNS:self.example";
    let unnamed = format!("{SELF_SIGNED} -newkey rsa:1024 -subj /CN=old");
    let self_signed = format!("{SELF_SIGNED} -newkey rsa:2048 {san}");
    let ed25519 = format!("{SELF_SIGNED} -newkey ed25519 {san}");
    // Version 1, as `x509 -req` makes it without extensions.
    let version1 = "req -new -nodes -newkey rsa:2048 -keyout key.pem -out csr.pem -subj /CN=v1 && openssl x509 -req \
                    -in csr.pem -signkey key.pem -days 30 -out cert.pem";
    let cases = [
        (
            issued("valid", Validity::Days(30)),
            "mx.partner.example,other.partner.example",
            Some("yes"),
        ),
        (
            issued("expired", Validity::Expired),
            "mx.partner.example,other.partner.example",
            Some("no"),
        ),
        (made(&lab, "self-signed", &self_signed), "self.example", Some("no")),
        (made(&lab, "ed25519", &ed25519), "self.example", Some("no")),
        (made(&lab, "version1", version1), "", Some("no")),
        // A key that proves nothing here is no certificate, and no reason to refuse mail.
        (made(&lab, "rsa1024", &unnamed), "", None),
    ];
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        for (files, names, verified) in &cases {
            for version in ["-tls1_2", "-tls1_3"] {
                let before = gateway.log().matches(" session ").count();
                let shown = openssl(&lab, to, version, files);
                assert!(shown.contains("221 2.0.0 Bye"), "{version} {files:?}: {shown}");
                let line = crate::support::until("the session's line", || {
                    let log = gateway.log();
                    let mut lines = log.lines().filter(|line| line.contains(" session "));
                    lines.nth(before).map(str::to_owned)
                });
                assert!(line.contains(" tls=established"), "{line}");
                let Some(verified) = verified else {
                    assert!(!line.contains("client_certificate"), "{line}");
                    continue;
                };
                let sha256 = digest(&lab, &files[0], OF_CERTIFICATE);
                assert!(line.contains(&format!(" client_certificate=sha256:{sha256} ")), "{line}");
                assert!(line.contains(&format!(" certificate_verified={verified} ")), "{line}");
                let listed = format!(" certificate_names={names} ");
                assert_eq!(line.contains(&listed), !names.is_empty(), "{line}");
            }
        }
    }
}

fn postfix_presents_its_certificate() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let receiver = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &asking(&lab, &tls));
    let request = CertificateRequest {
        file: "sender",
        names: &["sender.example.net"],
        key: KeyType::Rsa2048,
        validity: Validity::Days(30),
    };
    let own = tls.authority.issue(&request);
    let routes = Family::ALL.map(|family| {
        let to = lab.entrance(Mode::Proxy, family);
        format!("{{ {family}@example.org = smtp:[{}]:{} }}", to.ip(), to.port())
    });
    let main_cf = format!(
        "myhostname = sender.example.net\nvirtual_mailbox_domains =\ntransport_maps = inline:{{ {} }}\n\
         smtp_tls_security_level = encrypt\nsmtp_tls_cert_file = {}\nsmtp_tls_key_file = {}",
        routes.join(", "),
        own.certificate.display(),
        own.key.display()
    );
    let _sender = Postfix::start(&lab, &lab.client, "sender", None, &main_cf);
    for family in Family::ALL {
        let recipient = format!("{family}@example.org");
        let mut smtp = lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: x\r\n\r\nx\r\n").code, 250);
        receiver.take_message_to(&recipient);
        let line = gateway.wait_for_log(&format!("to=<{recipient}>"));
        assert!(line.contains("certificate_names=sender.example.net "), "{line}");
        assert!(line.contains("certificate_verified=yes"), "{line}");
    }
}

fn rules_by_certificate_and_their_replay() {
    let lab = Lab::new();
    let tls = OwnTls::new(&lab);
    let _postfix = Postfix::receiver(&lab);
    let request = CertificateRequest {
        file: "partner",
        names: &["mx.partner.example"],
        key: KeyType::EcdsaP256,
        validity: Validity::Days(30),
    };
    let partner = tls.authority.issue(&request);
    let partner = [partner.certificate, partner.key];
    let arguments = "req -x509 -nodes -keyout key.pem -out cert.pem -days 30 -newkey rsa:2048 -subj /CN=x \
                     -addext subjectAltName=DNS:mx.partner.example";
    let impostor = made(&lab, "impostor", arguments);
    let pinned = made(&lab, "pinned", arguments);
    let key = digest(&lab, &pinned[0], OF_KEY);
    let config = asking(&lab, &tls).policies(&format!(
        "[[policy]]\nname = \"partner\"\notherwise = \"accept\"\n\
         when = {{ client_certificate = [\".partner.example\", \"sha256:{key}\"] }}\n\
         [[policy]]\nname = \"all others\"\notherwise = \"reject\"\nwhen = {{ tls = true }}\n"
    ));
    let gateway = Gateway::start(&lab, &config);
    let capture = lab.path("certificates.pcapng");
    let mut recorder = record(&lab, &config, &capture, &["--count", "8"]);
    for family in Family::ALL {
        let to = lab.entrance(Mode::Proxy, family);
        for (files, code) in [
            (Some(&partner), "250"),
            (Some(&pinned), "250"),
            (Some(&impostor), "550"),
            (None, "550"),
        ] {
            let [certificate, key] = match files {
                Some(files) => files.each_ref().map(|path| path.display().to_string()),
                None => [String::new(), String::new()],
            };
            let recipient = "b@example.org";
            let (ip, port) = (to.ip().to_string(), to.port().to_string());
            let mut words =
                vec!["swaks", "--server", &ip, "--port", &port, "--tls", "--quit-after", "RCPT"];
            words.extend(["--from", "a@example.net", "--to", recipient, "--tls-sni", HOSTNAME]);
            if files.is_some() {
                words.extend(["--tls-cert", &certificate, "--tls-key", &key]);
            }
            let output = lab.client.output(words);
            let shown = String::from_utf8_lossy(&output.stdout).into_owned();
            let reply = shown.split("RCPT TO:").nth(1).unwrap_or_else(|| panic!("{shown}"));
            let reply = reply.lines().nth(1).unwrap();
            assert!(reply.contains(&format!(" {code} ")), "{certificate}: {shown}");
        }
    }
    assert!(recorder.wait().success(), "{}", recorder.log());
    let (file, capture) = (gateway.file().to_str().unwrap(), capture.to_str().unwrap());
    let words = [GATEPOST, "replay", "--config", file, "--format", "json", capture];
    let replayed = lab.gateway.run(words);
    assert_eq!(replayed.matches("\"rule\":\"partner\"").count(), 4, "{replayed}");
    assert_eq!(replayed.matches("\"rule\":\"all others\"").count(), 4, "{replayed}");
    assert_eq!(replayed.matches("\"verified\":true").count(), 2, "{replayed}");
}
