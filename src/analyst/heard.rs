//! One flow's dialogue: what the stream hands out goes to the witness, and what that makes of it to the observer.

use std::sync::Arc;

use super::Settings;
use crate::addr::{ClientAddr, Family, OriginalDst, Side};
use crate::engine::{Observe, Output, Said, SessionRecord, TcpFacts, Witness};
use crate::smtp::Reply;
use crate::stream::{Conversation, FlowStart};
use crate::time::Timestamp;

pub(super) struct Heard {
    witness: Witness,
    family: Family,
    output: Output,
    observer: Arc<dyn Observe>,
}

impl Heard {
    pub(super) fn new(start: &FlowStart, settings: &Settings, keep: bool) -> Self {
        let client = ClientAddr::new(start.client);
        let server = OriginalDst::new(start.server);
        let profile = Arc::clone(&settings.profile);
        let mut witness = Witness::new(profile, client, server, start.at, start.midstream);
        if keep {
            witness.keep_transcript();
        }
        Self {
            witness,
            family: client.family(),
            output: Output::default(),
            observer: Arc::clone(&settings.observer),
        }
    }

    pub(super) fn finish(mut self, tcp: TcpFacts, at: Timestamp) -> (SessionRecord, Vec<Said>) {
        let record = self.witness.finish(tcp, at, &mut self.output);
        self.tell();
        (record, self.witness.take_transcript())
    }

    fn tell(&mut self) {
        for event in self.output.events.drain(..) {
            self.observer.event(self.family, event);
        }
    }
}

impl Conversation for Heard {
    fn data(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        self.witness.data(from, octets, at, &mut self.output);
        self.tell();
    }

    fn gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.witness.gap(from, length, at, &mut self.output);
        self.tell();
    }

    fn closed(&mut self, from: Side, at: Timestamp) {
        self.witness.closed(from, at, &mut self.output);
        self.tell();
    }
}

/// What an SMTP server opens with: 220 or 554 (RFC 5321 §3.1), 421 or 521 when it has no time (RFC 7504). FTP's 220 looks
/// the same but for the word that RFC 5321 §4.2 does not demand and every MTA says.
pub(super) fn is_greeting(reply: &Reply<'_>) -> bool {
    let says = |word: &[u8]| {
        reply.texts().any(|text| text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word)))
    };
    matches!(reply.code, 220 | 421 | 521 | 554) && says(b"SMTP")
}
