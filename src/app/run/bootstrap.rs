//! Start-up on the only thread: everything that needs privileges, then the privileges are dropped.

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::capabilities::{self, KeptCapabilities};
use super::certificates::Certificates;
use super::door_config::{door_config, ingress};
use super::{control, inherited, policy_service};
use crate::app::upstream_tls::upstream_tls;
use crate::config::{Config, DoorConfig};
use crate::control::ControlListener;
use crate::intercept::door::{DoorEnforcer, DoorError};
use crate::intercept::{Interception, SharedInterception};
use crate::postfix::policy::PolicyListener;
use crate::postfix::socketmap::MapListener;
use crate::relay::{Listeners, UpstreamTlsConfigs};

/// The parts of a gateway that need privileges to be created.
pub(super) struct Bootstrap {
    /// Or why there is no control socket.
    pub(super) control: Result<ControlListener, String>,
    pub(super) listeners: Listeners,
    /// Where Postfix asks.
    pub(super) policy_listener: Option<PolicyListener>,
    pub(super) metrics_listener: Option<TcpListener>,
    /// With `[outbound]`.
    pub(super) map: Option<MapListener>,
    /// With the reason why the kernel does not enforce the doors, if so.
    pub(super) doors: Option<(DoorConfig, (DoorEnforcer, Option<DoorError>))>,
    /// Claimed, not installed: intercepted connections need a relay.
    pub(super) interception: Option<SharedInterception>,
    /// If the gateway ends the TLS of clients.
    pub(super) certificates: Option<Certificates>,
    /// Of TLS with upstreams.
    pub(super) upstream_tls: UpstreamTlsConfigs,
    pub(super) capabilities: KeptCapabilities,
}

impl Bootstrap {
    /// Capabilities belong to a thread, so all other threads must be started after this.
    pub(super) async fn run(config: &Config) -> anyhow::Result<Self> {
        let sockets = inherited::take()?;
        // Before its listeners take connections of the first, a second gateway fails here.
        let interception = match &config.intercept {
            Some(settings) => {
                let interception = Interception::claim(settings.clone())?;
                // nft(8) inherits the privileges that this still has. Clients may wait at inherited sockets, to which the rules
                // lead them.
                if sockets.addresses().next().is_none() {
                    interception.remove_leftover()?;
                }
                Some(interception.shared())
            }
            None => None,
        };
        // Keys are usually for root alone.
        let certificates = config.tls.as_ref().map(Certificates::load).transpose()?;
        let upstream_tls = upstream_tls(config)?;
        // Postfix's folder is closed to other accounts.
        let policy_listener = policy_service::bind(config).await?;
        capabilities::change_user(config)?;
        let control = control::bind(&config.control)?;
        let listeners = Listeners::open(&config.relay, sockets)?;
        let metrics_listener = match config.metrics.as_ref().map(|metrics| metrics.address) {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} for metrics; change `[metrics] address`")
            })?),
            None => None,
        };
        let map = config.outbound.as_ref().map(|outbound| MapListener::bind(&outbound.map));
        let map = map.transpose()?;
        let doors = door_config(config).map(|settings| {
            let ingress = ingress(interception.as_ref(), listeners.addresses());
            let enforcer = DoorEnforcer::start(settings.refuse, settings.exempt.clone(), ingress);
            (settings, enforcer)
        });
        let capabilities = KeptCapabilities::choose(config);
        capabilities.drop_others()?;
        Ok(Self {
            control,
            listeners,
            policy_listener,
            metrics_listener,
            map,
            doors,
            interception,
            certificates,
            upstream_tls,
            capabilities,
        })
    }
}
