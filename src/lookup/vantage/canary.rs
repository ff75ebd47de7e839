//! The vantage sends canaries, on request and to its own domains only.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::addr::{Family, is_global};
use crate::canary::{CanaryAddresses, CanaryDirection, CanaryPair};
use crate::hmac_key::HmacKey;
use crate::lookup::clock::now;
use crate::lookup::exchanges::exchange_addresses;
use crate::lookup::service::LookupService;
use crate::policy::facts::{DomainName, Lookup};
use crate::smtp_connection::{CanarySender, CanaryTarget, PairOrder};
use crate::time::Timestamp;

const SMTP: u16 = 25;
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How a vantage sends canaries.
#[derive(Clone, Debug)]
pub struct VantageCanaries {
    pub sender: CanarySender,
    /// Sender, in envelope and header.
    pub from: String,
    /// Pairs in 24 hours, for all who ask.
    pub per_day: u32,
    pub port: u16,
}

impl VantageCanaries {
    /// To the port of mail servers.
    pub const fn new(sender: CanarySender, from: String, per_day: u32) -> Self {
        Self { sender, from, per_day, port: SMTP }
    }
}

/// The times of the pairs of the last 24 hours.
#[derive(Debug, Default)]
pub(super) struct SentPairs(Mutex<VecDeque<Timestamp>>);

impl SentPairs {
    /// Whether another pair may be sent now; then it counts.
    pub(super) fn admit(&self, per_day: u32, now: Timestamp) -> bool {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|at| now - *at < DAY);
        let is_free = sent.len() < usize::try_from(per_day).unwrap_or(usize::MAX);
        if is_free {
            sent.push_back(now);
        }
        is_free
    }
}

/// Sends a pair to `to`, a mailbox of `domain`. Addresses that no other site has are not used with `only_global`.
///
/// # Errors
/// Why nothing was sent, for people.
pub(super) async fn send(
    canaries: &VantageCanaries,
    key: &HmacKey,
    service: &LookupService,
    (to, domain): (String, &DomainName),
    only_global: bool,
) -> Result<CanaryPair, String> {
    let targets = async |family: Family| {
        let answer = |lookup: Lookup| {
            let service = service.clone();
            async move { service.lookup(&lookup).await.answer }
        };
        let found = exchange_addresses(answer, domain, family).await;
        let found = found.map_err(|reason| {
            format!("cannot look up the mail exchanges of {domain} ({})", reason.as_str())
        })?;
        let usable = found.into_iter().filter(|(_, ip)| is_global(*ip) || !only_global);
        let targets = usable.map(|(name, ip)| CanaryTarget {
            name: name.to_string(),
            address: SocketAddr::new(ip, canaries.port),
        });
        Ok::<Vec<_>, String>(targets.collect())
    };
    let (ipv4, ipv6) = (targets(Family::Ipv4).await?, targets(Family::Ipv6).await?);
    let addresses = CanaryAddresses { from: canaries.from.clone(), to };
    let order = PairOrder {
        direction: CanaryDirection::Inbound,
        addresses: &addresses,
        key,
        ipv4: &ipv4,
        ipv6: &ipv6,
    };
    let pair = canaries.sender.send_pair(order, now()).await;
    pair.map_err(|error| format!("cannot read random bytes: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_limited_per_day() {
        let sent = SentPairs::default();
        let start = Timestamp::from_nanos(1_767_323_045_000_000_000);
        assert!(sent.admit(2, start));
        assert!(sent.admit(2, start + DAY / 2));
        assert!(!sent.admit(2, start + DAY / 2));
        assert!(sent.admit(2, start + DAY));
        assert!(!sent.admit(2, start + DAY));
    }
}
