//! Writes recorded sessions to a pcapng file: each frame becomes packets of a synthetic TCP connection.
//!
//! Each packet is written whole and unbuffered, so the file is readable however the recorder ends.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Write};

use crate::addr::Side;
use crate::recording::{EndSummary, Frame, FrameBody, Omission};
use crate::source::PcapngWriter;
use crate::time::Timestamp;
use crate::wire::{LinkType, PacketNote, SyntheticConnection};

/// The interface's name in the file.
const INTERFACE: &str = "gatepost";

/// Receives a packet and its length on the wire.
type PacketEmitter<'a> = &'a mut dyn FnMut(Timestamp, &[u8], u32);

pub(super) struct RecordingWriter<W: Write> {
    writer: PcapngWriter<W>,
    connections: HashMap<u64, SyntheticConnection>,
    /// Limit on sessions; later ones are skipped.
    wanted: Option<u64>,
    totals: RecordingTotals,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecordingTotals {
    begun: u64,
    ended: u64,
    bytes: u64,
    uninspected: u64,
    overflow: u64,
    redacted: u64,
    missed: u64,
}

impl<W: Write> RecordingWriter<W> {
    /// Writes the file's header.
    pub(super) fn new(to: W, wanted: Option<u64>) -> io::Result<Self> {
        let writer = PcapngWriter::new(to, LinkType::Raw, 0, INTERFACE)?;
        let totals = RecordingTotals::default();
        Ok(Self { writer, connections: HashMap::new(), wanted, totals })
    }

    pub(super) fn frame(&mut self, frame: Frame) -> io::Result<()> {
        let Frame { session, at, body } = frame;
        match body {
            FrameBody::Begin { client, server, listener } => {
                if self.wanted.is_some_and(|wanted| self.totals.begun >= wanted) {
                    return Ok(());
                }
                self.totals.begun += 1;
                let mut connection = SyntheticConnection::new(client, server);
                let mut packets = Vec::new();
                connection.open(at, &mut |at, packet: &[u8], wire_len| {
                    packets.push((at, packet.to_vec(), wire_len));
                });
                self.connections.insert(session, connection);
                let mut note = Some(PacketNote::Listener(&listener));
                packets.into_iter().try_for_each(|(at, packet, wire_len)| match note.take() {
                    Some(note) => self.writer.packet_with_note(at, &packet, wire_len, None, note),
                    None => self.writer.packet(at, &packet, wire_len, None),
                })
            }
            FrameBody::Data { from, bytes } => self.extend(session, |connection, totals, emit| {
                totals.bytes += bytes.len() as u64;
                connection.send(from, &bytes, at, emit);
            }),
            FrameBody::Omitted { from, count, reason } => {
                self.extend(session, |connection, totals, emit| {
                    *totals.omitted(reason) += count;
                    connection.send_omitted(from, count, at, emit);
                })
            }
            FrameBody::ClientClosed => self.extend(session, |connection, _, emit| {
                connection.close(Side::Client, at, emit);
            }),
            FrameBody::End { reset, summary: ending } => self.end(session, at, reset, &ending),
            FrameBody::Missed { sessions } => {
                self.totals.missed += sessions;
                Ok(())
            }
        }
    }

    /// All wanted sessions have ended.
    pub(super) fn is_complete(&self) -> bool {
        self.wanted.is_some_and(|wanted| self.totals.ended >= wanted)
    }

    pub(super) fn finish(self) -> io::Result<RecordingTotals> {
        self.writer.finish()?;
        Ok(self.totals)
    }

    fn end(
        &mut self,
        session: u64,
        at: Timestamp,
        reset: bool,
        ending: &EndSummary,
    ) -> io::Result<()> {
        let Some(mut connection) = self.connections.remove(&session) else {
            return Ok(());
        };
        self.totals.ended += 1;
        let mut packets: Vec<(Timestamp, Vec<u8>, u32)> = Vec::new();
        let mut emit = |at, packet: &[u8], wire_len| {
            packets.push((at, packet.to_vec(), wire_len));
        };
        if reset {
            connection.reset(Side::Client, at, &mut emit);
        } else {
            connection.close(Side::Server, at, &mut emit);
        }
        let last = packets.len().saturating_sub(1);
        let comment = ending.to_string();
        for (n, (at, packet, wire_len)) in packets.into_iter().enumerate() {
            let comment = (n == last).then_some(comment.as_str());
            // With the first packet: a replay needs the answers before its session ends.
            match ending.answers.as_deref().filter(|_| n == 0) {
                Some(answers) => {
                    let note = PacketNote::Answers(answers);
                    self.writer.packet_with_note(at, &packet, wire_len, comment, note)?;
                }
                None => self.writer.packet(at, &packet, wire_len, comment)?,
            }
        }
        Ok(())
    }

    /// Adds packets to a session's connection. Sessions beyond the limit have none.
    fn extend(
        &mut self,
        session: u64,
        add: impl FnOnce(&mut SyntheticConnection, &mut RecordingTotals, PacketEmitter<'_>),
    ) -> io::Result<()> {
        let Some(mut connection) = self.connections.remove(&session) else {
            return Ok(());
        };
        let mut totals = self.totals;
        let written = self.write(|emit| add(&mut connection, &mut totals, emit));
        self.totals = totals;
        self.connections.insert(session, connection);
        written
    }

    fn write(&mut self, packets: impl FnOnce(PacketEmitter<'_>)) -> io::Result<()> {
        let mut written = Ok(());
        packets(&mut |at, packet, wire_len| {
            if written.is_ok() {
                written = self.writer.packet(at, packet, wire_len, None);
            }
        });
        written
    }
}

impl RecordingTotals {
    const fn omitted(&mut self, reason: Omission) -> &mut u64 {
        match reason {
            Omission::Uninspected => &mut self.uninspected,
            Omission::Overflow => &mut self.overflow,
            Omission::Redacted => &mut self.redacted,
        }
    }
}

impl fmt::Display for RecordingTotals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun, ended, bytes, .. } = self;
        write!(
            f,
            "{begun} sessions written ({} incomplete), {bytes} bytes of data",
            begun - ended
        )?;
        for (count, reason) in [
            (
                self.uninspected,
                "bytes omitted that the gateway did not inspect (--content includes them)",
            ),
            (self.redacted, "bytes omitted by --redact"),
            (self.overflow, "bytes omitted because this recorder was too slow"),
            (self.missed, "sessions missed because this recorder was too slow"),
        ] {
            if count > 0 {
                write!(f, "; {count} {reason}")?;
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
    use crate::analyzer::{AnalyzerSettings, FinishedSession};
    use crate::app::pipeline::AnalysisPipeline;
    use crate::engine::{ListenerProfiles, Profile};
    use crate::recording::EndSummary;
    use crate::source::{CaptureFile, PacketSource as _};
    use crate::stream::WatchedPorts;
    use crate::traffic::Traffic;

    fn frames(session: u64, reset: bool, answers: Option<&str>) -> Vec<Frame> {
        let data = |from, text: &str| FrameBody::Data { from, bytes: text.as_bytes().to_vec() };
        // Every session has the same ports.
        let client: SocketAddr = "[2001:db8::25]:40000".parse().unwrap();
        let server: SocketAddr = "[2001:db8::1]:25".parse().unwrap();
        let ending = EndSummary {
            verdict: "accept".to_owned(),
            rule: None,
            reason: None,
            outcome: "quit".to_owned(),
            decrypted: None,
            answers: answers.map(str::to_owned),
        };
        let bodies = [
            FrameBody::Begin { client, server, listener: "mx".into() },
            data(Side::Server, "220 mx.b.example\r\n"),
            data(Side::Client, "QUIT\r\n"),
            data(Side::Server, "221 bye\r\n"),
            FrameBody::End { reset, summary: ending },
        ];
        let at = |n: u64| Timestamp::from_nanos(session * 10_000_000_000 + n * 1_000_000);
        let numbered = (0..).zip(bodies);
        numbered.map(|(n, body)| Frame { session, at: at(n), body }).collect()
    }

    /// The lookup answers and the listener of each session in the file.
    fn notes(file: &[u8]) -> Vec<(Option<String>, Option<String>)> {
        let mut file = CaptureFile::from_reader(Path::new("a"), file, 0).unwrap();
        let profile = Profile { listener: Some("mx".into()), ..Profile::default() };
        let profiles = ListenerProfiles::new(vec![(profile.into(), Vec::new())], Arc::default());
        let settings = AnalyzerSettings {
            profiles: profiles.into(),
            ports: WatchedPorts::new(vec![25]),
            ..AnalyzerSettings::default()
        };
        let traffic = Traffic::new(Networks::default());
        let mut pipeline = AnalysisPipeline::new(settings, traffic, Vec::new());
        while let Some(packet) = file.next().unwrap() {
            pipeline.packet(&packet);
        }
        pipeline.finish();
        let listener =
            |session: &FinishedSession| session.record.listener.as_deref().map(str::to_owned);
        let sessions = pipeline.sessions().into_iter();
        sessions.map(|session| (session.answers.clone(), listener(&session))).collect()
    }

    #[test]
    fn answers_are_read_back_with_their_session() {
        let mut writer = RecordingWriter::new(Vec::new(), None).unwrap();
        let sessions = [
            (false, Some("[1]")),
            (true, Some("[2]")),
            (false, None),
            (true, None),
            (false, Some("[5]")),
        ];
        for (n, (reset, answers)) in (1..).zip(sessions) {
            for frame in frames(n, reset, answers) {
                writer.frame(frame).unwrap();
            }
        }
        let file = writer.writer.finish().unwrap();
        let expected =
            sessions.map(|(_, answers)| (answers.map(str::to_owned), Some("mx".to_owned())));
        assert_eq!(notes(&file), expected);
    }
}
