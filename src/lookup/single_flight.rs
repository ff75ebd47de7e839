//! Lookups under way, so that nothing is asked twice at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::policy::facts::{Answer, Lookup, LookupResult, Reason, Source};

/// Flights at once; each takes a few kilobytes.
const MOST: usize = 10_000;

/// An answer that several may wait for. Nobody has to: the work goes on by itself.
pub(super) type Flight = Shared<BoxFuture<'static, LookupResult>>;

/// How an asker gets onto a flight.
pub(super) enum Boarding {
    /// He is the first, and the work has begun.
    Started(Flight),
    Joined(Flight),
    /// The answer came while he looked.
    Landed(LookupResult),
    Full,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Lookup, Flight>>>);

impl Flights {
    /// A panic elsewhere leaves nothing half done in it.
    fn under_way(&self) -> MutexGuard<'_, HashMap<Lookup, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self) -> usize {
        self.under_way().len()
    }

    /// Joins the flight of `lookup`, or starts one that does `work` on `runtime`. `work` keeps its answer before it ends, and
    /// `known` looks there: so between the end of one flight and the start of the next no answer is missed.
    pub(super) fn board<W>(
        &self,
        lookup: &Lookup,
        runtime: &Handle,
        known: impl FnOnce() -> Option<LookupResult>,
        work: impl FnOnce() -> W,
    ) -> Boarding
    where
        W: Future<Output = LookupResult> + Send + 'static,
    {
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(lookup) {
            return Boarding::Joined(flight.clone());
        }
        if let Some(answered) = known() {
            return Boarding::Landed(answered);
        }
        if under_way.len() >= MOST {
            return Boarding::Full;
        }
        let (land, landing) = oneshot::channel();
        let lost = LookupResult {
            answer: Answer::Unknown(Reason::Timeout),
            source: Source::None,
            at: None,
        };
        let flight = landing.map(|landed| landed.unwrap_or(lost)).boxed().shared();
        under_way.insert(lookup.clone(), flight.clone());
        drop(under_way);
        let place = Place { flights: self.clone(), lookup: lookup.clone() };
        let work = work();
        runtime.spawn(async move {
            let answered = work.await;
            drop(place);
            let _nobody_waits = land.send(answered);
        });
        Boarding::Started(flight)
    }
}

/// A flight's place among the others, given up however it ends.
struct Place {
    flights: Flights,
    lookup: Lookup,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.lookup);
    }
}
