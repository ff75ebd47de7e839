//! The hosts about whose A records Postfix asked a moment ago.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::policy::facts::DomainName;

/// Postfix asks about the AAAA records in the same delivery.
const MAX_AGE: Duration = Duration::from_secs(30);
const MAX_HOSTS: usize = 10_000;

#[derive(Debug, Default)]
pub(super) struct RecentHosts(HashMap<DomainName, Instant>);

impl RecentHosts {
    pub(super) fn insert(&mut self, host: DomainName, now: Instant) {
        if self.0.len() >= MAX_HOSTS && !self.0.contains_key(&host) {
            self.0.retain(|_, at| is_recent(*at, now));
            if self.0.len() >= MAX_HOSTS {
                // Those that are missing are looked up.
                self.0.clear();
            }
        }
        self.0.insert(host, now);
    }

    pub(super) fn contains(&self, host: &DomainName, now: Instant) -> bool {
        self.0.get(host).is_some_and(|at| is_recent(*at, now))
    }
}

fn is_recent(at: Instant, now: Instant) -> bool {
    now.saturating_duration_since(at) < MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_expire_and_their_number_is_bounded() {
        let name = |n: usize| DomainName::parse(&format!("mx{n}.a.example")).unwrap();
        let mut hosts = RecentHosts::default();
        let start = Instant::now();
        hosts.insert(name(0), start);
        assert!(hosts.contains(&name(0), start));
        assert!(!hosts.contains(&name(0), start + MAX_AGE));
        for n in 1..3 * MAX_HOSTS {
            hosts.insert(name(n), start);
            assert!(hosts.0.len() <= MAX_HOSTS);
            assert!(hosts.contains(&name(n), start));
        }
    }
}
