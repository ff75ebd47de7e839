//! Time limits: as long as those of an MTA, and blamed on the side that is silent.

use std::time::Duration;

use gatepost::engine::{Outcome, Profile, Timeouts};

use crate::engine::dialogue::Dialogue;
use crate::engine::driver::Driver;
use crate::engine::sessions::{ENVELOPE, HELLO};

const TLS: &str = r"S: 220 a
    C: STARTTLS
    S: 220 go
    C: \x16hello\
    S: \x16hello\
    C: \x17message\
";

fn run(timeouts: Timeouts, text: &str) {
    let mut dialogue = Dialogue::new(text);
    dialogue.timeouts = timeouts;
    dialogue.run();
}

/// Closed before upstream's reply, the client would send a delivered message again.
#[test]
fn inside_tls_the_reply_to_a_message_has_the_time_of_acceptance() {
    for timeouts in [Timeouts::RFC_5321, Timeouts::STRESS] {
        run(timeouts, &format!("{TLS}T 599s\nS: \\x17reply\\\n"));
        run(timeouts, &format!("{TLS}T 600s\n= timeout"));
    }
}

#[test]
fn inside_tls_a_silent_client_has_the_time_of_an_idle_one() {
    let answered = format!("{TLS}T 599s\nS: \\x17reply\\\n");
    run(Timeouts::RFC_5321, &format!("{answered}T 299s\nC: \\x17more\\\n"));
    run(Timeouts::RFC_5321, &format!("{answered}T 300s\n= timeout"));
    run(Timeouts::STRESS, &format!("{answered}T 30s\n= timeout"));
}

#[test]
fn a_block_of_a_message_has_the_five_minutes_of_postfix() {
    let begun = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\n"].concat();
    run(Timeouts::RFC_5321, &format!("{begun}T 299s\nC: .\nS: 250 ok\n"));
    let late = "T 300s\n+C 421 4.4.2 gate.example timeout exceeded\n= timeout";
    run(Timeouts::RFC_5321, &format!("{begun}{late}"));
}

/// A few octets every few minutes never make up for the time that they take.
#[test]
fn a_message_that_trickles_is_cut_off() {
    let timeout = "+C 421 4.4.2 gate.example timeout exceeded\n= timeout";
    let data = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\n"].concat();
    let text = format!("{data}T 150s\nC: a\nT 149s\nC: b\nT 2s\n{timeout}");
    run(Timeouts::RFC_5321, &text);
    let chunks = [HELLO, ENVELOPE, "C: BDAT 9\nT 150s\nC: x\\\nT 149s\nC: y\\\nT 2s\n"].concat();
    run(Timeouts::RFC_5321, &format!("{chunks}{timeout}"));
    let none = Timeouts { min_data_rate: 0, ..Timeouts::RFC_5321 };
    run(none, &format!("{data}T 150s\nC: a\nT 149s\nC: b\nT 200s\nC: .\nS: 250 ok\n"));
}

#[test]
fn octets_make_up_for_the_time_of_a_slow_client() {
    let block = format!("T 250s\nC: {}\n", "x".repeat(998)).repeat(3);
    let slow = Timeouts { min_data_rate: 4, ..Timeouts::RFC_5321 };
    let text = [HELLO, ENVELOPE, "C: DATA\nS: 354 go\n", &block, "C: .\nS: 250 ok\n"].concat();
    run(slow, &text);
}

#[test]
fn the_octets_of_an_endless_line_do_not_extend_its_time() {
    let part = format!("T 100s\nC- {}\\\n", "x".repeat(300));
    let text = format!(
        "S: 220 a\n{}T 100s\n+C 421 4.4.2 gate.example timeout exceeded\n= timeout",
        part.repeat(2)
    );
    let mut dialogue = Dialogue::new(&text).with(|profile| profile.limits.line_length = 512);
    dialogue.timeouts = Timeouts { command: Duration::from_secs(299), ..Timeouts::RFC_5321 };
    dialogue.run();
}

/// In the middle of a message, whose next octets the client cannot send.
fn blocked() -> Driver {
    let (client, server) = ("[2001:db8::1]:40000", "[2001:db8:1::25]:25");
    let mut driver = Driver::new(Profile::default(), Timeouts::STRESS, client, server, false);
    driver.upstream_sends(b"220 a\r\n");
    for (command, reply) in [
        ("EHLO a", "250 a"),
        ("MAIL FROM:<a@a.example>", "250 ok"),
        ("RCPT TO:<b@b.example>", "250 ok"),
        ("DATA", "354 go"),
        ("x", ""),
    ] {
        driver.client_sends(format!("{command}\r\n").as_bytes());
        if !reply.is_empty() {
            driver.upstream_sends(format!("{reply}\r\n").as_bytes());
        }
    }
    driver.upstream_accepts_nothing();
    driver
}

#[test]
fn an_mta_that_reads_slowly_is_not_the_clients_silence() {
    let mut driver = blocked();
    for _ in 0..10 {
        driver.wait(Duration::from_secs(299));
        driver.upstream_accepts_some();
    }
    driver.upstream_accepts_all();
    driver.wait(Duration::from_secs(29));
    assert!(!driver.closed);
    driver.client_sends(b".\r\n");
    driver.upstream_sends(b"250 ok\r\n");
    assert!(driver.to_client.ends_with(b"250 ok\r\n"));
}

#[test]
fn an_mta_that_reads_nothing_is_named() {
    let mut driver = blocked();
    driver.wait(Duration::from_secs(300));
    let reply = b"421 4.4.2 localhost mail server did not reply in time; try again later\r\n";
    assert!(driver.to_client.ends_with(reply));
    assert_eq!(driver.finish().outcome, Outcome::Timeout);
}

#[test]
fn a_client_is_silent_again_once_the_mta_reads() {
    let mut driver = blocked();
    driver.wait(Duration::from_secs(299));
    driver.upstream_accepts_all();
    driver.wait(Duration::from_secs(30));
    assert!(driver.to_client.ends_with(b"421 4.4.2 localhost timeout exceeded\r\n"));
}
