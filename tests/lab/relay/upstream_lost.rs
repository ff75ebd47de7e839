//! Postfix stops in mid-session, before and after the final dot: the client never receives a 250 that Postfix did not send.

use std::fmt;

use crate::harness::tests;
use crate::support::{
    Entrance, Family, Gateway, Lab, Mode, PolicyGate, Postfix, Reply, Smtp, Transport,
};

tests![
    no_250_without_postfix_proxy,
    no_250_without_postfix_tproxy,
    no_250_without_postfix_inside_tls_proxy,
    no_250_without_postfix_inside_tls_tproxy,
];

/// How Postfix stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The process of the session is killed; others accept the next session.
    SessionKilled,
    /// `postfix stop`.
    Stopped,
    /// Every process is killed at once.
    AllKilled,
}

impl End {
    fn apply(self, postfix: &Postfix<'_>) {
        match self {
            Self::SessionKilled => postfix.kill_sessions(),
            Self::Stopped => postfix.stop(),
            Self::AllKilled => postfix.kill(),
        }
    }
}

/// When Postfix stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PolicyStage {
    AfterGreeting,
    AfterRecipient,
    /// Half of a message of 1 MB has been sent.
    DuringData,
    BeforeFinalDot,
    /// Postfix has received the dot and not replied yet.
    AfterFinalDot,
    /// As `AfterFinalDot`, with a second transaction pipelined after the dot.
    AfterFinalDotPipelined,
    /// A first message has been accepted; then as `AfterFinalDot`.
    SecondMessage,
    /// `BDAT 5`, its 250, and then half of the next chunk.
    DuringChunk,
    /// Postfix has received `BDAT n LAST` and not replied yet.
    AfterLastChunk,
}

impl PolicyStage {
    const ALL: [Self; 9] = [
        Self::AfterGreeting,
        Self::AfterRecipient,
        Self::DuringData,
        Self::BeforeFinalDot,
        Self::AfterFinalDot,
        Self::AfterFinalDotPipelined,
        Self::SecondMessage,
        Self::DuringChunk,
        Self::AfterLastChunk,
    ];
}

impl fmt::Display for PolicyStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

fn no_250_without_postfix_proxy() {
    no_250_without_postfix(Mode::Proxy, Transport::Plaintext);
}

fn no_250_without_postfix_tproxy() {
    no_250_without_postfix(Mode::Tproxy, Transport::Plaintext);
}

fn no_250_without_postfix_inside_tls_proxy() {
    no_250_without_postfix(Mode::Proxy, Transport::OwnTls);
}

fn no_250_without_postfix_inside_tls_tproxy() {
    no_250_without_postfix(Mode::Tproxy, Transport::OwnTls);
}

fn no_250_without_postfix(mode: Mode, transport: Transport) {
    let lab = Lab::new();
    let gate = PolicyGate::open(lab.path("policy"));
    let restriction = format!("smtpd_end_of_data_restrictions = {}", gate.restriction());
    let postfix = Postfix::start(&lab, &lab.server, "postfix", None, &restriction);
    let entrance = Entrance::new(&lab, mode, transport);
    let config = entrance.config().set("upstream", "retry_after = \"1s\"");
    let _gateway = Gateway::start(&lab, &config);

    for family in Family::ALL {
        for moment in PolicyStage::ALL {
            for &end in ends_for(moment) {
                eprintln!("case: {family}, {moment}, {end:?}");
                let setup = Setup {
                    lab: &lab,
                    postfix: &postfix,
                    gate: &gate,
                    entrance: &entrance,
                    family,
                    recipient: format!("{family}-{moment}-{end:?}@example.org").to_lowercase(),
                };
                setup.run(moment, end);
                if end != End::SessionKilled {
                    setup.expect_unavailable();
                    postfix.start_again();
                }
                setup.expect_mail_to_flow();
            }
        }
    }
}

/// Not every combination, since a restart of Postfix is slow.
fn ends_for(moment: PolicyStage) -> &'static [End] {
    match moment {
        PolicyStage::BeforeFinalDot => &[End::SessionKilled, End::Stopped],
        PolicyStage::AfterFinalDot => &[End::SessionKilled, End::Stopped, End::AllKilled],
        _ => &[End::SessionKilled],
    }
}

struct Setup<'a> {
    lab: &'a Lab,
    postfix: &'a Postfix<'a>,
    gate: &'a PolicyGate,
    entrance: &'a Entrance<'a>,
    family: Family,
    recipient: String,
}

impl Setup<'_> {
    fn begin(&self) -> Smtp {
        let mut smtp = self.entrance.connect(self.family);
        smtp.begin("sender@example.net", &self.recipient);
        smtp
    }

    /// Runs a session up to the moment, stops Postfix, and compares the client's replies with the stored mail.
    fn run(&self, moment: PolicyStage, end: End) {
        let mut accepted = Vec::new();
        let mut smtp = self.up_to(moment, &mut accepted);
        let question = matches!(
            moment,
            PolicyStage::AfterFinalDot
                | PolicyStage::AfterFinalDotPipelined
                | PolicyStage::SecondMessage
                | PolicyStage::AfterLastChunk
        )
        .then(|| self.gate.question());
        end.apply(self.postfix);
        drop(question);

        // The client goes on; the connection may be closed already.
        let next = match moment {
            PolicyStage::AfterGreeting => "EHLO client.example.net\r\n",
            PolicyStage::AfterRecipient => "DATA\r\n",
            PolicyStage::DuringData | PolicyStage::BeforeFinalDot => "the last line\r\n.\r\n",
            PolicyStage::DuringChunk => "67890",
            _ => "",
        };
        let _ = smtp.raw(next.as_bytes());

        let replies = smtp.replies_until_closed();
        let first = replies.first().expect("a reply before the connection ends");
        assert_eq!(first.code, 421, "{replies:?}");
        assert!(first.lines[0].starts_with("4.4.2 "), "{replies:?}");
        assert!(replies.iter().all(|reply| reply.code / 100 == 4), "{replies:?}");
        self.compare(&accepted);
    }

    /// Runs the dialogue until the moment; adds messages accepted on the way to `accepted`.
    fn up_to(&self, moment: PolicyStage, accepted: &mut Vec<Reply>) -> Smtp {
        let message = b"Subject: lost\r\n\r\nhello\r\n";
        if moment == PolicyStage::AfterGreeting {
            let mut smtp = self.entrance.connect(self.family);
            smtp.greeting();
            return smtp;
        }
        let mut smtp = self.begin();
        match moment {
            PolicyStage::AfterGreeting | PolicyStage::AfterRecipient => {}
            PolicyStage::DuringData => {
                smtp.dialogue("C: DATA\n S: 354");
                smtp.raw("0123456789abcdef\r\n".repeat(30_000).as_bytes()).unwrap();
            }
            PolicyStage::BeforeFinalDot => {
                smtp.dialogue("C: DATA\n S: 354");
                smtp.raw(message).unwrap();
            }
            PolicyStage::AfterFinalDot => self.send_data(&mut smtp, ""),
            PolicyStage::AfterFinalDotPipelined => {
                let second = format!(
                    "MAIL FROM:<sender@example.net>\r\nRCPT TO:<{}>\r\nDATA\r\n",
                    self.recipient
                );
                self.send_data(&mut smtp, &second);
            }
            PolicyStage::SecondMessage => {
                self.send_data(&mut smtp, "");
                self.gate.question().answer_dunno();
                accepted.push(smtp.reply().unwrap());
                smtp.dialogue(&format!(
                    "C: MAIL FROM:<sender@example.net>
                     S: 250
                     C: RCPT TO:<{}>
                     S: 250",
                    self.recipient
                ));
                self.send_data(&mut smtp, "");
            }
            PolicyStage::DuringChunk => {
                smtp.raw(b"BDAT 5\r\na: b\n").unwrap();
                smtp.dialogue("S: 250");
                smtp.raw(b"BDAT 10 LAST\r\n12345").unwrap();
            }
            PolicyStage::AfterLastChunk => smtp.raw(b"BDAT 9 LAST\r\na: b\r\n\r\nc").unwrap(),
        }
        smtp
    }

    fn send_data(&self, smtp: &mut Smtp, pipelined: &str) {
        smtp.dialogue("C: DATA\n S: 354");
        smtp.raw(format!("Subject: lost\r\n\r\nhello\r\n.\r\n{pipelined}").as_bytes()).unwrap();
    }

    /// Each 250 has a queue id of Postfix, and no other message is stored.
    fn compare(&self, accepted: &[Reply]) {
        for reply in accepted {
            assert_eq!(reply.code, 250, "{reply:?}");
            let id = reply.queue_id().expect("a queue id in Postfix's 250");
            self.postfix.wait_for_log(id, |line| line.contains(id) && line.contains("status=sent"));
        }
        assert_eq!(self.postfix.count_to(&self.recipient), accepted.len());
    }

    /// Without a Postfix the client gets a 4xx reply in place of the greeting.
    fn expect_unavailable(&self) {
        let mut smtp = self.lab.client.smtp(self.entrance.address(self.family));
        let replies = smtp.replies_until_closed();
        let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
        assert_eq!(codes, [421], "{replies:?}");
        assert!(replies[0].lines[0].starts_with("4.3.2 "), "{replies:?}");
    }

    fn expect_mail_to_flow(&self) {
        let before = self.postfix.count_to(&self.recipient);
        let mut smtp = self.begin();
        self.send_data(&mut smtp, "");
        self.gate.question().answer_dunno();
        smtp.dialogue("S: 250\n C: QUIT\n S: 221");
        self.postfix.wait_until_idle();
        assert_eq!(self.postfix.count_to(&self.recipient), before + 1);
    }
}
