//! The stage: the MTA, the DNS and the ports, and one sender's performance on it.
//!
//! Layer 5. Nothing here knows whether a gateway stands between: only the ports say where the senders arrive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;

use super::dialogue::{self, Told};
use super::ledger::Ledger;
use super::mailbox::Message;
use super::mta::Mta;
use super::ports::Ports;
use super::senders::{self, Sender};
use super::zone::{self, DOMAIN, HALF_DOMAIN, Zone};
use crate::addr::Family;
use crate::engine::{Refusal, SessionRecord};

/// Everything that a sender meets, except the gateway itself.
pub(super) struct Stage {
    pub mta: Mta,
    pub ports: Ports,
    pub ledger: Arc<Ledger>,
    /// How long to wait for the gateway's record of a session that the sender has seen end.
    pub record_patience: Duration,
    resolver: TokioResolver,
    /// Serves as long as it lives.
    _zone: Zone,
}

/// What came of one sender.
#[derive(Debug)]
pub(super) struct Performance {
    /// `None`: it reached nobody.
    pub told: Option<Told>,
    pub record: Option<SessionRecord>,
    /// What the gateway counted as its own refusals meanwhile.
    pub refusals: Vec<Refusal>,
    pub arrived: Vec<Message>,
    /// Empty: as claimed.
    pub differences: Vec<String>,
}

impl Stage {
    pub(super) async fn set(ipv6: bool) -> anyhow::Result<Self> {
        let zone = Zone::start(&senders::hosts(ipv6)).await?;
        Ok(Self {
            mta: Mta::start(ipv6, &[DOMAIN, HALF_DOMAIN]).await?,
            ports: Ports::default(),
            ledger: Arc::default(),
            record_patience: Duration::from_secs(5),
            resolver: zone.resolver()?,
            _zone: zone,
        })
    }

    /// Plays `sender` and compares what happened with its claim.
    pub(super) async fn perform(&self, sender: &Sender) -> Performance {
        let before = self.ledger.refusals();
        match self.send(sender).await {
            Ok(told) => self.judge(sender, told, &before).await,
            Err(problem) => Performance {
                told: None,
                record: None,
                refusals: Vec::new(),
                arrived: self.mta.mailbox.with_token(&sender.token),
                differences: vec![problem],
            },
        }
    }

    /// Gathers what the gateway and the MTA say of the session that `told` is the sender's view of; `before` is what the
    /// gateway had refused when it began.
    pub(super) async fn judge(
        &self,
        sender: &Sender,
        told: Told,
        before: &BTreeMap<(Family, Refusal), u64>,
    ) -> Performance {
        let record = self.ledger.take(told.local, self.record_patience).await;
        let refusals = since(before, &self.ledger.refusals(), sender.claim.family);
        let arrived = self.mta.mailbox.with_token(&sender.token);
        let differences = sender.claim.differences(&told, record.as_ref(), &refusals, &arrived);
        Performance { told: Some(told), record, refusals, arrived, differences }
    }

    pub(super) async fn send(&self, sender: &Sender) -> Result<Told, String> {
        let exchanges = zone::exchanges(&self.resolver, sender.domain)
            .await
            .map_err(|why| format!("{why:#}"))?;
        let paths: Vec<_> = exchanges
            .into_iter()
            .filter_map(|ip| {
                let own = sender.own_address(ip)?;
                Some((own, self.ports.destination(sender.domain, ip)?))
            })
            .collect();
        dialogue::play(&paths, &sender.steps).await
    }
}

/// What `family` was refused more often in `after` than in `before`.
fn since(
    before: &BTreeMap<(Family, Refusal), u64>,
    after: &BTreeMap<(Family, Refusal), u64>,
    family: Family,
) -> Vec<Refusal> {
    let of_family = after.iter().filter(|((f, _), _)| *f == family);
    let more = of_family.filter(|(key, count)| before.get(key).is_none_or(|b| b < *count));
    more.map(|((_, refusal), _)| *refusal).collect()
}
