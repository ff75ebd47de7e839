//! The SMTP session of one flow: its stream goes to a passive observer, the observer's events to the configured sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::settings::AnalyzerSettings;
use crate::addr::{ClientAddr, Family, OriginalDst, Side};
use crate::engine::{Observe, Observer, Output, SessionRecord, TcpFacts, TranscriptEntry};
use crate::smtp::Reply;
use crate::stream::{FlowHandler, FlowStart};
use crate::time::Timestamp;

/// Bytes that the observers of all flows buffer together: incomplete lines and replies, and commands without a reply.
#[derive(Clone, Debug, Default)]
pub(super) struct HeldBytes(Arc<AtomicUsize>);

impl HeldBytes {
    pub(super) fn total(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

pub(super) struct FlowSession {
    observer: Observer,
    /// This flow's share of `all_held`.
    held: usize,
    all_held: HeldBytes,
    /// Bound on `all_held`.
    limit: usize,
    family: Family,
    output: Output,
    sink: Arc<dyn Observe>,
}

impl FlowSession {
    pub(super) fn new(
        start: &FlowStart,
        listener: Option<&str>,
        settings: &AnalyzerSettings,
        all_held: HeldBytes,
        keep_transcript: bool,
    ) -> Self {
        let client = ClientAddr::new(start.client);
        let server = OriginalDst::new(start.server);
        let profile = Arc::clone(settings.profiles.of(listener, start.server));
        let mut observer = Observer::new(profile, client, server, start.at, start.midstream);
        if keep_transcript {
            observer.keep_transcript();
        }
        Self {
            observer,
            held: 0,
            all_held,
            limit: settings.limits.held,
            family: client.family(),
            output: Output::default(),
            sink: Arc::clone(&settings.observer),
        }
    }

    pub(super) fn finish(
        mut self,
        tcp: TcpFacts,
        at: Timestamp,
    ) -> (SessionRecord, Vec<TranscriptEntry>) {
        let record = self.observer.finish(tcp, at, &mut self.output);
        self.publish_events();
        let transcript = self.observer.take_transcript();
        (record, transcript)
    }

    /// Keeps the total within its bound: the flow that grows beyond it gives up its buffers.
    fn limit_held(&mut self, at: Timestamp) {
        let before = self.held;
        self.update_held();
        if self.held > before && self.all_held.total() > self.limit {
            self.observer.drop_held(at, &mut self.output);
            self.update_held();
        }
    }

    fn update_held(&mut self) {
        let now = self.observer.held_bytes();
        if now != self.held {
            self.all_held.0.fetch_add(now.wrapping_sub(self.held), Ordering::Relaxed);
            self.held = now;
        }
    }

    fn publish_events(&mut self) {
        for event in self.output.events.drain(..) {
            self.sink.event(self.family, event);
        }
    }
}

impl Drop for FlowSession {
    fn drop(&mut self) {
        self.all_held.0.fetch_sub(self.held, Ordering::Relaxed);
    }
}

impl FlowHandler for FlowSession {
    fn on_data(&mut self, from: Side, bytes: &[u8], at: Timestamp) {
        self.observer.on_data(from, bytes, at, &mut self.output);
        self.limit_held(at);
        self.publish_events();
    }

    fn on_gap(&mut self, from: Side, length: u64, at: Timestamp) {
        self.observer.on_gap(from, length, at, &mut self.output);
        self.limit_held(at);
        self.publish_events();
    }

    fn on_omitted(&mut self, from: Side, length: u64, at: Timestamp) {
        self.observer.on_omitted(from, length, at, &mut self.output);
        self.limit_held(at);
        self.publish_events();
    }

    fn on_close(&mut self, from: Side, at: Timestamp) {
        self.observer.on_closed(from, at, &mut self.output);
        self.publish_events();
    }
}

/// Whether a reply is an SMTP greeting: 220 or 554 (RFC 5321 §3.1), or 421 or 521 from a server that takes no mail now
/// (RFC 7504). FTP sends 220 as well, so the text must contain "SMTP", which RFC 5321 §4.2 does not demand and every MTA
/// sends.
pub(super) fn is_greeting(reply: &Reply<'_>) -> bool {
    let contains = |word: &[u8]| {
        reply.texts().any(|text| text.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word)))
    };
    matches!(reply.code, 220 | 421 | 521 | 554) && contains(b"SMTP")
}
