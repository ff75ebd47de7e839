//! IPv6 works, or a fault on the path makes the sender fall back to IPv4.

use super::super::cases::case;
use super::super::recorder::{Recorder, SMTP, SMTP_AND_DNS};
use crate::harness::tests;
use crate::support::sites::{Sender, dns, lab, mx, receiver};
use crate::support::{Family, Lab};

tests![
    OnRequest:
        plain_ipv6,
        plain_ipv4,
        ipv6_unanswered,
        dns_answers,
        ipv6_refused,
        ipv6_unreachable,
        packet_too_big,
        pmtu_black_hole,
        ptr_refused
];

const BOB: &str = "bob@receiver.example";
const SHORT: usize = 400;
/// More than a segment, within the initial congestion window.
const SEGMENTS: usize = 6_000;

/// A route on the gateway's host to the receiver's IPv6 address, with a smaller MTU than the links.
const NARROW: &str = "route add 2001:db8:2::25/128 dev server mtu lock 1280\n";

fn plain_ipv6() {
    plain("plain-ipv6", Family::Ipv6);
}

fn plain_ipv4() {
    plain("plain-ipv4", Family::Ipv4);
}

fn plain(name: &str, family: Family) {
    let lab = lab();
    let _receiver = receiver(&lab, "");
    let sender = Sender::to(&lab, &[("receiver.example", mx(&lab, family))]);
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    sender.send(&[BOB], SHORT, "sent");
    case(name).write(&recorder.stop());
}

/// A filter on the path silently drops SMTP over IPv6.
fn ipv6_unanswered() {
    let lab = lab();
    drop_ipv6(&lab);
    fall_back(&lab, "ipv6-unanswered", "", SMTP, SHORT);
}

/// The same with the sender's DNS queries.
fn dns_answers() {
    let lab = lab();
    drop_ipv6(&lab);
    fall_back(&lab, "dns", "", SMTP_AND_DNS, SHORT);
}

/// The receiver has an AAAA record and listens on IPv4 only.
fn ipv6_refused() {
    let lab = lab();
    fall_back(&lab, "ipv6-refused", "inet_protocols = ipv4\n", SMTP, SHORT);
}

/// A router on the path has no route to the receiver's IPv6 address.
fn ipv6_unreachable() {
    let lab = lab();
    lab.gateway.configure("route add unreachable 2001:db8:2::25/128\n");
    fall_back(&lab, "ipv6-unreachable", "", SMTP, SHORT);
}

fn packet_too_big() {
    let lab = lab();
    lab.gateway.configure(NARROW);
    fall_back(&lab, "packet-too-big", "", SMTP, SEGMENTS);
}

/// The router's Packet Too Big errors are dropped.
fn pmtu_black_hole() {
    let lab = lab();
    lab.gateway.configure(NARROW);
    nft(&lab, "output", "icmpv6 type packet-too-big drop");
    fall_back(&lab, "pmtu-black-hole", "", SMTP, SEGMENTS);
}

/// Recorded at the receiver, with its DNS queries about the client. The code for a client without a reverse name is 5.7.25
/// (RFC 7372): Postfix's own restriction replies 5.7.1, so an access table gives the code.
fn ptr_refused() {
    let lab = lab();
    let _dns = dns(&lab);
    let _receiver = receiver(
        &lab,
        "disable_dns_lookups = no
smtpd_peername_lookup = yes
smtpd_delay_reject = no
smtpd_client_restrictions = check_reverse_client_hostname_access
  inline:{ { unknown = 550 5.7.25 no reverse name } }
",
    );
    let sender = Sender::by_mx(&lab, "");
    let recorder = Recorder::start(&lab, &lab.server, SMTP_AND_DNS);
    sender.send(&[BOB], SHORT, "sent");
    case("ptr-refused").write(&recorder.stop());
}

/// The sender finds the receiver by MX and delivers a message in the end; recorded at the sender.
fn fall_back(lab: &Lab, name: &str, receiver_cf: &str, filter: &str, size: usize) {
    let _dns = dns(lab);
    let _receiver = receiver(lab, receiver_cf);
    let patience = "smtp_data_xfer_timeout = 5s\nsmtp_data_done_timeout = 5s\n";
    let sender = Sender::by_mx(lab, patience);
    let recorder = Recorder::start(lab, &lab.client, filter);
    sender.send(&[BOB], size, "sent");
    case(name).write(&recorder.stop());
}

fn drop_ipv6(lab: &Lab) {
    nft(lab, "forward", "tcp dport 25 drop");
}

/// Adds an nftables rule for IPv6 on the gateway's host.
fn nft(lab: &Lab, hook: &str, rule: &str) {
    let table = format!(
        "table ip6 path {{ chain path {{ type filter hook {hook} priority 0; {rule}; }}; }}"
    );
    lab.gateway.run(["nft", &table]);
}
