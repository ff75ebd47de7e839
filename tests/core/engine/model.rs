//! Random clients before a random server: what must hold whatever either says.

use proptest::prelude::*;

use gatepost::engine::{Event, Profile, Timeouts};

use crate::engine::driver::Driver;

/// What the client says, in its order. A message is followed by nothing before its reply to DATA is there.
#[derive(Clone, Copy, Debug)]
enum Says {
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

/// A strict server with CHUNKING: reads commands, answers each with a number of its own.
#[derive(Default)]
struct Server {
    input: Vec<u8>,
    in_content: bool,
    chunk: usize,
    said: usize,
    /// Text of each reply to an end of message.
    fates: Vec<String>,
}

impl Server {
    /// Takes what the gateway sent; returns the replies, one for each command. `codes` chooses their classes.
    fn takes(&mut self, bytes: &[u8], codes: &mut impl Iterator<Item = u8>) -> Vec<String> {
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
            self.said += 1;
            let n = self.said;
            let mut fate = std::mem::take(&mut self.in_content);
            let mut code = if positive { 250 } else { 550 };
            if !fate {
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
                        fate = words.len() == 3;
                    }
                    _ => {}
                }
            }
            let reply = format!("{code} upstream {n}");
            if fate {
                self.fates.push(reply.clone());
            }
            replies.push(reply);
        }
    }
}

fn says() -> impl Strategy<Value = Says> {
    prop_oneof![
        Just(Says::Noop),
        Just(Says::Mail),
        Just(Says::Rcpt),
        Just(Says::Data),
        (0u8..30, any::<bool>()).prop_map(|(size, last)| Says::Bdat { size, last }),
        Just(Says::Rset),
        Just(Says::Unknown),
        Just(Says::Xclient),
        Just(Says::TooLong),
    ]
}

fn bytes(says: Says) -> Vec<u8> {
    match says {
        Says::Noop => b"NOOP\r\n".to_vec(),
        Says::Mail => b"MAIL FROM:<a@b>\r\n".to_vec(),
        Says::Rcpt => b"RCPT TO:<c@d>\r\n".to_vec(),
        Says::Data => b"DATA\r\n".to_vec(),
        Says::Bdat { size, last } => {
            let last = if last { " LAST" } else { "" };
            let mut bytes = format!("BDAT {size}{last}\r\n").into_bytes();
            let content = b"\r\n.\r\nQUIT\r\n".iter().cycle();
            bytes.extend(content.take(usize::from(size)));
            bytes
        }
        Says::Rset => b"RSET\r\n".to_vec(),
        Says::Unknown => b"FROB\r\n".to_vec(),
        Says::Xclient => b"XCLIENT ADDR=::1\r\n".to_vec(),
        Says::TooLong => [&[b'x'; 600][..], b"\r\n"].concat(),
    }
}

/// Whether the gateway answers a command itself. For rejected recipients see `transaction_model`.
const fn by_gateway(says: Says) -> bool {
    matches!(says, Says::Unknown | Says::Xclient | Says::TooLong)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn one_reply_each_in_order_and_every_byte_accounted_for(
        script in proptest::collection::vec(says(), 0..40),
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
        driver.upstream_says(b"220 a\r\n");
        driver.client_says(b"EHLO a\r\n");
        driver.upstream_says(b"250-a\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        let greeted = driver.to_client.len();
        let mut sent_before = driver.to_upstream.len();

        let (mut cuts, mut turns) = (cuts.iter().cycle(), turns.iter().cycle());
        let mut codes = codes.into_iter().cycle();
        let mut server = Server::default();
        let mut replies: Vec<u8> = Vec::new();
        let mut expected: Vec<Option<usize>> = Vec::new(); // By the gateway, or upstream's number.
        let (mut said, mut by_upstream) = (0, 0);
        let mut script = script.into_iter();
        let mut flight: Vec<u8> = Vec::new();
        let mut awaited: Option<usize> = None; // The number of the reply to DATA.
        for turn in 0.. {
            prop_assert!(turn < 100_000, "nobody says anything any more");
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
                    Some(what) => {
                        flight.extend(bytes(what));
                        if by_gateway(what) {
                            expected.push(None);
                        } else {
                            by_upstream += 1;
                            expected.push(Some(by_upstream));
                        }
                        if let Says::Data = what {
                            awaited = Some(expected.len() - 1);
                        }
                    }
                }
            }
            let client_first = *turns.next().unwrap();
            if !flight.is_empty() && (client_first || replies.is_empty()) {
                let count = flight.len().min(*cuts.next().unwrap());
                said += count;
                let part: Vec<u8> = flight.drain(..count).collect();
                driver.client_says(&part);
            } else {
                let count = replies.len().min(*cuts.next().unwrap());
                let part: Vec<u8> = replies.drain(..count).collect();
                driver.upstream_says(&part);
            }
            let news = driver.to_upstream[sent_before..].to_vec();
            sent_before = driver.to_upstream.len();
            for reply in server.takes(&news, &mut codes) {
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
        // Never a 2xx to a message that upstream did not give. The gateway's own 554 is to those without a recipient.
        let given: Vec<u16> = server.fates.iter().map(|fate| fate[..3].parse().unwrap()).collect();
        let told: Vec<u16> = driver.events.iter().filter_map(|event| match event {
            Event::Message { code, .. } if *code != 554 => Some(*code),
            _ => None,
        }).collect();
        prop_assert_eq!(told, given);
        let record = driver.finish();
        driver.replays(&record, "a random client before a random server");
        prop_assert_eq!(record.tcp.client_bytes as usize, said + "EHLO a\r\n".len());
        prop_assert_eq!(record.smtp.anomalies.contains(&gatepost::engine::Anomaly::UnexpectedReply), false);
    }
}
