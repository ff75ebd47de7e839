//! The sums: what the senders saw, what the gateway counted, what the MTA kept and what `/metrics` serves must agree.
//!
//! Layer 5.

use std::net::SocketAddr;
use std::time::Duration;

use super::ledger::{Counts, Ledger};
use super::scrape::{Samples, scrape};
use super::senders::Sender;
use super::stage::Performance;
use super::table::any_refused;
use crate::addr::Family;

/// Counters are told from other threads, so the last of them may take a moment.
const ROUNDS: usize = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// Running sums over all performances.
#[derive(Clone, Debug, Default)]
pub(super) struct Sums {
    /// Sessions that the senders had, and what arrived of them, by `Family as usize`.
    seen: [Counts; Family::ALL.len()],
    /// What should be in `/metrics`: family, metric, label, value, at least.
    refusals: Vec<(Family, &'static str)>,
}

impl Sums {
    pub(super) fn add(&mut self, sender: &Sender, performance: &Performance) {
        let Some(told) = &performance.told else {
            return;
        };
        let family = Family::of(told.peer.ip());
        if let Some(counts) = self.seen.get_mut(family as usize) {
            counts.sessions += 1;
            counts.messages += performance.arrived.len() as u64;
            counts.refused += u64::from(any_refused(told));
        }
        if let Some(refusal) = sender.claim.refusal {
            self.refusals.push((family, refusal.as_str()));
        }
    }

    pub(super) fn of(&self, family: Family) -> Counts {
        self.seen.get(family as usize).copied().unwrap_or_default()
    }

    /// Every sum that does not agree, in words; none: all agree.
    pub(super) async fn differences(
        &self,
        ledger: &Ledger,
        arrived_in_all: u64,
        metrics: SocketAddr,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        for _ in 0..ROUNDS {
            differences = match scrape(metrics).await {
                Ok(samples) => self.compare(ledger, arrived_in_all, &samples),
                Err(why) => vec![format!("{why:#}")],
            };
            if differences.is_empty() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        differences
    }

    pub(super) fn compare(
        &self,
        ledger: &Ledger,
        arrived_in_all: u64,
        samples: &Samples,
    ) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differ = |what: String, found: f64, claimed: u64| {
            if found != claimed as f64 {
                differences.push(format!("{what}: {found}, not {claimed}"));
            }
        };
        let in_all: u64 = self.seen.iter().map(|counts| counts.messages).sum();
        differ("messages at the MTA".to_owned(), arrived_in_all as f64, in_all);
        for family in Family::ALL {
            let seen = self.of(family);
            let label = family.as_str();
            differ(
                format!("{label} sessions told of"),
                ledger.closed(family) as f64,
                seen.sessions,
            );
            differ(
                format!("{label} messages told of"),
                ledger.messages(family) as f64,
                seen.messages,
            );
            for (metric, labels, claimed) in [
                ("gatepost_sessions_total", [("family", label), ("family", label)], seen.sessions),
                ("gatepost_messages_total", [("family", label), ("class", "2xx")], seen.messages),
            ] {
                // A series that is not there is not zero: all of them are created at the start.
                let found = samples.sum(metric, &labels).unwrap_or(f64::NAN);
                differ(format!("{metric} of {label}"), found, claimed);
            }
        }
        for &(family, reason) in &self.refusals {
            let labels = [("family", family.as_str()), ("reason", reason)];
            let counted = samples.sum("gatepost_refusals_total", &labels);
            if counted.is_none_or(|counted| counted < 1.0) {
                differences.push(format!("gatepost_refusals_total of {family}, {reason}: none"));
            }
        }
        differences
    }
}
