//! One flow's dialogue: what the stream hands out goes to the witness, and what that makes of it to the observer.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Settings;
use crate::addr::{ClientAddr, Family, OriginalDst, Side};
use crate::engine::{Observe, Observer, Output, SessionRecord, TcpFacts, TranscriptEntry};
use crate::smtp::Reply;
use crate::stream::{Conversation, FlowStart};
use crate::time::Timestamp;

/// Octets that all witnesses together hold: lines and replies that are not whole, and what waits for a reply.
#[derive(Clone, Debug, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Held {
    pub(super) fn octets(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct Heard {
    witness: Observer,
    /// What this one holds, and where that is counted.
    holds: usize,
    held: Held,
    limit: usize,
    family: Family,
    output: Output,
    observer: Arc<dyn Observe>,
}

impl Heard {
    pub(super) fn new(start: &FlowStart, settings: &Settings, held: Held, keep: bool) -> Self {
        let client = ClientAddr::new(start.client);
        let server = OriginalDst::new(start.server);
        let profile = Arc::clone(&settings.profile);
        let mut witness = Observer::new(profile, client, server, start.at, start.midstream);
        if keep {
            witness.keep_transcript();
        }
        Self {
            witness,
            holds: 0,
            held,
            limit: settings.limits.held,
            family: client.family(),
            output: Output::default(),
            observer: Arc::clone(&settings.observer),
        }
    }

    pub(super) fn finish(
        mut self,
        tcp: TcpFacts,
        at: Timestamp,
    ) -> (SessionRecord, Vec<TranscriptEntry>) {
        let record = self.witness.finish(tcp, at, &mut self.output);
        self.tell();
        let transcript = self.witness.take_transcript();
        (record, transcript)
    }

    /// Who grows where all hold too much lets go.
    fn account(&mut self, at: Timestamp) {
        let before = self.holds;
        self.count();
        if self.holds > before && self.held.octets() > self.limit {
            self.witness.give_up(at, &mut self.output);
            self.count();
        }
    }

    fn count(&mut self) {
        let now = self.witness.held();
        if now != self.holds {
            self.held.0.fetch_add(now.wrapping_sub(self.holds), Ordering::Relaxed);
            self.holds = now;
        }
    }

    fn tell(&mut self) {
        for event in self.output.events.drain(..) {
            self.observer.event(self.family, event);
        }
    }
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.held.0.fetch_sub(self.holds, Ordering::Relaxed);
    }
}

impl Conversation for Heard {
    fn data(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        self.witness.data(from, octets, at, &mut self.output);
        self.account(at);
        self.tell();
    }

    fn gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.witness.gap(from, length, at, &mut self.output);
        self.account(at);
        self.tell();
    }

    fn omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        self.witness.omitted(from, length, at, &mut self.output);
        self.account(at);
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
