//! The SMTP sessions that Postfix asks about.
//!
//! A question has all that Postfix knows, so that nothing depends on this table but what is joined by it: one record and one
//! set of answers for each session, as in the relay. Postfix does not say when a session ends. It is over when its connection
//! of policy delegation turns to another one or closes, or when nothing is asked for a while.
//!
//! Behind a relay of ours, the relay's record of the session is the one that counts, and [`Sessions::take`] adds the questions to
//! it. It comes after Postfix's end of the session, by as much as the client is slow to close; so a session that Postfix left is
//! kept for a moment.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{sleep_until, timeout};

use super::lookups::{PolicyLookupFuture, PolicyLookups};
use super::question::SessionKey;
use crate::engine::{
    Action, AskedAt, DelegatedQuestion, DelegatedReply, DelegatedSession, Event, Observe, Output,
    Profile, SessionRecord, ShadowRecord,
};
use crate::policy::facts::{Lookup, LookupResult};
use crate::time::Timestamp;

/// Sessions that are kept; beyond it each question is a session of its own.
const MAX_SESSIONS: usize = 10_000;
/// How long the end of a session waits for answers that only rules in shadow mode need.
const SHADOW_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Sessions {
    lookups: Arc<dyn PolicyLookups>,
    observer: Arc<dyn Observe>,
    pub(super) profile: ArcSwap<Profile>,
    times: SessionTimes,
    /// Those that no question is in progress about.
    quiet: Mutex<HashMap<SessionKey, QuietSession>>,
    /// Sessions of a relay that decides on their messages by the content, from the first such message to the end of the session.
    decided_by_relay: Mutex<HashSet<SessionKey>>,
}

/// How long a session is kept for further questions, and for a record that it is joined to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimes {
    /// After the last question. Clients that go on later get a second record.
    pub quiet: Duration,
    /// After Postfix turned to another session.
    pub left: Duration,
}

struct QuietSession {
    live: LiveSession,
    ends_at: Instant,
}

struct LiveSession {
    engine: Box<DelegatedSession>,
    client: IpAddr,
    pending: FuturesUnordered<PendingLookup>,
}

struct PendingLookup {
    /// Taken with the answer.
    lookup: Option<Lookup>,
    future: PolicyLookupFuture,
}

impl Future for PendingLookup {
    type Output = Option<(Lookup, LookupResult)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = std::task::ready!(self.future.as_mut().poll(cx));
        Poll::Ready(self.lookup.take().map(|lookup| (lookup, result)))
    }
}

fn now() -> Timestamp {
    Timestamp::from_system_time(SystemTime::now())
}

impl Sessions {
    pub(super) fn new(
        lookups: Arc<dyn PolicyLookups>,
        observer: Arc<dyn Observe>,
        profile: Arc<Profile>,
        times: SessionTimes,
    ) -> Self {
        Self {
            times,
            lookups,
            observer,
            profile: ArcSwap::new(profile),
            quiet: Mutex::default(),
            decided_by_relay: Mutex::default(),
        }
    }

    /// The decision on a question, no later than `deadline`. Rules in shadow mode are waited for as those in force are, so
    /// that Postfix can log them beside the message.
    pub(super) async fn decide(
        &self,
        key: SessionKey,
        mut asked: DelegatedQuestion,
        deadline: tokio::time::Instant,
    ) -> (DelegatedReply, Vec<ShadowRecord>) {
        asked.decided_by_relay = asked.at == AskedAt::EndOfMessage && self.is_decided_by_relay(key);
        let kept = self.lock().remove(&key);
        let mut live = kept.map_or_else(|| self.begin(key), |kept| kept.live);
        self.step(&mut live, |engine, at, out| engine.ask(asked, at, out));
        while (!live.engine.is_decided() || live.engine.awaits_shadow()) && !live.pending.is_empty()
        {
            tokio::select! {
                biased;
                Some(answer) = live.pending.next() => {
                    let answers = answer.into_iter().collect();
                    self.step(&mut live, |engine, at, out| engine.on_answers(answers, at, out));
                }
                () = sleep_until(deadline) => break,
            }
        }
        self.step(&mut live, DelegatedSession::on_deadline);
        let reply = live.engine.take_reply();
        self.keep(key, live);
        // Without a decision Postfix's other restrictions decide.
        reply.unwrap_or((DelegatedReply::Accept, Vec::new()))
    }

    /// Postfix turned to another session.
    pub(super) fn on_left(self: &Arc<Self>, key: SessionKey) {
        if self.times.left.is_zero() {
            let left = self.lock().remove(&key);
            return left.into_iter().for_each(|left| self.finish(left.live));
        }
        let latest = Instant::now() + self.times.left;
        if let Some(left) = self.lock().get_mut(&key) {
            left.ends_at = left.ends_at.min(latest);
        }
    }

    /// Ends the sessions whose time is over.
    pub(super) fn finish_quiet(self: &Arc<Self>) {
        let now = Instant::now();
        let over: Vec<LiveSession> = {
            let mut quiet = self.lock();
            quiet.extract_if(|_, one| one.ends_at <= now).map(|(_, one)| one.live).collect()
        };
        over.into_iter().for_each(|live| self.finish(live));
    }

    /// Ends all sessions: the gateway stops.
    pub(super) fn finish_all(&self) {
        let all: Vec<_> = self.lock().drain().collect();
        all.into_iter().for_each(|(_, one)| self.record(one.live));
    }

    pub(super) fn on_message_decided(&self, key: SessionKey) {
        let keys = [key, key.without_server()];
        self.decided_by_relay.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
    }

    fn is_decided_by_relay(&self, key: SessionKey) -> bool {
        self.decided_by_relay.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
    }

    /// Ends a session that another record is about as well.
    pub(super) fn take(&self, key: SessionKey) -> Option<SessionRecord> {
        {
            let mut decided = self.decided_by_relay.lock().unwrap_or_else(PoisonError::into_inner);
            if decided.remove(&key) {
                decided.remove(&key.without_server());
            }
        }
        let live = {
            let mut quiet = self.lock();
            // Postfix before 3.2 does not say where the client connected to.
            quiet.remove(&key).or_else(|| quiet.remove(&key.without_server()))?.live
        };
        let mut out = Output::default();
        let family = live.engine.client().family();
        let record = live.engine.finish(&mut out);
        // The end is that of the other record.
        let events = out.events.into_iter();
        for event in events.filter(|event| !matches!(event, Event::SessionClosed(_))) {
            self.observer.event(family, event);
        }
        Some(record)
    }

    fn begin(&self, key: SessionKey) -> LiveSession {
        let profile = self.profile.load();
        let engine = DelegatedSession::new(&profile, key.client(), key.server(), now());
        let client = key.client().ip();
        LiveSession { engine: Box::new(engine), client, pending: FuturesUnordered::new() }
    }

    fn keep(&self, key: SessionKey, live: LiveSession) {
        let mut quiet = self.lock();
        let other = if quiet.len() < MAX_SESSIONS || quiet.contains_key(&key) {
            let ends_at = Instant::now() + self.times.quiet;
            quiet.insert(key, QuietSession { live, ends_at }).map(|other| other.live)
        } else {
            Some(live)
        };
        drop(quiet);
        // Two questions about one session at the same time, which Postfix does not have.
        if let Some(other) = other {
            self.record(other);
        }
    }

    /// Rules in shadow mode get their answers first.
    fn finish(self: &Arc<Self>, mut live: LiveSession) {
        if !live.engine.awaits_shadow() || live.pending.is_empty() {
            return self.record(live);
        }
        let sessions = Arc::clone(self);
        tokio::spawn(async move {
            let rest = async {
                while live.engine.awaits_shadow()
                    && let Some(answer) = live.pending.next().await
                {
                    let answers = answer.into_iter().collect();
                    sessions.step(&mut live, |engine, at, out| engine.on_answers(answers, at, out));
                }
            };
            let _elapsed = timeout(SHADOW_TIMEOUT, rest).await;
            sessions.record(live);
        });
    }

    fn record(&self, live: LiveSession) {
        let mut out = Output::default();
        let family = live.engine.client().family();
        let record = live.engine.finish(&mut out);
        for event in out.events {
            self.observer.event(family, event);
        }
        self.observer.session(&record);
    }

    /// Calls the engine, starts the lookups that it needs, and reports its events.
    fn step(
        &self,
        live: &mut LiveSession,
        call: impl FnOnce(&mut DelegatedSession, Timestamp, &mut Output),
    ) {
        let mut out = Output::default();
        call(&mut live.engine, now(), &mut out);
        for action in out.actions {
            let Action::Need(lookups) = action else { continue };
            for lookup in lookups {
                let future = self.lookups.lookup_for(lookup.clone(), live.client);
                live.pending.push(PendingLookup { lookup: Some(lookup), future });
            }
        }
        let family = live.engine.client().family();
        for event in out.events {
            if let Event::Policy { rule, action, mode } = event
                && let Some(rule) = live.engine.rule_at(rule)
            {
                self.observer.policy(family, &rule.name, action, mode);
            }
            self.observer.event(family, event);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<SessionKey, QuietSession>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
