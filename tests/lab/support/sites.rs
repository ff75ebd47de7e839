//! The two sites of the captures: Postfix at `sender.example` on the lab's client, Postfix at `receiver.example` on its
//! server, and Knot DNS on the gateway's host, which serves the zones of both.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use super::{Authority, Family, Host, Lab, Postfix, Process, port, until};

/// The DNS server, on the gateway's host.
pub(crate) const NAMESERVER: &str = "2001:db8:53::53";

/// All zones. The sender has a reverse name over IPv4 only.
pub(crate) const ZONES: [(&str, &str); 4] = [
    ("receiver.example", "@ MX 10 mx\nmx A 198.51.100.25\nmx AAAA 2001:db8:2::25\n"),
    ("sender.example", "@ MX 10 mta\nmta A 192.0.2.10\nmta AAAA 2001:db8:1::10\n"),
    ("2.0.192.in-addr.arpa", "10 PTR mta.sender.example.\n"),
    ("8.b.d.0.1.0.0.2.ip6.arpa", ""),
];

/// The lab without offloading: packets are recorded as on a wire, segmented and with their checksums.
pub(crate) fn lab() -> Lab {
    let lab = Lab::new();
    for (host, link) in [
        (&lab.client, "gateway"),
        (&lab.gateway, "client"),
        (&lab.gateway, "server"),
        (&lab.server, "gateway"),
    ] {
        host.run(["ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off"]);
    }
    lab
}

/// Starts the DNS server; client and server query it from now on.
pub(crate) fn dns(lab: &Lab) -> Process {
    dns_with(lab, &ZONES)
}

/// The same with other zones and their records; the name server is that of `sender.example`.
pub(crate) fn dns_with(lab: &Lab, zones: &[(&str, &str)]) -> Process {
    let nameserver: IpAddr = NAMESERVER.parse().unwrap();
    lab.gateway.configure(&format!("addr add {nameserver}/128 dev lo nodad\n"));
    let folder = lab.folder("dns");
    let path = folder.display();
    let mut configuration = format!(
        "server:\n  listen: {nameserver}@53\n  rundir: {path}\n\
         database:\n  storage: {path}\n\
         log:\n- target: stderr\n  any: info\n\
         zone:\n"
    );
    for (zone, records) in zones {
        let head = "$TTL 300\n@ SOA ns.sender.example. hostmaster.sender.example. 1 3600 600 86400 300\n\
                    @ NS ns.sender.example.\n";
        let own = if *zone == "sender.example" { "ns AAAA 2001:db8:53::53\n" } else { "" };
        fs::write(folder.join(zone), format!("$ORIGIN {zone}.\n{head}{own}{records}")).unwrap();
        configuration.push_str(&format!("- domain: {zone}\n  file: {path}/{zone}\n"));
    }
    let file = folder.join("knot.conf");
    fs::write(&file, configuration).unwrap();
    let knot = lab.gateway.spawn(["knotd", "-c", file.to_str().unwrap()]);
    until("the DNS server (Debian: knot)", || knot.log().contains("server started").then_some(()));
    lab.client.resolve_at(nameserver);
    lab.server.resolve_at(nameserver);
    knot
}

/// Postfix at `receiver.example`, with more lines of configuration.
pub(crate) fn receiver<'lab>(lab: &'lab Lab, main_cf: &str) -> Postfix<'lab> {
    receiver_with(lab, None, main_cf)
}

/// The same with a certificate.
pub(crate) fn receiver_with<'lab>(
    lab: &'lab Lab,
    authority: Option<&Authority>,
    main_cf: &str,
) -> Postfix<'lab> {
    let own = "myhostname = mx.receiver.example\nvirtual_mailbox_domains = receiver.example\n";
    Postfix::start(lab, &lab.server, "receiver", authority, &format!("{own}{main_cf}"))
}

/// Postfix at `sender.example`.
pub(crate) struct Sender<'lab> {
    host: &'lab Host,
    postfix: Postfix<'lab>,
}

impl<'lab> Sender<'lab> {
    /// It finds `receiver.example` by MX, and prefers IPv6.
    pub(crate) fn by_mx(lab: &'lab Lab, main_cf: &str) -> Self {
        let dns = "disable_dns_lookups = no\nsmtp_host_lookup = dns\n";
        Self::start(lab, "", &format!("{dns}{main_cf}"))
    }

    /// With a next hop for each recipient.
    pub(crate) fn to(lab: &'lab Lab, routes: &[(&str, SocketAddr)]) -> Self {
        let routes: String = routes
            .iter()
            .map(|(recipient, to)| {
                format!(", {{ {recipient} = smtp:[{}]:{} }}", to.ip(), to.port())
            })
            .collect();
        Self::start(lab, &routes, "")
    }

    /// It finds the recipients' hosts by `routes`, further entries of its transport table, each after a comma.
    pub(crate) fn start(lab: &'lab Lab, routes: &str, main_cf: &str) -> Self {
        let main_cf = format!(
            "myhostname = mta.sender.example\n\
             virtual_mailbox_domains =\n\
             smtp_address_preference = ipv6\n\
             smtp_connect_timeout = 3s\n\
             transport_maps = inline:{{ {{ sender.example = discard: }}{routes} }}\n\
             {main_cf}"
        );
        let postfix = Postfix::start(lab, &lab.client, "sender", None, &main_cf);
        Self { host: &lab.client, postfix }
    }

    /// Submits a message of about that many bytes, and waits for the delivery status of the last recipient in the log,
    /// such as `sent`.
    #[track_caller]
    pub(crate) fn send(&self, recipients: &[&str], size: usize, status: &str) {
        let last = self.submit(recipients, size);
        self.wait_for(&last, status);
    }

    /// Submits a message for the recipients; returns the last of them.
    #[track_caller]
    pub(crate) fn submit(&self, recipients: &[&str], size: usize) -> String {
        let mut smtp = self.host.smtp(SocketAddr::new([127, 0, 0, 1].into(), port::DIRECT));
        smtp.dialogue(
            "S: 220
             C: EHLO desk.sender.example
             S: 250
             C: MAIL FROM:<alice@sender.example>
             S: 250",
        );
        for recipient in recipients {
            smtp.dialogue(&format!("C: RCPT TO:<{recipient}>\n S: 250"));
        }
        assert_eq!(smtp.data(&message(size)).code, 250);
        smtp.dialogue("C: QUIT\n S: 221");
        (*recipients.last().expect("a recipient")).to_owned()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, recipient: &str, status: &str) {
        let (to, status) = (format!("to=<{recipient}>"), format!("status={status} "));
        self.postfix.wait_for_log(&format!("{to} {status}"), |line| {
            line.contains(&to) && line.contains(&status)
        });
    }
}

/// A message of about that many bytes, with its header.
pub(crate) fn message(size: usize) -> Vec<u8> {
    let line = "It is no use going back to yesterday: IPv6 was a different protocol then.\r\n";
    let head = "From: Alice <alice@sender.example>\r\n\
                To: Bob <bob@receiver.example>\r\n\
                Subject: Yesterday\r\n\
                Date: Fri, 02 Jan 2026 03:04:05 +0000\r\n\
                Message-ID: <1@desk.sender.example>\r\n\r\n";
    let lines = size.saturating_sub(head.len()).div_ceil(line.len()).max(1);
    format!("{head}{}", line.repeat(lines)).into_bytes()
}

/// The receiver's port 25.
pub(crate) fn mx(lab: &Lab, family: Family) -> SocketAddr {
    lab.server_socket(family, port::SMTP)
}
