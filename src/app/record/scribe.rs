//! From frames to packets in a pcapng file.
//!
//! Each packet is written at once and whole, so the file can be read however the recorder ends.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};

use crate::addr::Side;
use crate::recording::{Frame, FrameBody, Omission};
use crate::source::PcapngWriter;
use crate::time::Timestamp;
use crate::wire::{LinkType, SyntheticConnection};

/// The interface's name in the file.
const INTERFACE: &str = "gatepost";

pub(super) struct Scribe<W: Write> {
    writer: PcapngWriter<W>,
    talks: HashMap<u64, SyntheticConnection>,
    /// Sessions to write; later ones are not.
    wanted: Option<u64>,
    tally: Tally,
}

/// What was written and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    begun: u64,
    ended: u64,
    octets: u64,
    unseen: u64,
    overflow: u64,
    redacted: u64,
    missed: u64,
}

impl<W: Write> Scribe<W> {
    /// Writes the head of the file.
    pub(super) fn new(to: W, wanted: Option<u64>) -> io::Result<Self> {
        let writer = PcapngWriter::new(to, LinkType::Raw, 0, INTERFACE)?;
        Ok(Self { writer, talks: HashMap::new(), wanted, tally: Tally::default() })
    }

    pub(super) fn frame(&mut self, frame: Frame) -> io::Result<()> {
        let Frame { session, at, what } = frame;
        match what {
            FrameBody::Begin { client, server } => {
                if self.wanted.is_some_and(|wanted| self.tally.begun >= wanted) {
                    return Ok(());
                }
                self.tally.begun += 1;
                let mut talk = SyntheticConnection::new(client, server);
                let written = self.write(|emit| talk.open(at, emit));
                self.talks.insert(session, talk);
                written
            }
            FrameBody::Data { from, bytes: octets } => self.talk(session, |talk, tally, emit| {
                tally.octets += octets.len() as u64;
                talk.say(from, &octets, at, emit);
            }),
            FrameBody::Omitted { from, count, reason } => {
                self.talk(session, |talk, tally, emit| {
                    *tally.of(reason) += count;
                    talk.omit(from, count, at, emit);
                })
            }
            FrameBody::ClientClosed => {
                self.talk(session, |talk, _, emit| talk.close(Side::Client, at, emit))
            }
            FrameBody::End { reset, ending } => {
                let Some(mut talk) = self.talks.remove(&session) else {
                    return Ok(());
                };
                self.tally.ended += 1;
                let mut packets: Vec<(Timestamp, Vec<u8>, u32)> = Vec::new();
                let mut keep = |at, packet: &[u8], wire_len| {
                    packets.push((at, packet.to_vec(), wire_len));
                };
                if reset {
                    talk.reset(Side::Client, at, &mut keep);
                } else {
                    talk.close(Side::Server, at, &mut keep);
                }
                let last = packets.len().saturating_sub(1);
                let comment = ending.to_string();
                for (n, (at, packet, wire_len)) in packets.into_iter().enumerate() {
                    let comment = (n == last).then_some(comment.as_str());
                    // A replay needs them before the session is over for it.
                    match ending.answers.as_deref().filter(|_| n == 0) {
                        Some(answers) => {
                            self.writer.noted_packet(at, &packet, wire_len, comment, answers)?;
                        }
                        None => self.writer.packet(at, &packet, wire_len, comment)?,
                    }
                }
                Ok(())
            }
            FrameBody::Missed { sessions } => {
                self.tally.missed += sessions;
                Ok(())
            }
        }
    }

    /// Whether as many sessions as wanted are there.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.tally.ended >= wanted)
    }

    pub(super) fn finish(self) -> io::Result<Tally> {
        self.writer.finish()?;
        Ok(self.tally)
    }

    fn talk(
        &mut self,
        session: u64,
        what: impl FnOnce(&mut SyntheticConnection, &mut Tally, &mut dyn FnMut(Timestamp, &[u8], u32)),
    ) -> io::Result<()> {
        let Some(mut talk) = self.talks.remove(&session) else {
            return Ok(()); // More than as many as wanted.
        };
        let mut tally = self.tally;
        let written = self.write(|emit| what(&mut talk, &mut tally, emit));
        self.tally = tally;
        self.talks.insert(session, talk);
        written
    }

    fn write(
        &mut self,
        what: impl FnOnce(&mut dyn FnMut(Timestamp, &[u8], u32)),
    ) -> io::Result<()> {
        let mut written = Ok(());
        what(&mut |at, packet, wire_len| {
            if written.is_ok() {
                written = self.writer.packet(at, packet, wire_len, None);
            }
        });
        written
    }
}

impl Tally {
    const fn of(&mut self, reason: Omission) -> &mut u64 {
        match reason {
            Omission::Uninspected => &mut self.unseen,
            Omission::Overflow => &mut self.overflow,
            Omission::Redacted => &mut self.redacted,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun, ended, octets, .. } = self;
        write!(f, "{begun} sessions written, {} of them not to their end, ", begun - ended)?;
        write!(f, "with {octets} octets said")?;
        for (count, why) in [
            (
                self.unseen,
                "octets omitted that the gateway passed on unseen (--content has it copy them)",
            ),
            (self.redacted, "octets omitted by --redact"),
            (self.overflow, "octets omitted because this recorder was too slow"),
            (self.missed, "sessions missed because this recorder was too slow"),
        ] {
            if count > 0 {
                write!(f, "; {count} {why}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::addr::Networks;
    use crate::analyzer::{AnalyzerSettings, Transcripts};
    use crate::app::reading::Reading;
    use crate::engine::Profile;
    use crate::recording::EndSummary;
    use crate::source::{CaptureFile, PacketSource as _};
    use crate::stream::{FlowLimits, WatchedPorts};

    fn frames(session: u64, reset: bool, answers: Option<&str>) -> Vec<Frame> {
        let said = |from, text: &str| FrameBody::Data { from, bytes: text.as_bytes().to_vec() };
        // The same ports again and again.
        let client: SocketAddr = "[2001:db8::25]:40000".parse().unwrap();
        let server: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
        let ending = EndSummary {
            verdict: "accept".to_owned(),
            rule: None,
            reason: None,
            outcome: "quit".to_owned(),
            answers: answers.map(str::to_owned),
        };
        let whats = [
            FrameBody::Begin { client, server },
            said(Side::Server, "220 mx.b.example\r\n"),
            said(Side::Client, "QUIT\r\n"),
            said(Side::Server, "221 bye\r\n"),
            FrameBody::End { reset, ending },
        ];
        let at = |n: u64| Timestamp::from_nanos(session * 10_000_000_000 + n * 1_000_000);
        let numbered = (0..).zip(whats);
        numbered.map(|(n, what)| Frame { session, at: at(n), what }).collect()
    }

    /// What a reader is told of each session.
    fn noted(file: &[u8]) -> Vec<Option<String>> {
        let mut file = CaptureFile::from_reader(Path::new("a"), file, 0).unwrap();
        let settings = AnalyzerSettings {
            profile: Arc::new(Profile::default()),
            ports: WatchedPorts::new(vec![25]),
            limits: FlowLimits::default(),
            observer: Arc::new(()),
            transcripts: Transcripts::None,
            numbered: 0,
        };
        let mut reading = Reading::new(settings, Networks::default());
        let mut notes = Vec::new();
        while let Some(packet) = file.next().unwrap() {
            reading.packet(&packet);
            notes.extend(reading.sessions().into_iter().map(|session| session.note));
        }
        reading.finish();
        notes.extend(reading.sessions().into_iter().map(|session| session.note));
        notes
    }

    #[test]
    fn answers_are_read_back_with_their_session() {
        let mut scribe = Scribe::new(Vec::new(), None).unwrap();
        let sessions = [
            (false, Some("[1]")),
            (true, Some("[2]")),
            (false, None),
            (true, None),
            (false, Some("[5]")),
        ];
        for (n, (reset, answers)) in (1..).zip(sessions) {
            for frame in frames(n, reset, answers) {
                scribe.frame(frame).unwrap();
            }
        }
        let file = scribe.writer.finish().unwrap();
        let expected = sessions.map(|(_, answers)| answers.map(str::to_owned));
        assert_eq!(noted(&file), expected);
    }
}
