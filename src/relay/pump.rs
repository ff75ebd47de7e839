//! The pump: moves bytes between the two sockets of a session as its engine directs.
//!
//! One task, two sockets. Each read goes to a buffer of the thread; the engine examines it there, and it is written from
//! there. Only bytes that the engine did not consume, or that a socket did not accept, are kept with the session, so an idle
//! session holds no buffer. Backpressure: while one side does not accept its output, the other side is not read; and while
//! the engine waits (for the greeting, a lookup, a reply) about one line of the client is read, not more.

mod tls;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use memchr::memchr;
use socket2::SockRef;
use tokio::time::{Instant, Sleep, sleep_until};

use super::capture_tap::SessionTap;
use super::clock::RelayClock;
use super::endpoint::{BULK, Read, RelayEndpoint};
use super::failed_handshakes::FailedHandshakes;
use super::lookups::PendingLookups;
use super::stream::RelayStream;
use super::tls::ClientTls;
use super::upstream_tls::UpstreamTlsPlan;
use crate::addr::{ClientAddr, Family};
use crate::engine::{Action, Event, Observe, Outcome, Output, Proxy, Side};
use crate::policy::facts::Answers;
use crate::time::Timestamp;

/// Size of a read of bulk data, in bytes.
const READ: usize = 64 * 1024;
/// Size of a read of the client otherwise: bounds what is left over if the engine stops consuming within it.
const SMALL_READ: usize = 16 * 1024;
/// Bytes of upstream that may wait for the engine: the longest reply fits.
const MAX_UPSTREAM_BACKLOG: usize = 128 * 1024;
/// RFC 4954 §4: the longest line of an AUTH exchange.
const AUTH_LINE: usize = 12_288;
/// Time for the client to read the last reply.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// Buffers of a thread, shared by its sessions. Cleared before each engine call, so a session that panics leaves nothing
/// to the next.
struct Scratch {
    input: Box<[u8]>,
    work: Work,
}

/// Output of one engine call.
#[derive(Default)]
struct Work {
    out: Output,
    to_client: Vec<u8>,
    to_upstream: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        RefCell::new(Scratch { input: vec![0; READ].into_boxed_slice(), work: Work::default() });
}

/// A session's engine between its two sockets.
pub(super) struct Pump {
    engine: Proxy,
    observer: Arc<dyn Observe>,
    tap: SessionTap,
    lookups: PendingLookups,
    clock: RelayClock,
    /// `limits.line_length`, in bytes.
    line_length: usize,
    /// For STARTTLS, if the gateway answers it.
    tls: Option<Arc<ClientTls>>,
    /// With `tls.after_failures = "hide"`.
    failed_handshakes: Option<Arc<FailedHandshakes>>,
    address: ClientAddr,
    client: RelayEndpoint,
    upstream: Option<RelayEndpoint>,
    /// For the gateway's own STARTTLS.
    upstream_tls: Option<UpstreamTlsPlan>,
    timer: Pin<Box<Sleep>>,
    /// When `timer` fires: never after the deadline, possibly before it.
    timer_at: Timestamp,
    /// When the session ends even if the client has not read the last reply.
    last_reply_deadline: Option<Timestamp>,
    recorded: bool,
}

/// The parts of a session that its pump needs.
pub(super) struct PumpParts {
    pub(super) engine: Proxy,
    pub(super) address: ClientAddr,
    pub(super) observer: Arc<dyn Observe>,
    pub(super) tap: SessionTap,
    pub(super) lookups: PendingLookups,
    pub(super) clock: RelayClock,
    pub(super) line_length: usize,
    pub(super) tls: Option<Arc<ClientTls>>,
    pub(super) failed_handshakes: Option<Arc<FailedHandshakes>>,
    pub(super) client: RelayEndpoint,
}

impl Pump {
    pub(super) fn new(parts: PumpParts) -> Self {
        let PumpParts {
            engine,
            address,
            observer,
            tap,
            lookups,
            clock,
            line_length,
            tls,
            failed_handshakes,
            client,
        } = parts;
        let timer_at = engine.deadline().unwrap_or_default();
        let timer = Box::pin(sleep_until(Instant::from_std(clock.instant(timer_at))));
        Self {
            engine,
            observer,
            tap,
            lookups,
            clock,
            line_length,
            tls,
            failed_handshakes,
            address,
            client,
            upstream: None,
            upstream_tls: None,
            timer,
            timer_at,
            last_reply_deadline: None,
            recorded: false,
        }
    }

    pub(super) fn set_upstream(&mut self, upstream: RelayEndpoint, tls: Option<UpstreamTlsPlan>) {
        self.upstream = Some(upstream);
        self.upstream_tls = tls;
    }

    pub(super) const fn client(&self) -> &RelayEndpoint {
        &self.client
    }

    /// Calls the engine with an input other than bytes, and applies its actions.
    pub(super) async fn with_engine<T>(
        &mut self,
        call: impl FnOnce(&mut Proxy, Timestamp, &mut Output) -> T,
    ) -> T {
        let mut call = Some(call);
        let result = std::future::poll_fn(|cx| {
            let Some(call) = call.take() else {
                return Poll::Pending;
            };
            Poll::Ready(SCRATCH.with_borrow_mut(|Scratch { work, .. }| {
                let now = self.clock.now();
                work.out.clear();
                let result = call(&mut self.engine, now, &mut work.out);
                self.apply_actions(Side::Client, &[], work, cx);
                result
            }))
        });
        result.await
    }

    /// Feeds the bytes that followed the client's PROXY header: it did not wait for the greeting.
    pub(super) async fn feed_early_data(&mut self) {
        let feed = std::future::poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|Scratch { work, .. }| {
                let now = self.clock.now();
                self.feed_buffered(now, work, cx);
            });
            Poll::Ready(())
        });
        feed.await;
    }

    /// Passes answers to the engine while upstream is being connected. Ready once no upstream is needed any more.
    pub(super) fn poll_without_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|Scratch { work, .. }| while self.poll_answers(work, cx) {});
        if self.engine.needs_upstream() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Passes the answers that are there to the engine. Returns whether there were any.
    fn poll_answers(&mut self, work: &mut Work, cx: &mut Context<'_>) -> bool {
        let answers = self.lookups.poll(cx);
        if answers.is_empty() {
            return false;
        }
        let now = self.clock.now();
        work.out.clear();
        self.engine.on_answers(answers, now, &mut work.out);
        self.apply_actions(Side::Client, &[], work, cx);
        self.feed_after_wait(now, work, cx);
        true
    }

    /// Offers both sides' bytes again after an input that may end a wait.
    fn feed_after_wait(&mut self, now: Timestamp, work: &mut Work, cx: &mut Context<'_>) {
        if self.upstream.is_some() {
            self.feed(Side::Server, &[], now, work, cx); // And the client's.
        } else {
            self.feed_buffered(now, work, cx);
        }
    }

    /// Moves bytes until the session is over and its last reply is written.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| self.poll_with(scratch, cx))
    }

    fn poll_with(&mut self, scratch: &mut Scratch, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.engine.is_closing() {
                self.client.close_tls();
            }
            let mut changed = self.client.flush(cx);
            if let Some(upstream) = &mut self.upstream {
                let progress = upstream.flush(cx);
                let blocked = !upstream.is_flushed();
                if progress || blocked != self.engine.upstream_is_blocked() {
                    self.engine.on_upstream_written(blocked, progress, self.clock.now());
                }
                changed |= progress;
            }
            if self.client.write_failed || (self.engine.is_closing() && self.client.is_flushed()) {
                return Poll::Ready(());
            }
            changed |= self.poll_answers(&mut scratch.work, cx);
            changed |= self.pump_side(Side::Client, scratch, cx);
            changed |= self.pump_side(Side::Server, scratch, cx);
            if !changed && !self.poll_timer(&mut scratch.work, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Reads once from `side` and feeds the engine. Returns whether anything changed.
    fn pump_side(&mut self, side: Side, scratch: &mut Scratch, cx: &mut Context<'_>) -> bool {
        let read = match self.poll_read(side, &mut scratch.input, cx) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(error)) => {
                if let Some(endpoint) = self.endpoint(side) {
                    endpoint.reset = true;
                }
                if let Some(reason) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
                    self.fail_tls(side, reason, &mut scratch.work, cx);
                }
                Read::End
            }
            Poll::Pending => return false,
        };
        let now = self.clock.now();
        let Scratch { input, work } = scratch;
        work.out.clear();
        match read {
            Read::Bytes(count) => {
                let fresh = input.get(..count).unwrap_or_default();
                if side == Side::Client {
                    self.tap.on_bytes(side, fresh, now);
                }
                self.feed(side, fresh, now, work, cx);
            }
            Read::Spliced(count) => {
                self.tap.on_spliced(side, count as u64, now);
                self.engine.on_spliced(side, count as u64, now, &mut work.out);
                self.apply_actions(side, &[], work, cx);
            }
            Read::TlsEstablished(facts) => match side {
                Side::Client => {
                    if let Some(failed) = &self.failed_handshakes {
                        failed.on_success(self.address);
                    }
                    self.engine.on_tls_established(&facts, now, &mut work.out);
                    self.apply_actions(side, &[], work, cx);
                }
                Side::Server => {
                    self.engine.on_upstream_tls_established(&facts, now, &mut work.out);
                    self.apply_actions(side, &[], work, cx);
                    self.feed_after_wait(now, work, cx);
                }
            },
            Read::End => {
                if let Some(endpoint) = self.endpoint(side) {
                    endpoint.read_closed = true;
                }
                if side == Side::Client && !self.client.reset {
                    self.tap.on_client_closed(now);
                }
                if side == Side::Client && self.client.awaits_hello() {
                    self.engine.on_closed_before_hello(&mut work.out);
                } else {
                    self.engine.on_closed(side, &mut work.out);
                }
                self.apply_actions(side, &[], work, cx);
            }
        }
        true
    }

    fn endpoint(&mut self, side: Side) -> Option<&mut RelayEndpoint> {
        match side {
            Side::Client => Some(&mut self.client),
            Side::Server => self.upstream.as_mut(),
        }
    }

    fn poll_read(
        &mut self,
        side: Side,
        input: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Read>> {
        if self.engine.is_closing() {
            return Poll::Pending;
        }
        let splice_budget = self.engine.splice_budget(side);
        let limit = match side {
            Side::Client => self.client_read_limit(splice_budget).min(READ),
            Side::Server => READ,
        };
        let (from, to) = match (side, self.upstream.as_mut()) {
            (Side::Client, upstream) => (&mut self.client, upstream),
            (Side::Server, Some(upstream)) => (upstream, Some(&mut self.client)),
            (Side::Server, None) => return Poll::Pending,
        };
        let blocked = to.as_ref().is_some_and(|to| !to.is_flushed());
        let backlog = from.unconsumed.len();
        if from.read_closed || blocked || limit == 0 || backlog >= MAX_UPSTREAM_BACKLOG {
            return Poll::Pending;
        }
        match to {
            Some(to)
                if from.bulk
                    && backlog == 0
                    && !from.is_tls()
                    && !to.is_tls()
                    && splice_budget >= BULK as u64
                    && !self.tap.wants_content() =>
            {
                from.poll_splice(to, splice_budget, cx)
            }
            _ => from.poll_read(input.get_mut(..limit).unwrap_or_default(), cx),
        }
    }

    /// Bytes to read from the client at once; 0 while the engine has to consume first. Bounds the memory of a session that
    /// waits: to a line, plus [`SMALL_READ`] where the engine stops consuming within a read.
    fn client_read_limit(&self, splice_budget: u64) -> usize {
        let backlog = &self.client.unconsumed;
        if !backlog.is_empty() {
            // Without its end a line is incomplete. With it the engine waits for another event: read no more than a line.
            let is_incomplete = memchr(b'\n', backlog).is_none() && !self.engine.awaits_greeting();
            let most = self.line_length.max(if is_incomplete { AUTH_LINE } else { 0 });
            return most.saturating_sub(backlog.len());
        }
        if self.engine.awaits_greeting() {
            self.line_length
        } else if self.client.filled || splice_budget >= BULK as u64 {
            READ
        } else if self.lookups.is_empty() {
            SMALL_READ
        } else {
            self.line_length
        }
    }

    /// Feeds the engine `fresh` bytes, behind those that it has not consumed yet.
    fn feed(
        &mut self,
        side: Side,
        fresh: &[u8],
        now: Timestamp,
        work: &mut Work,
        cx: &mut Context<'_>,
    ) {
        let Some(endpoint) = self.endpoint(side) else { return };
        let mut backlog = std::mem::take(&mut endpoint.unconsumed);
        let rest = if backlog.is_empty() {
            let consumed = self.feed_engine(side, fresh, now, work, cx);
            fresh.get(consumed..).unwrap_or_default().to_vec()
        } else {
            backlog.extend_from_slice(fresh);
            let consumed = self.feed_engine(side, &backlog, now, work, cx);
            backlog.drain(..consumed);
            backlog
        };
        if let Some(endpoint) = self.endpoint(side) {
            endpoint.filled &= rest.is_empty();
            endpoint.unconsumed = rest;
        }
        if side == Side::Server {
            self.feed_buffered(now, work, cx);
        }
    }

    /// Offers the client's unconsumed bytes again: after a reply the engine may consume them.
    fn feed_buffered(&mut self, now: Timestamp, work: &mut Work, cx: &mut Context<'_>) {
        let mut backlog = std::mem::take(&mut self.client.unconsumed);
        let consumed = self.feed_engine(Side::Client, &backlog, now, work, cx);
        backlog.drain(..consumed);
        self.client.unconsumed = if backlog.is_empty() { Vec::new() } else { backlog };
    }

    /// Returns the number of bytes that the engine consumed.
    fn feed_engine(
        &mut self,
        side: Side,
        input: &[u8],
        now: Timestamp,
        work: &mut Work,
        cx: &mut Context<'_>,
    ) -> usize {
        work.out.clear();
        let consumed = match side {
            Side::Client => self.engine.on_client_data(input, now, &mut work.out),
            Side::Server => self.engine.on_server_data(input, now, &mut work.out),
        };
        self.apply_actions(side, input, work, cx);
        consumed
    }

    /// Applies the engine's actions on `input`, which came from `side`.
    fn apply_actions(&mut self, side: Side, input: &[u8], work: &mut Work, cx: &mut Context<'_>) {
        let Work { out, to_client, to_upstream } = work;
        // The common case, one range to one side, is written from where it was read.
        if let [Action::Forward(range)] = out.actions.as_slice() {
            let bytes = input.get(range.clone()).unwrap_or_default();
            match (side, &mut self.upstream) {
                (Side::Client, Some(upstream)) => upstream.write(bytes, cx),
                (Side::Client, None) => {}
                (Side::Server, _) => self.write_client(bytes, cx),
            }
            out.actions.clear();
        } else {
            to_client.clear();
            to_upstream.clear();
            let (mut discarded, mut starts_tls, mut starts_upstream_tls) = (0, false, false);
            for action in out.actions.drain(..) {
                let other = match side {
                    Side::Client => &mut *to_upstream,
                    Side::Server => &mut *to_client,
                };
                match action {
                    Action::Forward(range) => {
                        other.extend_from_slice(input.get(range).unwrap_or_default());
                    }
                    Action::Insert(bytes) => other.extend_from_slice(bytes),
                    Action::ToClient(bytes) => to_client.extend_from_slice(&bytes),
                    Action::ToUpstream(bytes) => to_upstream.extend_from_slice(&bytes),
                    Action::DiscardClient => discarded += self.discard_client(),
                    Action::StartTls => starts_tls = true,
                    Action::StartUpstreamTls => starts_upstream_tls = true,
                    Action::AvoidUpstreamTls => {
                        if let Some(tls) = &self.upstream_tls {
                            tls.avoid();
                        }
                    }
                    Action::ShutdownClient => self.client.shutdown_requested = true,
                    Action::ShutdownUpstream => {
                        if let Some(upstream) = &mut self.upstream {
                            upstream.shutdown_requested = true;
                        }
                    }
                    Action::AbandonUpstream => {
                        to_upstream.clear();
                        if let Some(upstream) = self.upstream.take() {
                            reset_connection(&upstream.stream);
                        }
                    }
                    Action::MessageDecided(server) => {
                        self.observer.message_decided(self.address, server);
                    }
                    Action::Need(lookups) => {
                        self.client.filled = false;
                        self.lookups.start(lookups);
                    }
                    Action::Close => {}
                }
            }
            self.engine.on_discarded(discarded, out);
            self.write_client(to_client, cx);
            if let Some(upstream) = &mut self.upstream {
                upstream.write(to_upstream, cx);
            }
            if starts_tls {
                self.start_client_tls(out, cx);
            }
            if starts_upstream_tls {
                self.start_upstream_tls(out, cx);
            }
        }
        for message in out.canaries.drain(..) {
            self.observer.canary(&message);
        }
        for event in out.events.drain(..) {
            report(&*self.observer, self.address.family(), &self.engine, event);
        }
        if !out.actions.is_empty() {
            self.apply_actions(side, &[], work, cx); // Of a failed start of TLS.
        }
    }

    fn write_client(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if !self.tap.is_empty() && !self.client.write_failed {
            self.tap.on_bytes(Side::Server, bytes, self.clock.now());
        }
        self.client.write(bytes, cx);
    }

    /// Calls the engine when its deadline is over. Returns whether it was.
    fn poll_timer(&mut self, work: &mut Work, cx: &mut Context<'_>) -> bool {
        loop {
            let deadline = match self.engine.deadline() {
                Some(deadline) => deadline,
                None => *self
                    .last_reply_deadline
                    .get_or_insert_with(|| self.clock.now() + LAST_REPLY_TIMEOUT),
            };
            if deadline < self.timer_at {
                self.set_timer(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = self.clock.now();
            if now < deadline {
                // The deadline moved since the timer was set.
                self.set_timer(deadline);
                continue;
            }
            if self.engine.is_closing() {
                self.client.write_failed = true;
                return true;
            }
            work.out.clear();
            self.engine.on_timeout(now, &mut work.out);
            self.apply_actions(Side::Client, &[], work, cx);
            self.feed_after_wait(now, work, cx);
            return true;
        }
    }

    fn set_timer(&mut self, at: Timestamp) {
        // One millisecond more: the resolution of tokio's timer.
        let instant = self.clock.instant(at) + Duration::from_millis(1);
        self.timer.as_mut().reset(Instant::from_std(instant));
        self.timer_at = at;
    }

    /// Whether the client may still be sending, so that closing at once would reset the connection before it has read the
    /// last reply. Not after QUIT.
    pub(super) const fn needs_lingering_close(&self) -> bool {
        !self.client.read_closed && !self.client.write_failed && !self.engine.has_quit()
    }

    /// Closes upstream and reports the session to the observer. Does nothing the second time.
    pub(super) fn finish(&mut self) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        self.upstream = None;
        self.lookups.cancel();
        let mut out = Output::default();
        let now = self.clock.now();
        let record = self.engine.finish(now, &mut out);
        for event in out.events {
            report(&*self.observer, self.address.family(), &self.engine, event);
        }
        self.observer.session(&record);
        if !self.tap.is_empty() {
            let reset = self.client.reset || self.client.write_failed;
            self.tap.on_end(reset, &record, answers_json(&self.engine), now);
        }
    }
}

impl Drop for Pump {
    /// A session that panicked or was cut off is reported as well.
    fn drop(&mut self) {
        if !self.recorded {
            // Its output is not sent: the sockets are gone with the task.
            self.engine.abort(Outcome::Error, &mut Output::default());
        }
        self.finish();
    }
}

/// The answers that the policy used, if any.
fn answers_json(engine: &Proxy) -> Option<String> {
    engine.answers().filter(|answers| !answers.is_empty()).map(Answers::to_json)
}

fn report(observer: &dyn Observe, family: Family, engine: &Proxy, event: Event) {
    if let Event::Policy { rule, action, mode } = event
        && let Some(rule) = engine.rule_at(rule)
    {
        observer.policy(family, &rule.name, action, mode);
    }
    observer.event(family, event);
}

/// Closing sends a reset: upstream must not take a partial message for a whole one, and no TIME_WAIT holds our port.
fn reset_connection(stream: &RelayStream) {
    let _already_closed = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests;
