//! The tee: what passes in sessions goes to attached taps as well, and never slows the sessions.
//!
//! Each recorder has a queue that is bounded in octets. What does not fit is counted, and told as omitted once there is
//! room again; a session that begins without room is not recorded at all, and counted. So a queue holds [`QUEUE`] octets
//! and, for each session that it told the beginning of, the end and two omissions (below 1 KiB, and what the policy was
//! answered: at most [`crate::recording::MAX_ANSWERS`]).
//!
//! Without a recorder a session pays one atomic load.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::addr::{ClientAddr, OriginalDst, Side};
use crate::engine::SessionRecord;
use crate::recording::{EndSummary, Frame, FrameBody, Omission, RecordingFilter, encode_data};
use crate::time::Timestamp;

/// Octets that may wait for one recorder.
const QUEUE: usize = 8 << 20;
/// More than a frame has besides octets that were said.
const FRAME: usize = 64;
/// Taps at once: each costs every recorded session a copy.
const MOST: usize = 4;
/// How often it is looked whether taps have everything.
const LOOK: Duration = Duration::from_millis(20);

/// All taps of a relay.
#[derive(Debug, Default)]
pub struct Taps {
    attached: AtomicUsize,
    queues: Mutex<Vec<Arc<Queue>>>,
    /// Sessions recorded so far; the number of the next.
    sessions: AtomicU64,
    overflowed: AtomicU64,
}

/// There are as many taps as there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MOST} taps are attached already; end one of them")]
pub struct TooManyTaps;

impl Taps {
    /// Sessions that begin from now on, and that `selection` takes, are told to the new recorder.
    ///
    /// # Errors
    /// There are as many as there may be.
    pub fn attach(self: &Arc<Self>, selection: RecordingFilter) -> Result<Tap, TooManyTaps> {
        self.attach_with(selection, QUEUE)
    }

    fn attach_with(
        self: &Arc<Self>,
        selection: RecordingFilter,
        limit: usize,
    ) -> Result<Tap, TooManyTaps> {
        let mut queues = self.lock();
        if queues.len() >= MOST {
            return Err(TooManyTaps);
        }
        let queue =
            Arc::new(Queue { selection, limit, state: Mutex::default(), wake: Notify::new() });
        queues.push(Arc::clone(&queue));
        self.attached.store(queues.len(), Ordering::Relaxed);
        Ok(Tap { taps: Arc::clone(self), queue, batch: Vec::new() })
    }

    /// Octets that taps did not get because they were too slow.
    pub fn dropped_bytes(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// Waits until taps were given everything, or `patience` is over.
    pub async fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.lock().iter().any(|queue| queue.lock().waiting() > 0)
            && Instant::now() < deadline
        {
            sleep(LOOK).await;
        }
    }

    /// The tap of a session that begins.
    pub(super) fn begin(
        self: &Arc<Self>,
        client: ClientAddr,
        destination: OriginalDst,
        at: Timestamp,
    ) -> SessionTap {
        if self.attached.load(Ordering::Relaxed) == 0 {
            return SessionTap::default();
        }
        let (client, server) = (client.socket(), destination.socket());
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        let queues = self.lock();
        let taking = queues.iter().filter(|queue| queue.selection.matches(client));
        let tap =
            taking.filter_map(|queue| TapWriter::begin(self, queue, session, client, server, at));
        SessionTap(tap.collect())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One recorder's end of the tee; dropped, it is detached.
#[derive(Debug)]
pub struct Tap {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
    /// What was given last, and is taken to be on its way until more is asked for.
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
        *self.queue.lock() = State { detached: true, ..State::default() };
    }
}

#[derive(Debug)]
struct Queue {
    selection: RecordingFilter,
    limit: usize,
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Encoded frames.
    octets: Vec<u8>,
    /// Taken, and perhaps not yet with the recorder.
    on_their_way: usize,
    /// Sessions that found no room, and when the last did.
    missed: (u64, Timestamp),
    detached: bool,
}

impl State {
    const fn waiting(&self) -> usize {
        self.octets.len() + self.on_their_way
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts what is there into `batch`, whose octets are done with. Returns whether there is anything.
    fn take(&self, batch: &mut Vec<u8>) -> bool {
        batch.clear();
        let mut state = self.lock();
        let (sessions, at) = std::mem::take(&mut state.missed);
        if sessions > 0 {
            Frame { session: 0, at, body: FrameBody::Missed { sessions } }
                .encode(&mut state.octets);
        }
        std::mem::swap(&mut state.octets, batch);
        state.on_their_way = batch.len();
        !batch.is_empty()
    }

    /// Lets `write` append frames if there is room for `size` octets more. Returns whether there was.
    fn push(&self, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        if state.detached {
            return true;
        }
        if state.waiting().saturating_add(size) > self.limit {
            return false;
        }
        let was_empty = state.octets.is_empty();
        write(&mut state.octets);
        drop(state);
        if was_empty {
            self.wake.notify_one();
        }
        true
    }
}

/// What one session tells: to nobody, as a rule.
#[derive(Debug, Default)]
pub(super) struct SessionTap(Vec<TapWriter>);

impl SessionTap {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether octets must be read where they could be passed unseen.
    pub(super) fn want_content(&self) -> bool {
        self.0.iter().any(|tape| tape.queue.selection.content)
    }

    pub(super) fn said(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        if !octets.is_empty() {
            self.0.iter_mut().for_each(|tape| tape.said(from, octets, at));
        }
    }

    /// Octets that were passed on by splice.
    pub(super) fn unseen(&mut self, from: Side, count: u64, at: Timestamp) {
        if count > 0 {
            self.0.iter_mut().for_each(|tape| tape.unseen(from, count, at));
        }
    }

    pub(super) fn client_closed(&mut self, at: Timestamp) {
        self.0.iter_mut().for_each(|tape| tape.tell(at, FrameBody::ClientClosed));
    }

    /// `answers`: what the policy decided by, in JSON.
    pub(super) fn end(
        &mut self,
        reset: bool,
        record: &SessionRecord,
        answers: Option<String>,
        at: Timestamp,
    ) {
        for mut tape in self.0.drain(..) {
            let ending = EndSummary {
                verdict: record.verdict.action.to_string(),
                rule: record.verdict.rule.clone(),
                reason: record.verdict.reason.clone(),
                outcome: record.outcome.to_string(),
                answers: answers.clone(),
            };
            tape.tell(at, FrameBody::End { reset, summary: ending });
        }
    }
}

/// What one session tells one recorder.
#[derive(Debug)]
struct TapWriter {
    taps: Arc<Taps>,
    queue: Arc<Queue>,
    session: u64,
    /// Octets that found no room, by side, and when the last did.
    overflow: [(u64, Timestamp); 2],
}

impl TapWriter {
    fn begin(
        taps: &Arc<Taps>,
        queue: &Arc<Queue>,
        session: u64,
        client: SocketAddr,
        server: SocketAddr,
        at: Timestamp,
    ) -> Option<Self> {
        let frame = Frame { session, at, body: FrameBody::Begin { client, server } };
        if !queue.push(FRAME, |out| frame.encode(out)) {
            let mut state = queue.lock();
            state.missed = (state.missed.0 + 1, at);
            return None;
        }
        let (taps, queue) = (Arc::clone(taps), Arc::clone(queue));
        Some(Self { taps, queue, session, overflow: Default::default() })
    }

    fn said(&mut self, from: Side, octets: &[u8], at: Timestamp) {
        let session = self.session;
        let overflow = &mut self.overflow;
        let fits = self.queue.push(octets.len() + 3 * FRAME, |out| {
            told(overflow, session, out);
            encode_data(out, session, at, from, octets);
        });
        if !fits {
            let count = octets.len() as u64;
            self.taps.overflowed.fetch_add(count, Ordering::Relaxed);
            self.overflows(from, count, at);
        }
    }

    fn unseen(&mut self, from: Side, count: u64, at: Timestamp) {
        let body = FrameBody::Omitted { from, count, reason: Omission::Uninspected };
        let frame = Frame { session: self.session, at, body };
        let (session, overflow) = (self.session, &mut self.overflow);
        let fits = self.queue.push(3 * FRAME, |out| {
            told(overflow, session, out);
            frame.encode(out);
        });
        if !fits {
            self.overflows(from, count, at);
        }
    }

    fn overflows(&mut self, from: Side, count: u64, at: Timestamp) {
        if let Some((sum, last)) = self.overflow.get_mut(from.index()) {
            *sum += count;
            *last = at;
        }
    }

    /// What a session must not end without is told whether or not there is room: it is small, and told once a session.
    fn tell(&mut self, at: Timestamp, body: FrameBody) {
        let frame = Frame { session: self.session, at, body };
        let mut state = self.queue.lock();
        if state.detached {
            return;
        }
        told(&mut self.overflow, self.session, &mut state.octets);
        frame.encode(&mut state.octets);
        drop(state);
        self.queue.wake.notify_one();
    }
}

/// Tells what found no room before.
fn told(overflow: &mut [(u64, Timestamp); 2], session: u64, out: &mut Vec<u8>) {
    for (from, (count, at)) in Side::ALL.into_iter().zip(overflow) {
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
        taps.begin(client("192.0.2.1:1000"), destination, Timestamp::from_nanos(1))
    }

    fn told_to(recorder: &mut Tap) -> Vec<FrameBody> {
        let mut framing = FrameDecoder::default();
        while let Some(octets) = recorder.next().now_or_never() {
            framing.push(octets);
        }
        std::iter::from_fn(|| framing.next_frame().unwrap()).map(|frame| frame.body).collect()
    }

    #[test]
    fn nobody_is_told_without_a_recorder_or_of_what_it_did_not_select() {
        let taps = Arc::new(Taps::default());
        assert!(begin(&taps).is_empty());
        let family = Some(crate::addr::Family::Ipv6);
        let mut recorder = taps.attach(RecordingFilter { family, ..Default::default() }).unwrap();
        assert!(begin(&taps).is_empty());
        assert_eq!(told_to(&mut recorder), []);
    }

    #[test]
    fn what_does_not_fit_is_told_as_omitted_and_nothing_waits() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), 1000).unwrap();
        let mut tap = begin(&taps);
        let at = Timestamp::from_nanos(5);
        tap.said(Side::Client, &[b'a'; 600], at);
        tap.said(Side::Client, &[b'b'; 600], at);
        tap.said(Side::Server, &[b'c'; 700], at);
        tap.said(Side::Client, &[b'd'; 500], at);
        assert_eq!(taps.dropped_bytes(), 600 + 700 + 500);

        let told = told_to(&mut slow);
        assert!(
            matches!(told.as_slice(), [FrameBody::Begin { .. }, FrameBody::Data { .. }]),
            "{told:?}"
        );
        tap.said(Side::Server, b"e", at);
        let omitted = |from, count| FrameBody::Omitted { from, count, reason: Omission::Overflow };
        assert_eq!(
            told_to(&mut slow),
            [
                omitted(Side::Client, 1100),
                omitted(Side::Server, 700),
                FrameBody::Data { from: Side::Server, bytes: b"e".to_vec() }
            ]
        );
    }

    #[test]
    fn what_is_on_its_way_counts_until_more_is_asked_for() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), 1000).unwrap();
        let mut tap = begin(&taps);
        tap.said(Side::Client, &[b'a'; 600], Timestamp::default());
        assert!(slow.next().now_or_never().is_some());
        tap.said(Side::Client, &[b'b'; 600], Timestamp::default());
        assert_eq!(taps.dropped_bytes(), 600);
    }

    #[test]
    fn a_session_that_finds_no_room_is_counted_as_missed() {
        let taps = Arc::new(Taps::default());
        let mut slow = taps.attach_with(RecordingFilter::default(), 80).unwrap();
        let _first = begin(&taps);
        assert!(begin(&taps).is_empty());
        assert!(begin(&taps).is_empty());
        let told = told_to(&mut slow);
        assert!(
            matches!(told.as_slice(), [FrameBody::Begin { .. }, FrameBody::Missed { sessions: 2 }]),
            "{told:?}"
        );
    }

    #[test]
    fn a_recorder_that_goes_away_is_forgotten() {
        let taps = Arc::new(Taps::default());
        let all: Vec<Tap> =
            (0..MOST).map(|_| taps.attach(RecordingFilter::default()).unwrap()).collect();
        assert_eq!(taps.attach(RecordingFilter::default()).unwrap_err(), TooManyTaps);
        let mut tap = begin(&taps);
        drop(all);
        tap.said(Side::Client, &vec![0; QUEUE * 2], Timestamp::default());
        assert_eq!(taps.dropped_bytes(), 0);
        assert!(begin(&taps).is_empty());
    }
}
