//! Whom sessions ask what the policy rules want to know.

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt as _};

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};

/// An answer on its way.
pub type Asking = Pin<Box<dyn Future<Output = LookupResult> + Send>>;

/// Answers lookups. It has a deadline of its own, shorter than the engine's patience, and answers by
/// [`Answer::Unknown`] then; a question that nobody waits for any more is dropped.
pub trait Ask: Send + Sync {
    fn ask(&self, lookup: Lookup) -> Asking;
}

/// Nobody can say.
impl Ask for () {
    fn ask(&self, _: Lookup) -> Asking {
        let answer = Answer::Unknown(Reason::NoSource);
        Box::pin(ready(LookupResult { answer, source: Source::None, at: None }))
    }
}

impl<T: Ask + ?Sized> Ask for Arc<T> {
    fn ask(&self, lookup: Lookup) -> Asking {
        (**self).ask(lookup)
    }
}

/// What one session asked and has no answer to.
pub(super) struct Questions {
    ask: Arc<dyn Ask>,
    /// Nothing where nothing was asked: even an empty set costs an allocation.
    open: Option<FuturesUnordered<Question>>,
}

struct Question {
    /// Until it is answered.
    lookup: Option<Lookup>,
    asking: Asking,
}

impl Future for Question {
    type Output = Option<(Lookup, LookupResult)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = std::task::ready!(self.asking.as_mut().poll(cx));
        Poll::Ready(self.lookup.take().map(|lookup| (lookup, answered)))
    }
}

impl Questions {
    pub(super) const fn new(ask: Arc<dyn Ask>) -> Self {
        Self { ask, open: None }
    }

    pub(super) fn ask(&mut self, lookups: Vec<Lookup>) {
        let open = self.open.get_or_insert_default();
        for lookup in lookups {
            let asking = self.ask.ask(lookup.clone());
            open.push(Question { lookup: Some(lookup), asking });
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
