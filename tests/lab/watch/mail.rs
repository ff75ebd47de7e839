//! The test mail: Postfix at `sender.example` sends to Postfix at `receiver.example`, first over a good path, then over IPv6
//! paths with one fault each.

use std::net::IpAddr;

use crate::support::sites::{Sender, dns, message, receiver_with};
use crate::support::{Authority, Family, Host, Lab, Postfix, Process, port};

/// A few segments, within the initial congestion window.
const SHORT: usize = 6_000;
const LARGE: usize = 1_500_000;

/// A route on the gateway's host to the receiver's IPv6 address, with a smaller MTU than the links.
const NARROW: &str = "2001:db8:2::25/128 dev server mtu lock 1280";

/// The number of sessions of each family in all of the mail, failed ones included.
pub(crate) const SESSIONS: [(Family, usize); 2] = [(Family::Ipv6, 10), (Family::Ipv4, 8)];

/// The two sites, in a lab whose DNS has their records.
pub(crate) struct TestMail<'lab> {
    lab: &'lab Lab,
    sender: Sender<'lab>,
    receiver: Postfix<'lab>,
    _dns: Process,
}

impl<'lab> TestMail<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        let dns = dns(lab);
        let authority = Authority::new(lab.folder("ca"), "mx.receiver.example");
        let receiver = receiver_with(
            lab,
            Some(&authority),
            "disable_dns_lookups = no
smtpd_peername_lookup = yes
smtpd_timeout = 6s
unknown_client_reject_code = 550
smtpd_recipient_restrictions = check_recipient_access inline:{
  { nobody6@receiver.example = 550 5.1.1 no such user },
  { nobody4@receiver.example = 550 5.1.1 no such user },
  { strict@receiver.example = reject_unknown_reverse_client_hostname } }
",
        );
        // A destination with a port and one without are different keys of Postfix's table, but the same next hop.
        let mut routes = String::new();
        for (local_parts, tail) in
            [(&["plain", "large", "nobody", "second"][..], ":25"), (&["tls"], "")]
        {
            for (local_part, family) in local_parts.iter().flat_map(|l| Family::ALL.map(|f| (l, f)))
            {
                let to = lab.server_ip(family);
                let digit = digit(family);
                routes.push_str(&format!(
                    ", {{ {local_part}{digit}@receiver.example = smtp:[{to}]{tail} }}"
                ));
            }
        }
        let policies = Family::ALL.map(|f| format!("{{ [{}] = encrypt }}", lab.server_ip(f)));
        let sender = Sender::start(
            lab,
            &routes,
            &format!(
                "disable_dns_lookups = no
smtp_host_lookup = dns
smtp_tls_policy_maps = inline:{{ {} }}
smtp_data_xfer_timeout = 5s
smtp_data_done_timeout = 5s
",
                policies.join(", ")
            ),
        );
        Self { lab, sender, receiver, _dns: dns }
    }

    /// Sends all of the mail, one message after the other; see [`SESSIONS`].
    pub(crate) fn send_all(&self) {
        for family in Family::ALL {
            self.clean(family);
        }
        path(&self.lab.gateway, "forward", "tcp dport 25 drop");
        self.sender.send(&["dropped@receiver.example"], SHORT, "sent");
        clear(&self.lab.gateway);
        path(&self.lab.gateway, "forward", "tcp dport 25 reject with tcp reset");
        self.sender.send(&["rejected@receiver.example"], SHORT, "sent");
        clear(&self.lab.gateway);

        self.lab.gateway.configure(&format!("route add {NARROW}\n"));
        self.sender.send(&["narrow@receiver.example"], SHORT, "sent");
        // Flushes the path MTU that the sender's host cached; the following rule drops further ICMPv6 errors.
        self.lab.client.run(["ip", "-6", "route", "flush", "cache"]);
        path(&self.lab.gateway, "output", "icmpv6 type packet-too-big drop");
        self.sender.send(&["hole@receiver.example"], SHORT, "sent");

        // The sender has no reverse name over IPv6. It comes last: mail over IPv4 after it would look like its fallback.
        self.sender.send(&["strict@receiver.example"], SHORT, "bounced");
        // The sender has given up long before; the connection ends with the receiver's timeout.
        self.receiver
            .wait_for_log("the end of the black hole", |line| line.contains("timeout after DATA"));
    }

    /// Mail over a good path, and a rejected recipient.
    fn clean(&self, family: Family) {
        let digit = digit(family);
        let to = |local_part: &str| format!("{local_part}{digit}@receiver.example");
        self.sender.send(&[&to("plain")], SHORT, "sent");
        self.sender.send(&[&to("large")], LARGE, "sent");
        let [nobody, second] = [to("nobody"), to("second")];
        self.sender.submit(&[&nobody, &second], SHORT);
        self.sender.wait_for(&nobody, "bounced");
        self.sender.wait_for(&second, "sent");
        self.sender.send(&[&to("tls")], LARGE, "sent");
        self.chunks(family);
    }

    /// BDAT, which Postfix only receives: two chunks, the second with commands right behind it.
    fn chunks(&self, family: Family) {
        let mut smtp = self.lab.client.smtp(self.lab.server_socket(family, port::SMTP));
        smtp.begin("alice@sender.example", "chunks@receiver.example");
        let message = message(100_000);
        let (first, last) = message.split_at(70_000);
        smtp.raw(format!("BDAT {}\r\n", first.len()).as_bytes()).unwrap();
        smtp.raw(first).unwrap();
        smtp.dialogue("S: 250");
        let mut rest = format!("BDAT {} LAST\r\n", last.len()).into_bytes();
        rest.extend_from_slice(last);
        rest.extend_from_slice(b"NOOP\r\nQUIT\r\n");
        smtp.raw(&rest).unwrap();
        smtp.dialogue("S: 250\n S: 250\n S: 221");
    }

    /// Drops all further packets of both ends, retransmissions too, so that watchers that stop one after the other see the
    /// same.
    pub(crate) fn stall(&self) {
        for (host, direction) in [(&self.lab.client, "dport"), (&self.lab.server, "sport")] {
            host.run(["nft", &format!("table inet silence {{ chain silence {{ type filter hook output priority 0; tcp {direction} 25 drop; }}; }}")]);
        }
    }
}

const fn digit(family: Family) -> u8 {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    }
}

/// A rule about IPv6 on a host.
fn path(host: &Host, hook: &str, rule: &str) {
    let chain = format!("type filter hook {hook} priority 0; {rule};");
    host.run(["nft", &format!("table ip6 path {{ chain path {{ {chain} }}; }}")]);
}

fn clear(host: &Host) {
    host.run(["nft", "delete table ip6 path"]);
}

/// `--local` with the addresses of one end.
pub(crate) fn local(of: impl Fn(Family) -> IpAddr) -> Vec<String> {
    let option = |family| ["--local".to_owned(), of(family).to_string()];
    Family::ALL.into_iter().flat_map(option).collect()
}
