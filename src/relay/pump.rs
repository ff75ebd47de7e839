//! The pump: moves octets between the two sockets of a session as its engine says.
//!
//! One task, two sockets. Whatever is read lands in a buffer of the thread, is shown to the engine and written on from there;
//! only what the engine did not consume, or a socket did not take, is kept with the session. So an idle session holds no
//! buffer at all. While one side does not take what is due to it, the other is not read.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

use super::capture_tap::SessionTap;
use super::clock::RelayClock;
use super::lookups::PendingLookups;
use super::splice::Pipe;
use crate::addr::Family;
use crate::engine::{Action, Event, Observe, Outcome, Output, Proxy, Side};
use crate::policy::facts::Answers;
use crate::time::Timestamp;

/// Octets read at once.
const READ: usize = 64 * 1024;
/// Octets that may wait for the engine: the longest line and the longest reply fit.
const MAX_HELD: usize = 128 * 1024;
/// Reads of this size make splice worth its system calls.
const BULK: usize = 32 * 1024;
/// How long a client may take to read our last words.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What a thread needs while it pumps, shared by all its sessions. Nothing in it outlives one look at the engine, so a
/// session that panics leaves nothing for the next.
struct Scratch {
    input: Box<[u8]>,
    work: Work,
}

/// What the engine said, on its way to the sockets.
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

/// One of the two sockets.
#[derive(Debug)]
pub(super) struct Endpoint {
    stream: TcpStream,
    /// Read, and not consumed by the engine.
    held: Vec<u8>,
    /// To be written, from `written` on.
    due: Vec<u8>,
    written: usize,
    /// To be written after `due`.
    pipe: Option<Pipe>,
    /// The peer sends no more.
    finished: bool,
    /// The peer takes no more.
    broken: bool,
    /// The peer did not close, it broke the connection.
    reset: bool,
    /// We send no more, once all that is due is written.
    shutdown: bool,
    /// The last read was so large that the next may be spliced.
    bulk: bool,
}

impl Endpoint {
    pub(super) const fn new(stream: TcpStream, held: Vec<u8>, due: Vec<u8>) -> Self {
        Self {
            stream,
            held,
            due,
            written: 0,
            pipe: None,
            finished: false,
            broken: false,
            reset: false,
            shutdown: false,
            bulk: false,
        }
    }

    pub(super) const fn stream(&self) -> &TcpStream {
        &self.stream
    }

    const fn is_idle(&self) -> bool {
        self.due.is_empty() && self.pipe.is_none()
    }

    /// Writes what it can of `bytes` at once and keeps the rest.
    fn write(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        let mut rest = bytes;
        while self.is_idle() && !self.broken && !rest.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) => rest = rest.get(count..).unwrap_or_default(),
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => break,
            }
        }
        if !self.broken {
            self.due.extend_from_slice(rest);
        }
    }

    /// Writes what is due. Returns whether anything changed.
    fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.is_idle() && !self.broken {
            match self.poll_flush(cx) {
                Poll::Ready(Ok(())) => moved = true,
                Poll::Ready(Err(_)) => self.broken = true,
                Poll::Pending => return moved,
            }
        }
        if self.broken && !self.is_idle() {
            (self.due, self.pipe, self.written) = (Vec::new(), None, 0);
            moved = true;
        }
        if self.shutdown && !self.broken {
            self.shutdown = false;
            let _gone_already = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Write);
        }
        moved
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(rest) = self.due.get(self.written..).filter(|rest| !rest.is_empty()) {
            self.written += ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if self.written == self.due.len() {
                (self.due, self.written) = (Vec::new(), 0);
            }
        } else if let Some(pipe) = &mut self.pipe {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_io(Interest::WRITABLE, || pipe.drain(&self.stream)) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => _ = result?,
            }
            if pipe.is_empty()
                && let Some(pipe) = self.pipe.take()
            {
                pipe.give_back();
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// What one attempt to read brought.
enum Read {
    Octets(usize),
    /// Passed on by splice.
    Spliced(usize),
    End,
}

/// A session's engine between its two sockets.
pub(super) struct Pump {
    engine: Proxy,
    family: Family,
    observer: Arc<dyn Observe>,
    tap: SessionTap,
    questions: PendingLookups,
    clock: RelayClock,
    client: Endpoint,
    upstream: Option<Endpoint>,
    timer: Pin<Box<Sleep>>,
    /// When `timer` fires: never after what it stands for, perhaps before.
    timer_at: Timestamp,
    /// When the client must have read our last words.
    last_words: Option<Timestamp>,
    recorded: bool,
}

impl Pump {
    pub(super) fn new(
        engine: Proxy,
        family: Family,
        observer: Arc<dyn Observe>,
        tap: SessionTap,
        questions: PendingLookups,
        clock: RelayClock,
        client: Endpoint,
    ) -> Self {
        let timer_at = engine.deadline().unwrap_or_default();
        let timer = Box::pin(sleep_until(Instant::from_std(clock.instant(timer_at))));
        let (upstream, last_words) = (None, None);
        Self {
            engine,
            family,
            observer,
            tap,
            questions,
            clock,
            client,
            upstream,
            timer,
            timer_at,
            last_words,
            recorded: false,
        }
    }

    pub(super) fn connect(&mut self, upstream: Endpoint) {
        self.upstream = Some(upstream);
    }

    pub(super) const fn client(&self) -> &Endpoint {
        &self.client
    }

    /// Asks the engine something that is not about octets, and does what it says.
    pub(super) async fn tell<T>(
        &mut self,
        ask: impl FnOnce(&mut Proxy, Timestamp, &mut Output) -> T,
    ) -> T {
        let mut ask = Some(ask);
        let answer = std::future::poll_fn(|cx| {
            let Some(ask) = ask.take() else {
                return Poll::Pending;
            };
            Poll::Ready(SCRATCH.with_borrow_mut(|Scratch { work, .. }| {
                let now = self.clock.now();
                work.out.clear();
                let answer = ask(&mut self.engine, now, &mut work.out);
                self.carry_out(Side::Client, &[], work, cx);
                answer
            }))
        });
        answer.await
    }

    /// Shows the engine what the client said right behind its PROXY header: it did not wait for the greeting.
    pub(super) async fn hear_early(&mut self) {
        let heard = std::future::poll_fn(|cx| {
            SCRATCH.with_borrow_mut(|Scratch { work, .. }| {
                let now = self.clock.now();
                self.show_held(now, work, cx);
            });
            Poll::Ready(())
        });
        heard.await;
    }

    /// While an upstream is being connected: tells the engine what is answered. Ready once no upstream is needed any more.
    pub(super) fn poll_without_upstream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|Scratch { work, .. }| while self.poll_answers(work, cx) {});
        if self.engine.needs_upstream() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// Tells the engine what was answered. Returns whether anything was.
    fn poll_answers(&mut self, work: &mut Work, cx: &mut Context<'_>) -> bool {
        let answers = self.questions.poll(cx);
        if answers.is_empty() {
            return false;
        }
        let now = self.clock.now();
        work.out.clear();
        self.engine.on_answers(answers, now, &mut work.out);
        self.carry_out(Side::Client, &[], work, cx);
        self.show_again(now, work, cx);
        true
    }

    /// What waited for the policy may go on.
    fn show_again(&mut self, now: Timestamp, work: &mut Work, cx: &mut Context<'_>) {
        if self.upstream.is_some() {
            self.show(Side::Server, &[], now, work, cx); // And the client's.
        } else {
            self.show_held(now, work, cx);
        }
    }

    /// Moves octets until the conversation is over and the client has read the end of it.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        SCRATCH.with_borrow_mut(|scratch| self.poll_with(scratch, cx))
    }

    fn poll_with(&mut self, scratch: &mut Scratch, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let mut moved = self.client.flush(cx);
            if let Some(upstream) = &mut self.upstream {
                moved |= upstream.flush(cx);
            }
            if self.client.broken || (self.engine.is_closing() && self.client.is_idle()) {
                return Poll::Ready(());
            }
            moved |= self.poll_answers(&mut scratch.work, cx);
            moved |= self.pump(Side::Client, scratch, cx);
            moved |= self.pump(Side::Server, scratch, cx);
            if !moved && !self.poll_timer(&mut scratch.work, cx) {
                return Poll::Pending;
            }
        }
    }

    /// Reads once from `side` and shows it to the engine. Returns whether anything changed.
    fn pump(&mut self, side: Side, scratch: &mut Scratch, cx: &mut Context<'_>) -> bool {
        let read = match self.poll_read(side, &mut scratch.input, cx) {
            Poll::Ready(Ok(read)) => read,
            Poll::Ready(Err(_)) => {
                if let Some(leg) = self.leg(side) {
                    leg.reset = true;
                }
                Read::End
            }
            Poll::Pending => return false,
        };
        let now = self.clock.now();
        let Scratch { input, work } = scratch;
        work.out.clear();
        match read {
            Read::Octets(count) => {
                let fresh = input.get(..count).unwrap_or_default();
                if side == Side::Client {
                    self.tap.said(side, fresh, now);
                }
                self.show(side, fresh, now, work, cx);
            }
            Read::Spliced(count) => {
                self.tap.unseen(side, count as u64, now);
                self.engine.on_spliced(side, count as u64, now, &mut work.out);
                self.carry_out(side, &[], work, cx);
            }
            Read::End => {
                if let Some(leg) = self.leg(side) {
                    leg.finished = true;
                }
                if side == Side::Client && !self.client.reset {
                    self.tap.client_closed(now);
                }
                self.engine.on_closed(side, &mut work.out);
                self.carry_out(side, &[], work, cx);
            }
        }
        true
    }

    fn leg(&mut self, side: Side) -> Option<&mut Endpoint> {
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
        let passable = self.engine.splice_budget(side);
        let (from, to) = match (side, self.upstream.as_mut()) {
            (Side::Client, upstream) => (&mut self.client, upstream),
            (Side::Server, Some(upstream)) => (upstream, Some(&mut self.client)),
            (Side::Server, None) => return Poll::Pending,
        };
        let blocked = to.as_ref().is_some_and(|to| !to.is_idle());
        if from.finished || blocked || from.held.len() >= MAX_HELD {
            return Poll::Pending;
        }
        if let Some(to) = to
            && from.bulk
            && from.held.is_empty()
            && passable >= BULK as u64
            && !self.tap.want_content()
        {
            ready!(from.stream.poll_read_ready(cx))?;
            let mut pipe = Pipe::take()?;
            let moved =
                from.stream.try_io(Interest::READABLE, || pipe.fill(&from.stream, passable));
            return Poll::Ready(match moved {
                Ok(0) => Ok(Read::End),
                Ok(count) => {
                    from.bulk = count >= BULK;
                    to.pipe = Some(pipe);
                    Ok(Read::Spliced(count))
                }
                Err(error) => {
                    pipe.give_back();
                    if error.kind() == io::ErrorKind::WouldBlock {
                        return from.stream.poll_read_ready(cx).map_ok(|()| Read::Spliced(0));
                    }
                    Err(error)
                }
            });
        }
        let mut buffer = ReadBuf::new(input);
        ready!(Pin::new(&mut from.stream).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        from.bulk = count >= BULK;
        Poll::Ready(Ok(if count == 0 { Read::End } else { Read::Octets(count) }))
    }

    /// Shows the engine the octets that were read, behind what it did not consume before.
    fn show(
        &mut self,
        side: Side,
        fresh: &[u8],
        now: Timestamp,
        work: &mut Work,
        cx: &mut Context<'_>,
    ) {
        let Some(leg) = self.leg(side) else { return };
        let mut held = std::mem::take(&mut leg.held);
        let rest = if held.is_empty() {
            let used = self.offer(side, fresh, now, work, cx);
            fresh.get(used..).unwrap_or_default().to_vec()
        } else {
            held.extend_from_slice(fresh);
            let used = self.offer(side, &held, now, work, cx);
            held.drain(..used);
            held
        };
        if let Some(leg) = self.leg(side) {
            leg.held = rest;
        }
        if side == Side::Server {
            self.show_held(now, work, cx);
        }
    }

    /// After a reply the client's octets may be understood that could not be before.
    fn show_held(&mut self, now: Timestamp, work: &mut Work, cx: &mut Context<'_>) {
        let mut held = std::mem::take(&mut self.client.held);
        let used = self.offer(Side::Client, &held, now, work, cx);
        held.drain(..used);
        self.client.held = if held.is_empty() { Vec::new() } else { held };
    }

    fn offer(
        &mut self,
        side: Side,
        input: &[u8],
        now: Timestamp,
        work: &mut Work,
        cx: &mut Context<'_>,
    ) -> usize {
        work.out.clear();
        let used = match side {
            Side::Client => self.engine.on_client_data(input, now, &mut work.out),
            Side::Server => self.engine.on_server_data(input, now, &mut work.out),
        };
        self.carry_out(side, input, work, cx);
        used
    }

    /// Does what the engine said about `input`, which came from `side`.
    fn carry_out(&mut self, side: Side, input: &[u8], work: &mut Work, cx: &mut Context<'_>) {
        let Work { out, to_client, to_upstream } = work;
        // The common case is one range to one side: written from where it was read.
        if let [Action::Forward(range)] = out.actions.as_slice() {
            let bytes = input.get(range.clone()).unwrap_or_default();
            match (side, &mut self.upstream) {
                (Side::Client, Some(upstream)) => upstream.write(bytes, cx),
                (Side::Client, None) => {}
                (Side::Server, _) => self.say(bytes, cx),
            }
        } else {
            to_client.clear();
            to_upstream.clear();
            let mut discarded = 0;
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
                    Action::DiscardClient => discarded += self.discard(),
                    Action::ShutdownClient => self.client.shutdown = true,
                    Action::ShutdownUpstream => {
                        if let Some(upstream) = &mut self.upstream {
                            upstream.shutdown = true;
                        }
                    }
                    Action::AbandonUpstream => {
                        to_upstream.clear();
                        if let Some(upstream) = self.upstream.take() {
                            abandon(&upstream.stream);
                        }
                    }
                    Action::Need(lookups) => self.questions.ask(lookups),
                    Action::Close => {}
                }
            }
            self.engine.on_discarded(discarded, out);
            self.say(to_client, cx);
            if let Some(upstream) = &mut self.upstream {
                upstream.write(to_upstream, cx);
            }
        }
        for event in out.events.drain(..) {
            tell(&*self.observer, self.family, &self.engine, event);
        }
    }

    /// Writes to the client.
    fn say(&mut self, bytes: &[u8], cx: &mut Context<'_>) {
        if !self.tap.is_empty() && !self.client.broken {
            self.tap.said(Side::Server, bytes, self.clock.now());
        }
        self.client.write(bytes, cx);
    }

    /// Throws away what the client sent so far, whether or not it was read. Returns how much.
    fn discard(&mut self) -> usize {
        let mut count = self.client.held.len();
        self.client.held = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(read @ 1..) = self.client.stream.try_read(&mut buffer) {
            let octets = buffer.get(..read).unwrap_or_default();
            self.tap.said(Side::Client, octets, self.clock.now());
            count += read;
        }
        count
    }

    /// Lets the engine know the time if it wants to. Returns whether it did.
    fn poll_timer(&mut self, work: &mut Work, cx: &mut Context<'_>) -> bool {
        loop {
            let deadline = match self.engine.deadline() {
                Some(deadline) => deadline,
                None => *self.last_words.get_or_insert_with(|| self.clock.now() + LAST_WORDS),
            };
            if deadline < self.timer_at {
                self.set_timer(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = self.clock.now();
            if now < deadline {
                // The conversation went on since the timer was set.
                self.set_timer(deadline);
                continue;
            }
            if self.engine.is_closing() {
                self.client.broken = true;
                return true;
            }
            work.out.clear();
            self.engine.on_timeout(now, &mut work.out);
            self.carry_out(Side::Client, &[], work, cx);
            self.show_again(now, work, cx);
            return true;
        }
    }

    fn set_timer(&mut self, at: Timestamp) {
        // A millisecond later than asked: the timer's own resolution.
        let instant = self.clock.instant(at) + Duration::from_millis(1);
        self.timer.as_mut().reset(Instant::from_std(instant));
        self.timer_at = at;
    }

    /// Whether the client may still be sending, and would lose our last words if we just closed. After QUIT it is not.
    pub(super) const fn wants_lingering(&self) -> bool {
        !self.client.finished && !self.client.broken && !self.engine.has_quit()
    }

    /// Closes upstream, and tells the observer how it all went.
    pub(super) fn record(&mut self) {
        if std::mem::replace(&mut self.recorded, true) {
            return;
        }
        self.upstream = None;
        self.questions.drop_all();
        let mut out = Output::default();
        let now = self.clock.now();
        let record = self.engine.finish(now, &mut out);
        for event in out.events {
            tell(&*self.observer, self.family, &self.engine, event);
        }
        self.observer.session(&record);
        if !self.tap.is_empty() {
            let reset = self.client.reset || self.client.broken;
            self.tap.end(reset, &record, answers(&self.engine), now);
        }
    }
}

impl Drop for Pump {
    /// A session that panicked or was cut off is recorded as well.
    fn drop(&mut self) {
        if !self.recorded {
            // What it would say is not sent: the sockets are gone with the task.
            self.engine.abort(Outcome::Error, &mut Output::default());
        }
        self.record();
    }
}

/// What the policy was answered, if it asked.
fn answers(engine: &Proxy) -> Option<String> {
    engine.answers().filter(|answers| !answers.is_empty()).map(Answers::to_json)
}

fn tell(observer: &dyn Observe, family: Family, engine: &Proxy, event: Event) {
    if let Event::Policy { rule, action, mode } = event
        && let Some(rule) = engine.rule_at(rule)
    {
        observer.policy(family, &rule.name, action, mode);
    }
    observer.event(family, event);
}

/// Resets the connection: upstream must not take what it has for all of it, and no TIME_WAIT shall hold our port.
fn abandon(stream: &TcpStream) {
    let _gone_already = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
