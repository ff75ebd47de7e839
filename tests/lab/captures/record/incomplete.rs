//! Recordings without all packets of their sessions.

use std::path::Path;

use super::super::cases::{case, frames};
use super::super::recorder::{Recorder, SMTP, without_packets};
use crate::harness::tests;
use crate::support::Family;
use crate::support::sites::{Sender, lab, mx, receiver};

tests![
    OnRequest:
        holes,
        one_direction
];

/// Without two segments of the first message's content, and without the second session's replies to MAIL, RCPT and DATA.
fn holes() {
    let lab = lab();
    let _receiver = receiver(&lab, "");
    let sender = Sender::to(&lab, &[("receiver.example", mx(&lab, Family::Ipv6))]);
    let recorder = Recorder::start(&lab, &lab.client, SMTP);
    sender.send(&["bob@receiver.example"], 8_000, "sent");
    sender.send(&["carol@receiver.example"], 400, "sent");
    let whole = recorder.stop();

    let content = frames(&whole, "tcp.stream == 0 && tcp.dstport == 25 && tcp.len > 1000");
    let replies = "tcp.stream == 1 && tcp.srcport == 25 && smtp.response.code";
    let before_354 = frames(&whole, &format!("{replies} in {{ 250, 354 }}"));
    // The first of these 250 replies is to EHLO, the last one to the message.
    let [_ehlo, mail_to_data @ .., _accepted] = before_354.as_slice() else {
        panic!("too few replies: {before_354:?}")
    };
    let taken: Vec<String> = [&content[1..3], mail_to_data].concat();
    case("holes").write(&without_packets(Path::new(&whole), &taken));
}

/// As with asymmetric routes: only the client's direction over IPv6, only the server's over IPv4.
fn one_direction() {
    let lab = lab();
    let _receiver = receiver(&lab, "");
    let [bob, carol] = ["bob@receiver.example", "carol@receiver.example"];
    let routes = [(bob, mx(&lab, Family::Ipv6)), (carol, mx(&lab, Family::Ipv4))];
    let sender = Sender::to(&lab, &routes);
    let filter = format!(
        "tcp port 25 and (src host {} or src host {})",
        lab.client_ip(Family::Ipv6),
        lab.server_ip(Family::Ipv4)
    );
    let recorder = Recorder::start(&lab, &lab.client, &filter);
    sender.send(&[bob], 400, "sent");
    sender.send(&[carol], 400, "sent");
    case("one-direction").write(&recorder.stop());
}
