//! postscreen(8) behind the gateway: its pregreet test detects the clients that it detects alone.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, port, until};

tests![
    postscreen_detects_early_talkers_behind_the_gateway,
    postscreen_drops_early_talkers_behind_the_gateway,
    a_patient_client_passes_postscreen,
    the_gateways_own_test_works_on_the_teaser,
];

/// `postscreen_greet_wait`: between the teaser and the rest of the greeting.
const GREET_WAIT: Duration = Duration::from_secs(3);

fn postscreen<'lab>(lab: &'lab Lab, action: &str) -> Postfix<'lab> {
    let wait = GREET_WAIT.as_secs();
    let main_cf = format!(
        "postscreen_greet_action = {action}\npostscreen_greet_wait = {wait}s\n\
         postscreen_greet_ttl = 1s\npostscreen_access_list =\n"
    );
    Postfix::start(lab, &lab.server, "postfix", None, &main_cf)
}

/// How a client reaches postscreen: alone, or through a gateway with an identity.
#[derive(Clone, Copy, Debug)]
enum Way {
    Alone,
    Identity(&'static str),
}

impl Way {
    const ALL: [Self; 3] = [Self::Alone, Self::Identity("none"), Self::Identity("proxy-v2")];

    fn gateway<'lab>(self, lab: &'lab Lab, options: &str) -> Option<Gateway<'lab>> {
        let Self::Identity(identity) = self else { return None };
        let to = if identity == "none" { port::POSTSCREEN } else { port::POSTSCREEN_PROXIED };
        let mut config = Config::new(lab, Mode::Proxy).upstream_port(lab, to);
        config = config.set("upstream", &format!("identity = {identity:?}"));
        Some(Gateway::start(lab, &config.set("smtp", options)))
    }

    fn connect(self, lab: &Lab, family: Family) -> Smtp {
        lab.client.smtp(match self {
            Self::Alone => lab.server_socket(family, port::POSTSCREEN),
            Self::Identity(_) => lab.entrance(Mode::Proxy, family),
        })
    }

    /// The client as postscreen knows it.
    fn client(self, lab: &Lab, family: Family) -> IpAddr {
        match self {
            Self::Identity("none") => lab.gateway_ip_at_server(family),
            _ => lab.client_ip(family),
        }
    }
}

/// Reads the teaser; it comes long before the rest.
fn read_teaser(smtp: &mut Smtp) {
    let begin = Instant::now();
    let teaser = smtp.line().unwrap();
    assert!(teaser.starts_with("220-"), "{teaser}");
    assert!(begin.elapsed() < GREET_WAIT, "it came with the rest");
}

fn postscreen_detects_early_talkers_behind_the_gateway() {
    let lab = Lab::new();
    let postfix = postscreen(&lab, "enforce");
    for way in Way::ALL {
        let _gateway = way.gateway(&lab, "");
        for family in Family::ALL {
            for (early, replies) in [
                ("EHLO client.example.net\r\n", "S: 250"),
                // Lines that the gateway answers itself.
                ("FROB\r\n", "S: 50\nC: EHLO client.example.net\nS: 250"),
                (" \r\n", "S: 50\nC: EHLO client.example.net\nS: 250"),
            ] {
                eprintln!("case: {way:?}, {family}, {early:?}");
                let mut smtp = way.connect(&lab, family);
                read_teaser(&mut smtp);
                let client = way.client(&lab, family);
                let count = || {
                    let log = postfix.log();
                    log.lines().filter(|l| is_pregreet(l, client)).count()
                };
                let before = count();
                smtp.raw(early.as_bytes()).unwrap();
                // To such a client postscreen does not send the rest of its greeting.
                smtp.dialogue(&format!(
                    "{replies}
                     C: MAIL FROM:<sender@example.net>
                     S: 250
                     C: RCPT TO:<recipient@example.org>
                     S: 550 5.5.1 Protocol error
                     C: QUIT
                     S: 221"
                ));
                // postlogd(8) writes it later.
                until("one PREGREET line", || (count() == before + 1).then_some(()));
            }
        }
    }
}

fn is_pregreet(line: &str, client: IpAddr) -> bool {
    line.contains("PREGREET ") && line.contains(&format!("[{client}]"))
}

fn postscreen_drops_early_talkers_behind_the_gateway() {
    let lab = Lab::new();
    let _postfix = postscreen(&lab, "drop");
    for way in Way::ALL {
        let _gateway = way.gateway(&lab, "");
        for family in Family::ALL {
            eprintln!("case: {way:?}, {family}");
            let mut smtp = way.connect(&lab, family);
            read_teaser(&mut smtp);
            smtp.raw(b"EHLO client.example.net\r\n").unwrap();
            smtp.expect_last_reply("521 5.5.1 Protocol error");
        }
    }
}

fn a_patient_client_passes_postscreen() {
    let lab = Lab::new();
    let postfix = postscreen(&lab, "enforce");
    for way in Way::ALL {
        let _gateway = way.gateway(&lab, "");
        for family in Family::ALL {
            eprintln!("case: {way:?}, {family}");
            let mut smtp = way.connect(&lab, family);
            read_teaser(&mut smtp);
            let recipient = format!("{family}@example.org");
            smtp.begin("sender@example.net", &recipient);
            assert_eq!(smtp.data(b"Subject: patient\r\n\r\nhello\r\n").code, 250);
            smtp.dialogue("C: QUIT\n S: 221");
            postfix.take_message_to(&recipient);
        }
    }
    assert!(!postfix.log().contains("PREGREET"));
}

/// `pregreet = "reject"` takes the place of postscreen's test.
fn the_gateways_own_test_works_on_the_teaser() {
    let lab = Lab::new();
    let postfix = postscreen(&lab, "enforce");
    let way = Way::Identity("proxy-v2");
    for refuse_at in ["connect", "rcpt"] {
        let options = format!("pregreet = \"reject\"\nrefuse_at = {refuse_at:?}");
        let _gateway = way.gateway(&lab, &options);
        for family in Family::ALL {
            eprintln!("case: {family}, {refuse_at}");
            let mut smtp = way.connect(&lab, family);
            read_teaser(&mut smtp);
            smtp.raw(b"EHLO client.example.net\r\n").unwrap();
            if refuse_at == "connect" {
                smtp.dialogue("S: 554 5.5.1\n S: 503 5.5.1\n C: QUIT");
                smtp.expect_last_reply("221 2.0.0 ");
            } else {
                smtp.dialogue(
                    "S: 220
                     S: 250
                     C: MAIL FROM:<sender@example.net>
                     S: 250
                     C: RCPT TO:<recipient@example.org>
                     S: 550 5.5.1 client sent data before the greeting
                     C: QUIT
                     S: 221",
                );
            }
        }
    }
    assert!(!postfix.log().contains("PREGREET"), "{}", postfix.log());
}
