//! The results: every raw figure, the medians, and what a target is.

use serde_json::{Value, json};

use crate::proxies::Peer;

/// The figures of one measure, one way, one round: name (its unit at the end) and value.
pub(crate) type Figures = Vec<(&'static str, f64)>;

struct Sample {
    measure: &'static str,
    peer: Peer,
    round: u32,
    /// The machine's load average at the measurement, which shows other work.
    load: f64,
    figures: Figures,
}

struct Failure {
    measure: &'static str,
    peer: Peer,
    reason: String,
}

#[derive(Default)]
pub(crate) struct Results {
    samples: Vec<Sample>,
    failures: Vec<Failure>,
}

impl Results {
    pub(crate) fn add(
        &mut self,
        measure: &'static str,
        peer: Peer,
        round: u32,
        load: f64,
        figures: Figures,
    ) {
        self.samples.push(Sample { measure, peer, round, load, figures });
    }

    pub(crate) fn fail(&mut self, measure: &'static str, peer: Peer, error: &anyhow::Error) {
        self.failures.push(Failure { measure, peer, reason: format!("{error:#}") });
    }

    pub(crate) fn failed(&self, measure: &str, peer: Peer) -> bool {
        self.failures.iter().any(|failure| failure.peer == peer && failure.measure == measure)
    }

    pub(crate) fn complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// One line for each measure that did not run.
    pub(crate) fn failures(&self) -> impl Iterator<Item = String> {
        self.failures.iter().map(|failure| {
            format!("{}, {}: {}", failure.peer.name(), failure.measure, failure.reason)
        })
    }

    /// Time added per session: each proxy's percentile less the direct path's in the same round.
    pub(crate) fn add_differences(&mut self, measure: &str) {
        let direct: Vec<(u32, f64, f64)> = self
            .samples
            .iter()
            .filter(|sample| sample.measure == measure && sample.peer == Peer::Direct)
            .filter_map(|sample| Some((sample.round, sample.get("p50_us")?, sample.get("p99_us")?)))
            .collect();
        for sample in &mut self.samples {
            if sample.measure != measure || sample.peer == Peer::Direct {
                continue;
            }
            let base = direct.iter().find(|(round, ..)| *round == sample.round);
            let (p50, p99) = (sample.get("p50_us"), sample.get("p99_us"));
            if let (Some((_, base50, base99)), Some(p50), Some(p99)) = (base, p50, p99) {
                sample.figures.push(("added_p50_us", p50 - base50));
                sample.figures.push(("added_p99_us", p99 - base99));
            }
        }
    }

    /// The median over the rounds.
    pub(crate) fn median(&self, measure: &str, peer: Peer, figure: &str) -> Option<f64> {
        let mut values: Vec<f64> = self
            .samples
            .iter()
            .filter(|sample| sample.measure == measure && sample.peer == peer)
            .filter_map(|sample| sample.get(figure))
            .collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let upper = *values.get(middle)?;
        if values.len() % 2 == 1 {
            return Some(upper);
        }
        let lower = *values.get(middle.checked_sub(1)?)?;
        Some(f64::midpoint(lower, upper))
    }

    /// `peer`'s median as a multiple of `base`'s.
    pub(crate) fn ratio(&self, measure: &str, peer: Peer, base: Peer, figure: &str) -> Option<f64> {
        let base = self.median(measure, base, figure)?;
        Some(self.median(measure, peer, figure)? / base).filter(|ratio| ratio.is_finite())
    }

    pub(crate) fn json(&self) -> Value {
        let samples = self.samples.iter().map(|sample| {
            let figures: serde_json::Map<String, Value> = sample
                .figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect();
            json!({
                "measure": sample.measure,
                "path": sample.peer.name(),
                "round": sample.round,
                "load": sample.load,
                "figures": figures,
            })
        });
        json!({
            "samples": samples.collect::<Vec<_>>(),
            "did_not_run": self.failures().collect::<Vec<_>>(),
        })
    }
}

impl Sample {
    fn get(&self, figure: &str) -> Option<f64> {
        self.figures.iter().find(|(name, _)| *name == figure).map(|(_, value)| *value)
    }
}

/// A bound for gatepost's figure.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// At most this multiple of the smallest figure of the bases.
    TimesAtMost(f64),
    /// At least this multiple of the largest figure of the bases.
    TimesAtLeast(f64),
    /// At most this, in the figure's own unit.
    Most(f64),
}

/// A target and its figure.
pub(crate) struct Target {
    pub(crate) what: &'static str,
    pub(crate) measure: &'static str,
    pub(crate) figure: &'static str,
    pub(crate) bound: Bound,
}

impl Target {
    /// Gatepost's figure in the bound's terms, multiples being those of the best of `bases`; none if it was not measured.
    pub(crate) fn reached(&self, results: &Results, bases: &[Peer]) -> Option<f64> {
        let ratios = bases
            .iter()
            .filter_map(|base| results.ratio(self.measure, Peer::Gatepost, *base, self.figure));
        match self.bound {
            Bound::Most(_) => results.median(self.measure, Peer::Gatepost, self.figure),
            Bound::TimesAtMost(_) => ratios.max_by(f64::total_cmp),
            Bound::TimesAtLeast(_) => ratios.min_by(f64::total_cmp),
        }
    }

    pub(crate) fn met(&self, reached: f64) -> bool {
        match self.bound {
            Bound::Most(bound) | Bound::TimesAtMost(bound) => reached <= bound,
            Bound::TimesAtLeast(bound) => reached >= bound,
        }
    }

    /// The bound for people: `at most 0.90 ×`.
    pub(crate) fn bound_text(&self) -> String {
        match self.bound {
            Bound::TimesAtMost(bound) => format!("at most {bound:.2} ×"),
            Bound::TimesAtLeast(bound) => format!("at least {bound:.2} ×"),
            Bound::Most(bound) => format!("at most {bound:.2} KiB"),
        }
    }

    /// Whether it was reached, for people.
    pub(crate) fn verdict(&self, results: &Results, bases: &[Peer]) -> String {
        match self.reached(results, bases) {
            Some(reached) if self.met(reached) => format!("met: {reached:.2}"),
            Some(reached) => format!("MISSED: {reached:.2}"),
            None => "not measured".to_owned(),
        }
    }
}
