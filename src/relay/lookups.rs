//! Lookups of sessions: the provider that answers them, and the ones that a session waits for.

use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::addr::Family;
use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};

pub type LookupFuture = Pin<Box<dyn Future<Output = LookupResult> + Send>>;
pub type HostFuture = Pin<Box<dyn Future<Output = HostAnswer> + Send>>;

/// The addresses of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAnswer {
    /// By family (`Family as usize`): empty if the name has none, or does not exist; or why they are not known.
    pub addresses: [Result<Vec<IpAddr>, Reason>; Family::ALL.len()],
    /// For how long they are valid; `None` if they are not from the DNS.
    pub ttl: Option<Duration>,
}

/// Answers lookups. The provider has a deadline of its own, shorter than the engine's, after which it answers
/// [`Answer::Unknown`]. A future that is no longer needed is dropped.
pub trait LookupProvider: Send + Sync {
    fn lookup(&self, lookup: Lookup) -> LookupFuture;

    /// The same for a session of `client`, whose share of the provider's budgets it uses.
    fn lookup_for(&self, lookup: Lookup, client: IpAddr) -> LookupFuture {
        let _any_client = client;
        self.lookup(lookup)
    }

    /// The addresses of an upstream's host name, as other programs of this host find them.
    fn resolve(&self, name: Arc<str>) -> HostFuture {
        let _nobody_knows = name;
        let addresses = [Err(Reason::NoResolver), Err(Reason::NoResolver)];
        Box::pin(ready(HostAnswer { addresses, ttl: None }))
    }
}

/// Answers nothing.
impl LookupProvider for () {
    fn lookup(&self, _: Lookup) -> LookupFuture {
        let answer = Answer::Unknown(Reason::NoResolver);
        Box::pin(ready(LookupResult { answer, source: Source::None, at: None }))
    }
}

impl<T: LookupProvider + ?Sized> LookupProvider for Arc<T> {
    fn lookup(&self, lookup: Lookup) -> LookupFuture {
        (**self).lookup(lookup)
    }

    fn lookup_for(&self, lookup: Lookup, client: IpAddr) -> LookupFuture {
        (**self).lookup_for(lookup, client)
    }

    fn resolve(&self, name: Arc<str>) -> HostFuture {
        (**self).resolve(name)
    }
}

/// The lookups of one session that have no answer yet.
pub(super) struct PendingLookups {
    provider: Arc<dyn LookupProvider>,
    client: IpAddr,
    /// `None` rather than an empty set, which costs an allocation.
    pending: Option<FuturesUnordered<PendingLookup>>,
}

struct PendingLookup {
    /// Taken with the answer.
    lookup: Option<Lookup>,
    future: LookupFuture,
}

impl Future for PendingLookup {
    type Output = Option<(Lookup, LookupResult)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = std::task::ready!(self.future.as_mut().poll(cx));
        Poll::Ready(self.lookup.take().map(|lookup| (lookup, result)))
    }
}

impl PendingLookups {
    pub(super) const fn new(provider: Arc<dyn LookupProvider>, client: IpAddr) -> Self {
        Self { provider, client, pending: None }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.pending.is_none()
    }

    pub(super) fn start(&mut self, lookups: Vec<Lookup>) {
        let pending = self.pending.get_or_insert_default();
        for lookup in lookups {
            let future = self.provider.lookup_for(lookup.clone(), self.client);
            pending.push(PendingLookup { lookup: Some(lookup), future });
        }
    }

    /// The answers that are ready; wakes the task of `cx` for the others.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Vec<(Lookup, LookupResult)> {
        let mut answers = Vec::new();
        if let Some(pending) = &mut self.pending {
            while let Poll::Ready(Some(answer)) = pending.poll_next_unpin(cx) {
                answers.extend(answer);
            }
            if pending.is_empty() {
                self.pending = None;
            }
        }
        answers
    }

    pub(super) fn cancel(&mut self) {
        self.pending = None;
    }
}
