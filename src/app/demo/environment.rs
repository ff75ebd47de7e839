//! The demo's surroundings of a gateway: MTA, DNS and ports. Runs one client at a time against them.
//!
//! Layer 5. Only the ports decide whether the clients reach a gateway or the MTA itself.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::clients::{self, DemoClient};
use super::dialogue::{self, ClientView};
use super::mta::DemoMta;
use super::ports::PortMap;
use super::result::ClientResult;
use super::zone::{self, DOMAIN, DemoZone, HALF_DOMAIN};
use crate::addr::Family;
use crate::engine::{Endpoint, Event, Observe, SessionRecord};

pub(super) struct Environment {
    pub mta: DemoMta,
    pub ports: PortMap,
    /// Time for the gateway's record to arrive after the client has seen the session end.
    pub record_timeout: Duration,
    pub records: RecordSender,
    received: UnboundedReceiver<SessionRecord>,
    resolver: TokioResolver,
    /// Serves until it is dropped.
    _zone: DemoZone,
}

/// Receives the gateway's session records.
#[derive(Clone)]
pub(super) struct RecordSender(UnboundedSender<SessionRecord>);

impl Observe for RecordSender {
    fn event(&self, _: Family, _: Event) {}

    fn session(&self, record: &SessionRecord) {
        let _demo_is_over = self.0.send(record.clone());
    }
}

impl Environment {
    pub(super) async fn start(ipv6: bool) -> anyhow::Result<Self> {
        let zone = DemoZone::start(&clients::hosts(ipv6)).await?;
        let (sender, received) = unbounded_channel();
        Ok(Self {
            mta: DemoMta::start(ipv6, &[DOMAIN, HALF_DOMAIN]).await?,
            ports: PortMap::default(),
            record_timeout: Duration::from_secs(5),
            records: RecordSender(sender),
            received,
            resolver: zone.resolver()?,
            _zone: zone,
        })
    }

    /// Runs one client to its end.
    pub(super) async fn run(&mut self, client: &DemoClient) -> ClientResult {
        let view = self.connect(client).await;
        let record = match &view {
            Ok(view) => self.record_of(view.local.into()).await,
            Err(_) => None,
        };
        let arrived = self.mta.mailbox.with_token(&client.token);
        ClientResult { view, record, arrived }
    }

    async fn connect(&self, client: &DemoClient) -> Result<ClientView, String> {
        let exchanges = zone::exchanges(&self.resolver, client.domain)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let paths: Vec<_> = exchanges
            .into_iter()
            .filter_map(|ip| {
                let local = client.local_address(ip)?;
                Some((local, self.ports.destination(client.domain, ip)?))
            })
            .collect();
        dialogue::run(&paths, &client.steps).await
    }

    /// Records of other clients, such as a port scanner's, are dropped.
    async fn record_of(&mut self, client: Endpoint) -> Option<SessionRecord> {
        let find = async {
            loop {
                let record = self.received.recv().await?;
                if record.client == client {
                    return Some(record);
                }
            }
        };
        timeout(self.record_timeout, find).await.ok().flatten()
    }
}
