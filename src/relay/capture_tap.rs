//! Taps: copies of the bytes of sessions, for attached recorders; they never slow the sessions down.
//!
//! Each tap has a queue that is bounded in bytes. Bytes that do not fit are counted, and reported as omitted once there is
//! room again; a session that begins while its queue is full is not recorded at all, and counted as missed. So a queue holds
//! [`QUEUE`] bytes and, for each session whose beginning it holds, the end and two omissions (less than 1 KiB, and the
//! answers that the policy used: at most [`crate::recording::MAX_ANSWERS`]).
//!
//! Without a tap a session pays one atomic load.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::addr::{ClientAddr, OriginalDst, Side};
use crate::engine::{SessionRecord, TlsState};
use crate::recording::{EndSummary, Frame, FrameBody, Omission, RecordingFilter, encode_data};
use crate::time::Timestamp;

/// Bytes that may wait for one recorder.
const QUEUE: usize = 8 << 20;
/// Upper bound of a frame's size without its payload, in bytes; the name of a listener fits.
const FRAME: usize = 96;
/// Each tap costs every session that it selects a copy.
const MAX_TAPS: usize = 4;
const FLUSH_POLL: Duration = Duration::from_millis(20);

/// All taps of a relay.
#[derive(Debug, Default)]
pub struct Taps {
    attached: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
    /// Sessions recorded so far; the number of the next.
    sessions: AtomicU64,
    dropped_bytes: AtomicU64,
}

/// As many recorders are attached as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_TAPS} recorders are attached already; stop one of them")]
pub struct TooManyTaps;

impl Taps {
    /// Attaches a tap to the sessions that begin from now on and match `filter`.
    ///
    /// # Errors
    /// The maximum is attached already.
    pub fn attach(self: &Arc<Self>, filter: RecordingFilter) -> Result<Tap, TooManyTaps> {
        self.attach_with(filter, QUEUE)
    }

    fn attach_with(
        self: &Arc<Self>,
        filter: RecordingFilter,
        limit: usize,
    ) -> Result<Tap, TooManyTaps> {
        let mut queues = self.lock();
        if queues.len() >= MAX_TAPS {
            return Err(TooManyTaps);
        }
        let queue = Arc::new(Queue { filter, limit, state: Mutex::default(), wake: Notify::new() });
        queues.push(Arc::clone(&queue));
        self.attached.store(queues.len(), Ordering::Relaxed);
        Ok(Tap { taps: Arc::clone(self), queue, batch: Vec::new() })
    }

    /// Bytes dropped because a recorder was too slow.
    pub fn dropped_bytes(&self) -> u64 {
        self.dropped_bytes.load(Ordering::Relaxed)
    }

    /// Waits until recorders took everything, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.lock().iter().any(|queue| queue.lock().len() > 0) && Instant::now() < deadline {
            sleep(FLUSH_POLL).await;
        }
    }

    /// The taps of a session that begins.
    pub(super) fn begin(
        self: &Arc<Self>,
        listener: &Arc<str>,
        client: ClientAddr,
        destination: OriginalDst,
        at: Timestamp,
    ) -> SessionTap {
        if self.attached.load(Ordering::Relaxed) == 0 {
            return SessionTap::default();
        }
        let (client, server) = (client.socket(), destination.socket());
        let begin = FrameBody::Begin { client, server, listener: Arc::clone(listener) };
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let queues = self.lock();
        let selected = queues.iter().filter(|queue| queue.filter.matches(client));
        let frame = Frame { session, at, body: begin };
        let writers = selected.filter_map(|queue| TapWriter::begin(self, queue, &frame));
        SessionTap(writers.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reading end of a tap; dropping it detaches the tap.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
    /// The batch returned last: counted as queued until the next call.
    batch: Vec<u8>,
}

impl Tap {
    /// Waits for the next encoded frames, one or many.
    pub async fn next(&mut self) -> &[u8] {
        loop {
            if self.queue.take(&mut self.batch) {
                return &self.batch;
            }
            self.queue.wake.notified().await;
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut queues = self.taps.lock();
        queues.retain(|queue| !Arc::ptr_eq(queue, &self.queue));
        self.taps.attached.store(queues.len(), Ordering::Relaxed);
        drop(queues);
        *self.queue.lock() = QueueState { detached: true, ..QueueState::default() };
    }
}

#[derive(Debug)]
struct Queue {
    filter: RecordingFilter,
    limit: usize,
    state: Mutex<QueueState>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct QueueState {
    /// Encoded frames.
    frames: Vec<u8>,
    /// Bytes handed to the recorder's task but not yet confirmed written.
    unconfirmed: usize,
    /// Number of sessions that found no room, and time of the last.
    missed: (u64, Timestamp),
    detached: bool,
}

impl QueueState {
    const fn len(&self) -> usize {
        self.frames.len() + self.unconfirmed
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the queued frames to `batch`, and confirms its former content. Returns whether there were any.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        let mut state = self.lock();
        let (sessions, at) = std::mem::take(&mut state.missed);
        if sessions > 0 {
            Frame { session: 0, at, body: FrameBody::Missed { sessions } }
                .encode(&mut state.frames);
        }
        std::mem::swap(&mut state.frames, batch);
        state.unconfirmed = batch.len();
        !batch.is_empty()
    }

    /// Lets `write` append frames if there is room for `size` more bytes. Returns whether there was.
    fn push(&self, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        if state.detached {
            return true;
        }
        if state.len().saturating_add(size) > self.limit {
            return false;
        }
        let was_empty = state.frames.is_empty();
        write(&mut state.frames);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        true
    }
}

/// The taps of one session: none, as a rule.
#[derive(Debug, Default)]
pub(super) struct SessionTap(Vec<TapWriter>);

impl SessionTap {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether bytes must be read where they could be spliced.
    pub(super) fn wants_content(&self) -> bool {
        self.0.iter().any(|writer| writer.queue.filter.content)
    }

    pub(super) fn on_bytes(&mut self, from: Side, bytes: &[u8], at: Timestamp) {
        if !bytes.is_empty() {
            self.0.iter_mut().for_each(|writer| writer.on_bytes(from, bytes, at));
        }
    }

    /// Reports `count` bytes that passed by splice.
    pub(super) fn on_spliced(&mut self, from: Side, count: u64, at: Timestamp) {
        if count > 0 {
            self.0.iter_mut().for_each(|writer| writer.on_spliced(from, count, at));
        }
    }

    pub(super) fn on_client_closed(&mut self, at: Timestamp) {
        self.0.iter_mut().for_each(|writer| writer.push_always(at, FrameBody::ClientClosed));
    }

    /// `answers`: the answers that the policy used, as JSON.
    pub(super) fn on_end(
        &mut self,
        reset: bool,
        record: &SessionRecord,
        answers: Option<String>,
        at: Timestamp,
    ) {
        for mut writer in self.0.drain(..) {
            let ending = EndSummary {
                verdict: record.verdict.action.to_string(),
                rule: record.verdict.rule.clone(),
                reason: record.verdict.reason.clone(),
                outcome: record.outcome.to_string(),
                decrypted: (record.smtp.tls == TlsState::Established)
                    .then(|| record.smtp.tls_version.unwrap_or("TLS").to_owned()),
                answers: answers.clone(),
            };
            writer.push_always(at, FrameBody::End { reset, summary: ending });
        }
    }
}

/// Writes one session to one tap.
#[derive(Debug)]
struct TapWriter {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
    session: u64,
    /// By side: bytes dropped since the last frame that fitted, and time of the last.
    dropped: [(u64, Timestamp); 2],
}

impl TapWriter {
    fn begin(taps: &Arc<Taps>, queue: &Arc<Queue>, frame: &Frame) -> Option<Self> {
        let (session, at) = (frame.session, frame.at);
        if !queue.push(FRAME, |out| frame.encode(out)) {
            let mut state = queue.lock();
            state.missed = (state.missed.0 + 1, at);
            return None;
        }
        let (taps, queue) = (Arc::clone(taps), Arc::clone(queue));
        Some(Self { taps, queue, session, dropped: Default::default() })
    }

    fn on_bytes(&mut self, from: Side, bytes: &[u8], at: Timestamp) {
        let (session, dropped) = (self.session, &mut self.dropped);
        let fits = self.queue.push(bytes.len() + 3 * FRAME, |out| {
            encode_dropped(dropped, session, out);
            encode_data(out, session, at, from, bytes);
        });
        if !fits {
            let count = bytes.len() as u64;
            self.taps.dropped_bytes.fetch_add(count, Ordering::Relaxed);
            self.drop_bytes(from, count, at);
        }
    }

    fn on_spliced(&mut self, from: Side, count: u64, at: Timestamp) {
        let body = FrameBody::Omitted { from, count, reason: Omission::Uninspected };
        let frame = Frame { session: self.session, at, body };
        let (session, dropped) = (self.session, &mut self.dropped);
        let fits = self.queue.push(3 * FRAME, |out| {
            encode_dropped(dropped, session, out);
            frame.encode(out);
        });
        if !fits {
            self.drop_bytes(from, count, at);
        }
    }

    fn drop_bytes(&mut self, from: Side, count: u64, at: Timestamp) {
        if let Some((sum, last)) = self.dropped.get_mut(from.index()) {
            *sum += count;
            *last = at;
        }
    }

    /// Queues a frame whether or not there is room: one that a session must not end without; small, and once a session.
    fn push_always(&mut self, at: Timestamp, body: FrameBody) {
        let frame = Frame { session: self.session, at, body };
        let mut state = self.queue.lock();
        if state.detached {
            return;
        }
        encode_dropped(&mut self.dropped, self.session, &mut state.frames);
        frame.encode(&mut state.frames);
        drop(state);
        self.queue.wake.notify_one();
    }
}

/// Encodes the bytes dropped so far as omitted, and resets their count.
fn encode_dropped(dropped: &mut [(u64, Timestamp); 2], session: u64, out: &mut Vec<u8>) {
    for (from, (count, at)) in Side::ALL.into_iter().zip(dropped) {
        let count = std::mem::take(count);
        if count > 0 {
            let body = FrameBody::Omitted { from, count, reason: Omission::Overflow };
            Frame { session, at: *at, body }.encode(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::recording::FrameDecoder;

    fn client(addr: &str) -> ClientAddr {
        ClientAddr::new(addr.parse().unwrap())
    }

    fn begin(taps: &Arc<Taps>) -> SessionTap {
        let destination = OriginalDst::new("192.0.2.25:25".parse().unwrap());
        taps.begin(&"mx".into(), client("192.0.2.1:1000"), destination, Timestamp::from_nanos(1))
    }

    fn queued(tap: &mut Tap) -> Vec<FrameBody> {
        let mut decoder = FrameDecoder::default();
        while let Some(bytes) = tap.next().now_or_never() {
            decoder.push(bytes);
        }
        std::iter::from_fn(|| decoder.next_frame().unwrap()).map(|frame| frame.body).collect()
    }

    #[test]
    fn only_selected_sessions_are_tapped() {
        let taps = Arc::new(Taps::default());
        assert!(begin(&taps).is_empty());
        let family = Some(crate::addr::Family::Ipv6);
        let mut tap = taps.attach(RecordingFilter { family, ..Default::default() }).unwrap();
        assert!(begin(&taps).is_empty());
        assert_eq!(queued(&mut tap), []);
    }

    #[test]
    fn bytes_that_do_not_fit_are_reported_as_omitted() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), 1000).unwrap();
        let mut session = begin(&taps);
        let at = Timestamp::from_nanos(5);
        session.on_bytes(Side::Client, &[b'a'; 600], at);
        session.on_bytes(Side::Client, &[b'b'; 600], at);
        session.on_bytes(Side::Server, &[b'c'; 700], at);
        session.on_bytes(Side::Client, &[b'd'; 500], at);
        assert_eq!(taps.dropped_bytes(), 600 + 700 + 500);

        let frames = queued(&mut slow);
        assert!(
            matches!(frames.as_slice(), [FrameBody::Begin { .. }, FrameBody::Data { .. }]),
            "{frames:?}"
        );
        session.on_bytes(Side::Server, b"e", at);
        let omitted = |from, count| FrameBody::Omitted { from, count, reason: Omission::Overflow };
        assert_eq!(
            queued(&mut slow),
            [
                omitted(Side::Client, 1100),
                omitted(Side::Server, 700),
                FrameBody::Data { from: Side::Server, bytes: b"e".to_vec() }
            ]
        );
    }

    #[test]
    fn a_batch_counts_as_queued_until_the_next_call() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), 1000).unwrap();
        let mut session = begin(&taps);
        session.on_bytes(Side::Client, &[b'a'; 600], Timestamp::default());
        assert!(slow.next().now_or_never().is_some());
        session.on_bytes(Side::Client, &[b'b'; 600], Timestamp::default());
        assert_eq!(taps.dropped_bytes(), 600);
    }

    #[test]
    fn a_session_that_finds_no_room_is_counted_as_missed() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), FRAME).unwrap();
        let _first = begin(&taps);
        assert!(begin(&taps).is_empty());
        assert!(begin(&taps).is_empty());
        let frames = queued(&mut slow);
        assert!(
            matches!(
                frames.as_slice(),
                [FrameBody::Begin { .. }, FrameBody::Missed { sessions: 2 }]
            ),
            "{frames:?}"
        );
    }

    #[test]
    fn dropping_a_tap_detaches_it() {
        let taps = Arc::new(Taps::default());
        let all: Vec<Tap> =
            (0..MAX_TAPS).map(|_| taps.attach(RecordingFilter::default()).unwrap()).collect();
        assert_eq!(taps.attach(RecordingFilter::default()).unwrap_err(), TooManyTaps);
        let mut session = begin(&taps);
        drop(all);
        session.on_bytes(Side::Client, &vec![0; QUEUE * 2], Timestamp::default());
        assert_eq!(taps.dropped_bytes(), 0);
        assert!(begin(&taps).is_empty());
    }
}
