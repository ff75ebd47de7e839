//! Single-flight: concurrent lookups of the same subject share one query.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};

/// Concurrent queries; each takes a few kilobytes.
pub(super) const MAX_IN_FLIGHT: usize = 10_000;

/// A query for whose answer several callers may wait. It runs to its end even without a waiting caller.
pub(super) type InFlight = Shared<BoxFuture<'static, LookupResult>>;

pub(super) enum Join {
    /// This caller started the query.
    Leader(InFlight),
    /// Another caller started it.
    Follower(InFlight),
    /// The answer arrived in the meantime.
    Ready(LookupResult),
    /// [`MAX_IN_FLIGHT`] queries are in progress, or the caller may start none.
    Full,
}

#[derive(Clone, Debug, Default)]
pub(super) struct SingleFlight(Arc<Mutex<HashMap<Lookup, InFlight>>>);

impl SingleFlight {
    /// A panic elsewhere leaves the map consistent.
    fn in_flight(&self) -> MutexGuard<'_, HashMap<Lookup, InFlight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.in_flight().len()
    }

    /// Joins the query of `lookup`, or starts `query` on `runtime`. `query` caches its answer before it ends and `cached`
    /// reads that cache, so no answer is missed between the end of one query and the start of the next. `query` returns `None` if
    /// the caller may not start one; joining that of another caller needs no permission.
    pub(super) fn join<Q>(
        &self,
        lookup: &Lookup,
        runtime: &Handle,
        cached: impl FnOnce() -> Option<LookupResult>,
        query: impl FnOnce() -> Option<Q>,
    ) -> Join
    where
        Q: Future<Output = LookupResult> + Send + 'static,
    {
        let mut in_flight = self.in_flight();
        if let Some(query) = in_flight.get(lookup) {
            return Join::Follower(query.clone());
        }
        if let Some(result) = cached() {
            return Join::Ready(result);
        }
        if in_flight.len() >= MAX_IN_FLIGHT {
            return Join::Full;
        }
        let Some(query) = query() else {
            return Join::Full;
        };
        let (sender, receiver) = oneshot::channel();
        let panicked = LookupResult {
            answer: Answer::Unknown(Reason::Timeout),
            source: Source::None,
            at: None,
        };
        let future = receiver.map(|result| result.unwrap_or(panicked)).boxed().shared();
        in_flight.insert(lookup.clone(), future.clone());
        drop(in_flight);
        let entry = InFlightEntry { flights: self.clone(), lookup: lookup.clone() };
        runtime.spawn(async move {
            let result = query.await;
            drop(entry);
            let _nobody_waits = sender.send(result);
        });
        Join::Leader(future)
    }
}

/// Removes a query from the map however it ends.
struct InFlightEntry {
    flights: SingleFlight,
    lookup: Lookup,
}

impl Drop for InFlightEntry {
    fn drop(&mut self) {
        self.flights.in_flight().remove(&self.lookup);
    }
}
