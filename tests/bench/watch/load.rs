//! The load: Postfix's smtp-source sends messages of 1 MB over both families at once, one session each, to smtp-sink or to
//! Postfix.

use std::time::{Duration, Instant};

use super::lab::{Family, Lab, Postfix, Process, port};

/// `smtp-source -l`: 1 MB.
const OCTETS: &str = "1048576";
/// Sessions that each smtp-source keeps open at once.
const PARALLEL: &str = "4";

/// The receiver of the mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Receiver {
    /// Only TCP and the dialogue: the highest throughput.
    SmtpSink,
    /// A real MTA, which queues each message and discards it.
    Postfix,
}

impl Receiver {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SmtpSink => "smtp-sink",
            Self::Postfix => "postfix",
        }
    }
}

/// A running receiver on the server's host, in both families.
pub(crate) enum Running<'lab> {
    SmtpSink { _both: [Process; 2] },
    Postfix(Postfix<'lab>),
}

impl<'lab> Running<'lab> {
    pub(crate) fn start(lab: &'lab Lab, receiver: Receiver) -> Self {
        match receiver {
            Receiver::SmtpSink => Self::SmtpSink {
                _both: Family::ALL.map(|family| {
                    let at = lab.server_socket(family, port::SMTP);
                    let to = format!("inet:[{}]:{}", at.ip(), at.port());
                    let sink = lab.server.spawn(["smtp-sink", "-u", "nobody", &to, "4096"]);
                    lab.server.wait_for_listener(at);
                    sink
                }),
            },
            Receiver::Postfix => {
                let discard = "virtual_transport = discard\n";
                Self::Postfix(Postfix::start(lab, &lab.server, "postfix", None, discard))
            }
        }
    }

    /// Waits until the receiver has processed all messages.
    pub(crate) fn settle(&self) {
        if let Self::Postfix(postfix) = self {
            postfix.wait_until_idle();
        }
    }
}

/// Sends so many messages over each family; returns the time. smtp-source exits with an error if one is not accepted.
pub(crate) fn send(lab: &Lab, messages: u64) -> Duration {
    let started = Instant::now();
    let both = Family::ALL.map(|family| {
        let to = format!("inet:[{}]:{}", lab.server_ip(family), port::SMTP);
        let (sender, recipient) = ("sender@example.net", "bench@example.org");
        let messages = messages.to_string();
        let source = ["smtp-source", "-s", PARALLEL, "-m", &messages, "-l", OCTETS];
        lab.client.spawn(source.into_iter().chain(["-f", sender, "-t", recipient, &to]))
    });
    for mut source in both {
        let status = source.wait();
        assert!(status.success(), "smtp-source: {status}\n{}", source.log());
    }
    started.elapsed()
}
