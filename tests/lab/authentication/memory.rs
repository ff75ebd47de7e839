//! The gateway's memory while signed messages of 5 MB and of 50 MB pass, each held at its end until the signature is verified.

use super::{Site, TO, Transport};
use crate::support::world::{KNOT, sender_ip};
use crate::support::{Entrance, Family, Gateway, Lab, Mode, port};

/// KiB by which the peak of a message of 50 MB may exceed that of one of 5 MB.
const SLACK_KIB: u64 = 1024;
const SMALL: usize = 5_000_000;
const LARGE: usize = 50_000_000;
const CHUNK: usize = 1 << 20;

const RULE: &str =
    "[[policy]]\nname = \"signed\"\nrequire = [\"authenticated\"]\notherwise = \"reject\"\n";

pub(super) fn memory_is_flat_while_50_mb_are_verified() {
    for transport in [Transport::Plaintext, Transport::OwnTls] {
        let lab = Lab::new();
        let entrance = Entrance::new(&lab, Mode::Proxy, transport);
        let site = Site::new(&lab, &entrance);
        let config = entrance
            .config()
            .upstream_port(&lab, port::SMTP)
            .set("lookup", &format!("dns = [\"{KNOT}\"]"))
            .policies(RULE);
        let gateway = Gateway::start(&lab, &config);
        let [small, large] = [SMALL, LARGE].map(|size| signed(&site, size));
        let altered = [&large[..], b"added on the way\r\n"].concat();
        let peak = |message: &[u8], chunked, reply| {
            let mut smtp = entrance.connect_from(sender_ip("good", Family::Ipv6), Family::Ipv6);
            smtp.begin("alice@spf-none.example", TO);
            gateway.peak_kib_during(|| {
                let answer = if chunked { smtp.bdat(message, CHUNK) } else { smtp.data(message) };
                assert_eq!(answer.code, reply, "{answer:?}");
            })
        };
        for chunked in [false, true] {
            // Buffers and caches come with the first one.
            peak(&small, chunked, 250);
            let least = peak(&small, chunked, 250);
            for (message, reply) in [(&large, 250), (&altered, 550)] {
                let most = peak(message, chunked, reply);
                eprintln!(
                    "{transport:?}, {}: peak {least} KiB at 5 MB, {most} KiB at 50 MB ({reply})",
                    if chunked { "BDAT" } else { "DATA" }
                );
                assert!(most <= least + SLACK_KIB, "{least} KiB at 5 MB, {most} KiB at 50 MB");
            }
        }
    }
}

fn signed(site: &Site<'_>, size: usize) -> Vec<u8> {
    let line = b"0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
    let mut message = b"From: Alice <alice@author.example>\r\nSubject: large\r\n\r\n".to_vec();
    while message.len() < size {
        message.extend_from_slice(line);
    }
    site.signer.sign("signer.example", "mail", &message)
}
