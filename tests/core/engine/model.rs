//! Random clients and a random server: invariants that hold for every dialogue.

use proptest::prelude::*;

use gatepost::engine::{Event, Profile, Timeouts};

use crate::engine::driver::Driver;

/// A command of the client. After DATA the client sends nothing until it has the reply.
#[derive(Clone, Copy, Debug)]
enum ClientCommand {
    Noop,
    Mail,
    Rcpt,
    Data,
    Bdat { size: u8, last: bool },
    Rset,
    Unknown,
    Xclient,
    TooLong,
}

/// A strict server with CHUNKING that numbers its replies.
#[derive(Default)]
struct Server {
    input: Vec<u8>,
    in_content: bool,
    chunk: usize,
    replies: usize,
    /// The replies to messages.
    message_replies: Vec<String>,
}

impl Server {
    /// Parses data from the gateway; returns one reply per command, of the classes that `codes` chooses.
    fn on_data(&mut self, bytes: &[u8], codes: &mut impl Iterator<Item = u8>) -> Vec<String> {
        self.input.extend_from_slice(bytes);
        let mut replies = Vec::new();
        loop {
            if self.chunk > 0 {
                let count = self.chunk.min(self.input.len());
                self.input.drain(..count);
                self.chunk -= count;
                if self.chunk > 0 {
                    return replies;
                }
            }
            let end: &[u8] = if self.in_content { b"\r\n.\r\n" } else { b"\r\n" };
            let Some(at) = self.input.windows(end.len()).position(|w| w == end) else {
                return replies;
            };
            let line = String::from_utf8_lossy(&self.input[..at]).into_owned();
            self.input.drain(..at + end.len());
            let positive = !codes.next().unwrap_or(0).is_multiple_of(4);
            self.replies += 1;
            let n = self.replies;
            let mut ends_message = std::mem::take(&mut self.in_content);
            let mut code = if positive { 250 } else { 550 };
            if !ends_message {
                let words: Vec<&str> = line.split(' ').collect();
                match words[0] {
                    "DATA" if positive => {
                        self.in_content = true;
                        // So that an empty message ends too.
                        self.input.splice(0..0, *b"\r\n");
                        code = 354;
                    }
                    "BDAT" => {
                        self.chunk = words[1].parse().unwrap();
                        ends_message = words.len() == 3;
                    }
                    _ => {}
                }
            }
            let reply = format!("{code} upstream {n}");
            if ends_message {
                self.message_replies.push(reply.clone());
            }
            replies.push(reply);
        }
    }
}

fn client_command() -> impl Strategy<Value = ClientCommand> {
    prop_oneof![
        Just(ClientCommand::Noop),
        Just(ClientCommand::Mail),
        Just(ClientCommand::Rcpt),
        Just(ClientCommand::Data),
        (0u8..30, any::<bool>()).prop_map(|(size, last)| ClientCommand::Bdat { size, last }),
        Just(ClientCommand::Rset),
        Just(ClientCommand::Unknown),
        Just(ClientCommand::Xclient),
        Just(ClientCommand::TooLong),
    ]
}

fn bytes(command: ClientCommand) -> Vec<u8> {
    match command {
        ClientCommand::Noop => b"NOOP\r\n".to_vec(),
        ClientCommand::Mail => b"MAIL FROM:<a@b>\r\n".to_vec(),
        ClientCommand::Rcpt => b"RCPT TO:<c@d>\r\n".to_vec(),
        ClientCommand::Data => b"DATA\r\n".to_vec(),
        ClientCommand::Bdat { size, last } => {
            let last = if last { " LAST" } else { "" };
            let mut bytes = format!("BDAT {size}{last}\r\n").into_bytes();
            let content = b"\r\n.\r\nQUIT\r\n".iter().cycle();
            bytes.extend(content.take(usize::from(size)));
            bytes
        }
        ClientCommand::Rset => b"RSET\r\n".to_vec(),
        ClientCommand::Unknown => b"FROB\r\n".to_vec(),
        ClientCommand::Xclient => b"XCLIENT ADDR=::1\r\n".to_vec(),
        ClientCommand::TooLong => [&[b'x'; 600][..], b"\r\n"].concat(),
    }
}

/// Whether the gateway answers a command itself. For rejected recipients see `transaction_model`.
const fn by_gateway(command: ClientCommand) -> bool {
    matches!(command, ClientCommand::Unknown | ClientCommand::Xclient | ClientCommand::TooLong)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_reply_each_in_order_and_every_byte_accounted_for(
        script in proptest::collection::vec(client_command(), 0..40),
        codes in proptest::collection::vec(any::<u8>(), 1..40),
        cuts in proptest::collection::vec(1usize..60, 1..20),
        turns in proptest::collection::vec(any::<bool>(), 1..30),
        splice in any::<bool>(),
    ) {
        let mut profile = Profile::default();
        profile.limits.line_length = 512;
        profile.limits.errors = 1000;
        let timeouts = Timeouts::RFC_5321;
        let mut driver = Driver::new(profile, timeouts, "192.0.2.1:4", "192.0.2.2:25", splice);
        driver.upstream_sends(b"220 a\r\n");
        driver.client_sends(b"EHLO a\r\n");
        driver.upstream_sends(b"250-a\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        let greeted = driver.to_client.len();
        let mut sent_before = driver.to_upstream.len();

        let (mut cuts, mut turns) = (cuts.iter().cycle(), turns.iter().cycle());
        let mut codes = codes.into_iter().cycle();
        let mut server = Server::default();
        let mut replies: Vec<u8> = Vec::new();
        let mut expected: Vec<Option<usize>> = Vec::new(); // By the gateway, or upstream's number.
        let (mut sent, mut by_upstream) = (0, 0);
        let mut script = script.into_iter();
        let mut flight: Vec<u8> = Vec::new();
        let mut awaited: Option<usize> = None; // The number of the reply to DATA.
        for turn in 0.. {
            prop_assert!(turn < 100_000, "the session is stuck");
            let read = String::from_utf8_lossy(&driver.to_client[greeted..]).into_owned();
            let lines: Vec<&str> = read.split_terminator("\r\n").collect();
            if let Some(number) = awaited && let Some(reply) = lines.get(number) {
                awaited = None;
                if reply.starts_with("354") {
                    flight.extend(b"..x\r\n.\r\n");
                    by_upstream += 1;
                    expected.push(Some(by_upstream));
                }
            }
            if awaited.is_none() && flight.is_empty() {
                match script.next() {
                    None if replies.is_empty() && server.input.is_empty() => break,
                    None => {}
                    Some(command) => {
                        flight.extend(bytes(command));
                        if by_gateway(command) {
                            expected.push(None);
                        } else {
                            by_upstream += 1;
                            expected.push(Some(by_upstream));
                        }
                        if let ClientCommand::Data = command {
                            awaited = Some(expected.len() - 1);
                        }
                    }
                }
            }
            let client_first = *turns.next().unwrap();
            if !flight.is_empty() && (client_first || replies.is_empty()) {
                let count = flight.len().min(*cuts.next().unwrap());
                sent += count;
                let part: Vec<u8> = flight.drain(..count).collect();
                driver.client_sends(&part);
            } else {
                let count = replies.len().min(*cuts.next().unwrap());
                let part: Vec<u8> = replies.drain(..count).collect();
                driver.upstream_sends(&part);
            }
            let new = driver.to_upstream[sent_before..].to_vec();
            sent_before = driver.to_upstream.len();
            for reply in server.on_data(&new, &mut codes) {
                replies.extend(format!("{reply}\r\n").bytes());
            }
            prop_assert!(!driver.closed, "{}", String::from_utf8_lossy(&driver.to_client));
            let idle = flight.is_empty() && replies.is_empty() && awaited.is_none();
            if idle && script.len() == 0 && driver.unconsumed() == (0, 0) {
                break;
            }
        }

        let read = String::from_utf8_lossy(&driver.to_client[greeted..]).into_owned();
        let lines: Vec<&str> = read.split_terminator("\r\n").collect();
        prop_assert_eq!(lines.len(), expected.len(), "one reply each: {:?}", lines);
        for (line, expected) in lines.iter().zip(&expected) {
            match expected {
                None => prop_assert!(line.starts_with('5') && !line.contains("upstream"), "{line}"),
                Some(number) => prop_assert!(line.ends_with(&format!(" upstream {number}")), "{line}"),
            }
        }
        // Every 2xx to a message comes from upstream. The gateway's own 554 rejects messages without recipients.
        let given: Vec<u16> = server.message_replies.iter().map(|reply| reply[..3].parse().unwrap()).collect();
        let reported: Vec<u16> = driver.events.iter().filter_map(|event| match event {
            Event::Message { code, .. } if *code != 554 => Some(*code),
            _ => None,
        }).collect();
        prop_assert_eq!(reported, given);
        let record = driver.finish();
        driver.check_replay(&record, "a random client and a random server");
        prop_assert_eq!(record.tcp.client_bytes as usize, sent + "EHLO a\r\n".len());
        prop_assert_eq!(record.smtp.anomalies.contains(&gatepost::engine::Anomaly::UnexpectedReply), false);
    }
}
