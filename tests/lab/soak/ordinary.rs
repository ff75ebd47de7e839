//! Ordinary mail: a Postfix on the client's host delivers through the gateway, over both families, with TLS and without.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Authority, DOMAIN, Family, Lab, Mode, Postfix, port};

/// The gateway's port for mail without TLS.
pub(super) const PLAIN: u16 = 2525;
/// Time between two rounds of submissions.
const PACE: Duration = Duration::from_secs(1);
/// Time for the last messages, which the sender may have deferred.
const DELIVERY: Duration = Duration::from_secs(300);

/// The ways of a message: TLS or not, and the family.
const WAYS: [(&str, Family); 4] = [
    ("tls", Family::Ipv6),
    ("tls", Family::Ipv4),
    ("plain", Family::Ipv6),
    ("plain", Family::Ipv4),
];

pub(super) struct OrdinaryMail<'lab> {
    lab: &'lab Lab,
    sender: Postfix<'lab>,
    receiver: Postfix<'lab>,
}

impl<'lab> OrdinaryMail<'lab> {
    pub(super) fn start(lab: &'lab Lab, authority: &Authority) -> Self {
        let receiver = Postfix::start(lab, &lab.server, "receiver", Some(authority), "");
        let routes = lab.path("routes");
        let route = |(way, family): (&str, Family)| {
            format!("/^{way}-{family}-/ smtp:[{}]:{}\n", lab.gateway_ip(family), port_of(lab, way))
        };
        fs::write(&routes, WAYS.map(route).concat()).unwrap();
        let policy = |(way, family): (&str, Family)| {
            let level = if way == "tls" { "encrypt" } else { "none" };
            format!("{{ [{}]:{} = {level} }}", lab.gateway_ip(family), port_of(lab, way))
        };
        let main_cf = format!(
            "myhostname = sender.example.net
             virtual_mailbox_domains =
             transport_maps = regexp:{}
             smtp_tls_security_level = may
             smtp_tls_policy_maps = inline:{{ {} }}
             queue_run_delay = 5s
             maximal_backoff_time = 10s",
            routes.display(),
            WAYS.map(policy).join(", "),
        )
        .replace("\n             ", "\n");
        let sender = Postfix::start(lab, &lab.client, "sender", None, &main_cf);
        Self { lab, sender, receiver }
    }

    /// Submits one message for each way; they are numbered from `first`. Returns their number.
    pub(super) fn submit_round(&self, first: usize) -> usize {
        let next = Instant::now() + PACE;
        let mut smtp = self.lab.client.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
        smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
        for (offset, (way, family)) in WAYS.into_iter().enumerate() {
            let number = first + offset;
            smtp.dialogue(&format!(
                "C: MAIL FROM:<sender@example.net>
                 S: 250
                 C: RCPT TO:<{way}-{family}-{number}@{DOMAIN}>
                 S: 250"
            ));
            let size = if number.is_multiple_of(50) { 20_000 } else { 40 };
            let message = format!("Subject: {number}\r\n\r\n{}", ".a line\r\n..\r\n".repeat(size));
            assert_eq!(smtp.data(message.as_bytes()).code, 250);
        }
        smtp.dialogue("C: QUIT\n S: 221");
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        WAYS.len()
    }

    /// Waits until `count` messages were delivered.
    #[track_caller]
    pub(super) fn assert_each_arrived_once(&self, count: usize) {
        let end = Instant::now() + DELIVERY;
        let arrived = loop {
            let arrived = self.arrived();
            if arrived.len() >= count || Instant::now() > end {
                break arrived;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        let lost: Vec<usize> = (0..count).filter(|number| !arrived.contains_key(number)).collect();
        assert!(lost.is_empty(), "lost: {lost:?}; the sender's log:\n{}", self.sender.log());
        let twice: Vec<_> = arrived.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "more than once: {twice:?}");
        let recipients = self.receiver.recipients();
        let smuggled = recipients.iter().filter(|to| to.starts_with("smuggled"));
        assert_eq!(smuggled.count(), 0, "smuggled messages arrived");
    }

    /// How often each number arrived.
    fn arrived(&self) -> BTreeMap<usize, usize> {
        let mut arrived = BTreeMap::new();
        for recipient in self.receiver.recipients() {
            let local_part = recipient.split('@').next().unwrap_or_default();
            if let [_, _, number] = local_part.split('-').collect::<Vec<_>>().as_slice()
                && let Ok(number) = number.parse()
            {
                *arrived.entry(number).or_default() += 1;
            }
        }
        arrived
    }
}

fn port_of(lab: &Lab, way: &str) -> u16 {
    if way == "tls" { lab.entrance(Mode::Proxy, Family::Ipv6).port() } else { PLAIN }
}
