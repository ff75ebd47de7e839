//! Whom sessions ask what the policy rules want to know.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};

/// An answer on its way.
pub type LookupFuture = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// Answers lookups. It has a deadline of its own, shorter than the engine's patience, and answers by
/// [`Answer::Unknown`] then; a question that nobody waits for any more is dropped.
pub trait LookupProvider: Send + Sync {
    fn lookup(&self, lookup: Lookup) -> LookupFuture;
}

/// Nobody can say.
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
}

/// What one session asked and has no answer to.
pub(super) struct PendingLookups {
    provider: Arc<dyn LookupProvider>,
    /// Nothing where nothing was asked: even an empty set costs an allocation.
    open: Option<FuturesUnordered<PendingLookup>>,
}

struct PendingLookup {
    /// Until it is answered.
    lookup: Option<Lookup>,
    asking: LookupFuture,
}

impl Future for PendingLookup {
    type Output = Option<(Lookup, LookupResult)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = std::task::ready!(self.asking.as_mut().poll(cx));
        Poll::Ready(self.lookup.take().map(|lookup| (lookup, answered)))
    }
}

impl PendingLookups {
    pub(super) const fn new(provider: Arc<dyn LookupProvider>) -> Self {
        Self { provider, open: None }
    }

    pub(super) fn ask(&mut self, lookups: Vec<Lookup>) {
        let open = self.open.get_or_insert_default();
        for lookup in lookups {
            let asking = self.provider.lookup(lookup.clone());
            open.push(PendingLookup { lookup: Some(lookup), asking });
        }
    }

    /// The answers that are there; wakes the task of `cx` for the others.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Vec<(Lookup, LookupResult)> {
        let mut answers = Vec::new();
        if let Some(open) = &mut self.open {
            while let Poll::Ready(Some(answer)) = open.poll_next_unpin(cx) {
                answers.extend(answer);
            }
            if open.is_empty() {
                self.open = None;
            }
        }
        answers
    }

    /// The session is over.
    pub(super) fn drop_all(&mut self) {
        self.open = None;
    }
}
