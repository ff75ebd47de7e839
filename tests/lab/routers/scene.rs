//! What each router set-up must get right: the rows of the matrix.

use std::net::SocketAddr;

use super::SetUp;
use super::outside::{self, OutsideServer};
use super::recipe::Recipe;
use super::senders::Senders;
use super::topology::Network;
use crate::support::{Config, DOMAIN, Family, Gateway, Mode, Postfix, Stored, port, until};

/// What is tried in each set-up.
type Row = (&'static str, fn(&mut Scene<'_>));

/// The rows, in the order in which they run in one network.
pub(super) const ROWS: [Row; 7] = [
    ("the first mail", first_mail),
    ("a large mail over a hop of 1280 behind the gateway", large_mail),
    ("a large reply over a hop of 1280 in front of the gateway", large_reply),
    ("outbound mail of the mail server", outbound_mail),
    ("a restart under load", restart_under_load),
    ("the loss of the gateway's table", loss_of_table),
    ("kill -9", kill),
];

/// One set-up in operation.
pub(super) struct Scene<'lab> {
    pub(super) network: &'lab Network,
    pub(super) set_up: &'static SetUp,
    pub(super) postfix: Postfix<'lab>,
    pub(super) gateway: Gateway<'lab>,
    outside: OutsideServer,
}

impl<'lab> Scene<'lab> {
    pub(super) fn open(network: &'lab Network, set_up: &'static SetUp) -> Self {
        let recipe = Recipe::read(set_up.recipe);
        recipe.apply(&network.lab, set_up.rules);
        (set_up.prepare)(network);
        Self::with_interfaces(network, set_up, recipe.interfaces().as_deref())
    }

    /// With a line of `[intercept]` on the interfaces of clients, or the lab's own.
    pub(super) fn with_interfaces(
        network: &'lab Network,
        set_up: &'static SetUp,
        interfaces: Option<&str>,
    ) -> Self {
        let lab = &network.lab;
        let postfix = Postfix::start(lab, &lab.server, "postfix", None, outside::TRANSPORTS);
        let outside = OutsideServer::start(lab);
        let config = match interfaces {
            Some(line) => Config::new(lab, Mode::Tproxy).interfaces(line),
            None => Config::new(lab, Mode::Tproxy),
        };
        let gateway = Gateway::start(lab, &config);
        Self { network, set_up, postfix, gateway, outside }
    }

    /// The clients' destination.
    pub(super) fn entrance(&self, family: Family) -> SocketAddr {
        let ip = if self.set_up.forwards_own_port {
            self.network.router_ip(family)
        } else {
            self.network.lab.server_ip(family)
        };
        SocketAddr::new(ip, port::SMTP)
    }

    /// Sends a message from outside; what is stored must be what was sent.
    #[track_caller]
    pub(super) fn deliver(&self, family: Family, name: &str, message: &[u8]) -> Stored {
        let recipient = format!("{name}-{family}@{DOMAIN}");
        let mut smtp = self.network.lab.client.smtp(self.entrance(family));
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(message).code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        let stored = self.postfix.message_to(&recipient);
        let sent = String::from_utf8(message.to_vec()).unwrap().replace("\r\n", "\n");
        assert!(stored.content == sent.as_bytes(), "another message to {recipient} was stored");
        stored
    }

    /// As [`Scene::deliver`], and the message must come through the gateway, with the client's address.
    #[track_caller]
    pub(super) fn deliver_through_gateway(&self, family: Family, name: &str, message: &[u8]) {
        let stored = self.deliver(family, name, message);
        let client = format!("{}])", self.network.lab.client_ip(family));
        assert!(stored.trace.contains(&client), "not from {client}: {}", stored.trace);
        self.gateway.wait_for_log(&format!("to=<{name}-{family}@{DOMAIN}>"));
    }

    /// Whether the gateway's log has a recipient.
    pub(super) fn passed_gateway(&self, recipient: &str) -> bool {
        self.gateway.log().contains(recipient)
    }
}

/// 400 kB in lines.
pub(super) fn large() -> Vec<u8> {
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    for number in 0..5_000 {
        message.extend_from_slice(format!("{number:078}\r\n").as_bytes());
    }
    message
}

pub(super) fn small() -> Vec<u8> {
    b"Subject: small\r\n\r\nhello\r\n".to_vec()
}

fn first_mail(scene: &mut Scene<'_>) {
    for family in Family::ALL {
        scene.deliver_through_gateway(family, "first", &small());
    }
}

fn large_mail(scene: &mut Scene<'_>) {
    scene.network.with_small_mtu_behind(|| {
        for family in Family::ALL {
            scene.deliver_through_gateway(family, "large", &large());
        }
    });
}

/// Replies to pipelined commands, which fill several segments.
fn large_reply(scene: &mut Scene<'_>) {
    const RECIPIENTS: usize = 400;
    scene.network.with_small_mtu_in_front(|| {
        for family in Family::ALL {
            let mut smtp = scene.network.lab.client.smtp(scene.entrance(family));
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
            let mut commands = "MAIL FROM:<sender@example.net>\r\n".to_owned();
            for number in 0..RECIPIENTS {
                commands += &format!("RCPT TO:<r{number}@{DOMAIN}>\r\n");
            }
            smtp.raw(commands.as_bytes()).unwrap();
            for number in 0..=RECIPIENTS {
                let reply = smtp.reply().unwrap_or_else(|error| panic!("reply {number}: {error}"));
                assert_eq!(reply.code, 250, "{reply:?}");
            }
            smtp.dialogue("C: RSET\n S: 250\n C: QUIT\n S: 221");
        }
    });
}

fn outbound_mail(scene: &mut Scene<'_>) {
    let lab = &scene.network.lab;
    for family in Family::ALL {
        let recipient = format!("outbound@{}", outside::domain(family));
        let mut smtp = lab.server.smtp("127.0.0.1:25".parse().unwrap());
        smtp.begin("sender@example.org", &recipient);
        assert_eq!(smtp.data(&large()).code, 250);
        let expected = if scene.set_up.translates_outbound.contains(&family) {
            scene.network.router_ip(family)
        } else {
            lab.server_ip(family)
        };
        assert_eq!(scene.outside.sender_of_message_to(&recipient), expected.to_string());
        assert!(!scene.passed_gateway(&recipient), "outbound mail was intercepted");
    }
}

/// Every message arrives once: those before, during and after the restart.
fn restart_under_load(scene: &mut Scene<'_>) {
    const SHARE: usize = 40;
    let senders = Senders::new(&scene.network.lab.client, Family::ALL.map(|f| scene.entrance(f)));
    let sent = std::thread::scope(|scope| {
        let senders = senders.start(scope);
        senders.wait_for(SHARE);
        scene.gateway.terminate();
        assert!(scene.gateway.wait().success());
        scene.gateway.start_again();
        senders.wait_for(SHARE);
        senders.stop()
    });
    scene.postfix.wait_until_idle();
    let mut stored = scene.postfix.recipients();
    stored.retain(|recipient| recipient.starts_with("load-"));
    stored.sort_unstable();
    assert!(sent == stored, "lost or stored twice: {:?}", difference(&sent, &stored));
    let last = sent.iter().filter(|recipient| scene.passed_gateway(recipient)).count();
    assert!(last > 0, "nothing came through the gateway after the restart");
}

/// The recipients that are not in both equally often, of two sorted lists.
fn difference(sent: &[String], stored: &[String]) -> Vec<String> {
    let count = |list: &[String], of: &String| list.iter().filter(|other| *other == of).count();
    let mut all: Vec<String> = sent.iter().chain(stored).cloned().collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|recipient| count(sent, recipient) != count(stored, recipient));
    all
}

/// As by `nft flush ruleset`: mail goes to the mail server directly until the gateway has installed its rules again.
fn loss_of_table(scene: &mut Scene<'_>) {
    scene.network.lab.gateway.run(["nft", "delete", "table", "inet", "gatepost"]);
    let mut sent = 0;
    for family in Family::ALL {
        until("mail through the gateway again", || {
            sent += 1;
            scene.deliver(family, &format!("after-loss-{sent}"), &small());
            scene.passed_gateway(&format!("after-loss-{sent}-{family}@{DOMAIN}")).then_some(())
        });
    }
}

/// Mail goes to the mail server directly, path MTU discovery included, until the gateway is back; sessions that run then go on.
fn kill(scene: &mut Scene<'_>) {
    scene.gateway.kill();
    scene.network.with_small_mtu_behind(|| {
        for family in Family::ALL {
            scene.deliver(family, "direct", &large());
        }
    });
    let mut running = Family::ALL.map(|family| {
        let mut smtp = scene.network.lab.client.smtp(scene.entrance(family));
        smtp.begin("sender@example.net", &format!("running-{family}@{DOMAIN}"));
        smtp
    });
    scene.gateway.start_again();
    for (smtp, family) in running.iter_mut().zip(Family::ALL) {
        assert_eq!(smtp.data(&small()).code, 250);
        scene.postfix.message_to(&format!("running-{family}@{DOMAIN}"));
        scene.deliver_through_gateway(family, "again", &small());
    }
}
