//! Messages of up to 50 MB arrive unchanged, byte for byte, with DATA and with BDAT, pipelined and not.
//!
//! Each message goes to the same Postfix twice, past the gateway and through it; the stored messages must be equal but for
//! Postfix's trace fields.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::tests;
use crate::support::{Entrance, Family, Gateway, Lab, Mode, Postfix, Smtp, Transport, dot_stuffed};

tests![
    small_messages_arrive_byte_for_byte_proxy,
    small_messages_arrive_byte_for_byte_tproxy,
    large_messages_arrive_byte_for_byte_proxy,
    large_messages_arrive_byte_for_byte_tproxy,
    small_messages_inside_tls_arrive_byte_for_byte_proxy,
    small_messages_inside_tls_arrive_byte_for_byte_tproxy,
    large_messages_inside_tls_arrive_byte_for_byte_proxy,
    large_messages_inside_tls_arrive_byte_for_byte_tproxy,
];

const MB: usize = 1_000_000;

/// How the client sends a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transfer {
    /// Waits for every reply.
    Data,
    /// MAIL, RCPT and DATA in one segment (RFC 2920).
    DataPipelined,
    /// Each chunk after the reply to the previous one.
    Bdat,
    /// MAIL, RCPT, every chunk and QUIT without waiting for a reply (RFC 3030).
    BdatPipelined,
    /// As `BdatPipelined`, and the last chunk is empty.
    BdatEmptyLast,
}

impl Transfer {
    const ALL: [Self; 5] =
        [Self::Data, Self::DataPipelined, Self::Bdat, Self::BdatPipelined, Self::BdatEmptyLast];
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn small_messages_arrive_byte_for_byte_proxy() {
    small_messages(Mode::Proxy, Transport::Plaintext);
}

fn small_messages_arrive_byte_for_byte_tproxy() {
    small_messages(Mode::Tproxy, Transport::Plaintext);
}

fn large_messages_arrive_byte_for_byte_proxy() {
    large_messages(Mode::Proxy, Transport::Plaintext);
}

fn large_messages_arrive_byte_for_byte_tproxy() {
    large_messages(Mode::Tproxy, Transport::Plaintext);
}

fn small_messages_inside_tls_arrive_byte_for_byte_proxy() {
    small_messages(Mode::Proxy, Transport::OwnTls);
}

fn small_messages_inside_tls_arrive_byte_for_byte_tproxy() {
    small_messages(Mode::Tproxy, Transport::OwnTls);
}

fn large_messages_inside_tls_arrive_byte_for_byte_proxy() {
    large_messages(Mode::Proxy, Transport::OwnTls);
}

fn large_messages_inside_tls_arrive_byte_for_byte_tproxy() {
    large_messages(Mode::Tproxy, Transport::OwnTls);
}

/// What a case needs.
struct Site<'lab> {
    lab: &'lab Lab,
    postfix: Postfix<'lab>,
    entrance: Entrance<'lab>,
    _gateway: Gateway<'lab>,
}

impl<'lab> Site<'lab> {
    fn new(lab: &'lab Lab, mode: Mode, transport: Transport) -> Self {
        let postfix = Postfix::receiver(lab);
        let entrance = Entrance::new(lab, mode, transport);
        let _gateway = Gateway::start(lab, &entrance.config());
        Self { lab, postfix, entrance, _gateway }
    }
}

fn small_messages(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let site = Site::new(&lab, mode, transport);
    for family in Family::ALL {
        for transfer in Transfer::ALL {
            for (name, message) in small() {
                let case = format!("{name}, {family}, {transfer}");
                arrives_the_same(&case, &site, family, transfer, &message);
            }
        }
    }
}

fn large_messages(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let site = Site::new(&lab, mode, transport);
    let cases = [
        (Family::Ipv6, Transfer::Data, MB),
        (Family::Ipv4, Transfer::Data, MB),
        (Family::Ipv6, Transfer::BdatPipelined, MB),
        (Family::Ipv4, Transfer::BdatPipelined, MB),
        (Family::Ipv6, Transfer::DataPipelined, 50 * MB),
        (Family::Ipv4, Transfer::Bdat, 50 * MB),
    ];
    for (family, transfer, size) in cases {
        let case = format!("{} MB, {family}, {transfer}", size / MB);
        let message = of_size(size);
        arrives_the_same(&case, &site, family, transfer, &message);
    }
}

fn arrives_the_same(
    case: &str,
    site: &Site<'_>,
    family: Family,
    transfer: Transfer,
    message: &[u8],
) {
    eprintln!("case: {case}");
    let Site { lab, postfix, entrance, .. } = site;
    let directly = deliver(postfix, lab.client.smtp(lab.direct(family)), transfer, message);
    let through = deliver(postfix, entrance.connect(family), transfer, message);
    if directly == through {
        return;
    }
    let same = directly.iter().zip(&through).take_while(|(a, b)| a == b).count();
    let near = |stored: &[u8]| {
        let end = stored.len().min(same + 60);
        stored[same.saturating_sub(60)..end].escape_ascii().to_string()
    };
    panic!(
        "{case}: {} bytes directly, {} through the gateway, different from byte {same} on:\n{}\n{}",
        directly.len(),
        through.len(),
        near(&directly),
        near(&through),
    );
}

/// Sends the message to a new recipient and returns the stored message.
fn deliver(postfix: &Postfix<'_>, smtp: Smtp, transfer: Transfer, message: &[u8]) -> Vec<u8> {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);

    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let recipient = format!("recipient-{number}@example.org");
    send(smtp, transfer, &recipient, message);
    postfix.take_message_to(&recipient).content
}

fn send(mut smtp: Smtp, transfer: Transfer, recipient: &str, message: &[u8]) {
    let sender = "sender@example.net";
    let envelope = format!("MAIL FROM:<{sender}> BODY=8BITMIME\r\nRCPT TO:<{recipient}>\r\n");
    match transfer {
        Transfer::Data => {
            smtp.begin(sender, recipient);
            assert_eq!(smtp.data(message).code, 250);
            smtp.dialogue("C: QUIT\n S: 221");
        }
        Transfer::DataPipelined => {
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
            smtp.raw(format!("{envelope}DATA\r\n").as_bytes()).unwrap();
            smtp.dialogue("S: 250\n S: 250\n S: 354");
            let mut end = dot_stuffed(message);
            end.extend_from_slice(b"QUIT\r\n");
            smtp.raw(&end).unwrap();
            smtp.dialogue("S: 250\n S: 221");
        }
        Transfer::Bdat => {
            smtp.begin(sender, recipient);
            for chunk in chunks(message, false) {
                smtp.raw(&chunk).unwrap();
                smtp.dialogue("S: 250");
            }
            smtp.dialogue("C: QUIT\n S: 221");
        }
        Transfer::BdatPipelined | Transfer::BdatEmptyLast => {
            smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
            let chunks = chunks(message, transfer == Transfer::BdatEmptyLast);
            let mut everything = envelope.into_bytes();
            everything.extend(chunks.concat());
            everything.extend_from_slice(b"QUIT\r\n");
            smtp.raw(&everything).unwrap();
            for _ in 0..chunks.len() + 2 {
                smtp.dialogue("S: 250");
            }
            smtp.dialogue("S: 221");
        }
    }
    assert_eq!(smtp.rest(), b"", "after QUIT");
}

/// The message as BDAT commands, in chunks that end anywhere, also within lines and CRLFs.
fn chunks(message: &[u8], empty_last: bool) -> Vec<Vec<u8>> {
    let size = (message.len() / 7).max(3);
    let mut pieces: Vec<&[u8]> = message.chunks(size).collect();
    if empty_last || pieces.is_empty() {
        pieces.push(b"");
    }
    let last = pieces.len() - 1;
    let command = |(number, piece): (usize, &&[u8])| {
        let word = if number == last { " LAST" } else { "" };
        let mut command = format!("BDAT {}{word}\r\n", piece.len()).into_bytes();
        command.extend_from_slice(piece);
        command
    };
    pieces.iter().enumerate().map(command).collect()
}

/// Messages that are hard to relay. All their lines end with CRLF; `smuggling` tests bare CR and LF.
fn small() -> Vec<(&'static str, Vec<u8>)> {
    let header = "From: sender@example.net\r\nSubject: a test\r\n";
    let with_body = |body: &str| format!("{header}\r\n{body}").into_bytes();
    let eight_bit: Vec<u8> = (1..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    vec![
        ("empty", Vec::new()),
        ("one empty line", b"\r\n".to_vec()),
        ("only empty lines", b"\r\n\r\n\r\n\r\n".to_vec()),
        ("a header and no body", header.as_bytes().to_vec()),
        ("a body and no header", b"no colon in this line\r\nnor in this one\r\n".to_vec()),
        ("a short body", with_body("hello\r\n")),
        ("no newline at the end", with_body("hello")),
        ("one dot", b".\r\n".to_vec()),
        ("only dots", b".\r\n..\r\n...\r\n....\r\n.....\r\n".to_vec()),
        ("dots at line starts", with_body(".\r\n.a\r\n..\r\n..b\r\n...c\r\n. \r\n.")),
        ("dots within lines", with_body("a.\r\na.b\r\n .\r\n\t.\r\n \r\n")),
        (
            "commands in the body",
            with_body("QUIT\r\nRSET\r\nMAIL FROM:<x@y>\r\nDATA\r\nBDAT 5\r\n"),
        ),
        ("8-bit bytes", [with_body(""), eight_bit.clone(), b"\r\n".to_vec()].concat()),
        ("8-bit header", [b"Subject: ".to_vec(), eight_bit, b"\r\n\r\nx\r\n".to_vec()].concat()),
        ("NUL bytes", with_body("a\0b\r\n\0\r\n\0\0\r\n")),
        ("lines of 998 bytes", with_body(&format!("{}\r\n", "x".repeat(998)).repeat(3))),
        ("a line of 100 kB", with_body(&format!("{}\r\n.\r\n", "x".repeat(100_000)))),
        ("a long line of dots", with_body(&format!("{}\r\n", ".".repeat(5_000)))),
        ("a long header", format!("Subject: {}\r\n\r\nx\r\n", "y ".repeat(9_000)).into_bytes()),
    ]
}

/// Lines of every length from 0 to 200 bytes, many with leading dots, up to `size` bytes.
fn of_size(size: usize) -> Vec<u8> {
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    let mut length = 0;
    while message.len() < size {
        length = (length + 37) % 201;
        let line = message.len();
        message.extend(std::iter::repeat_n(b'.', length % 4).take(length));
        message.extend((message.len() - line..length).map(|at| b'!' + ((line + at) % 90) as u8));
        message.extend_from_slice(b"\r\n");
    }
    message
}
