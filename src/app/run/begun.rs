//! The beginning of a gateway, on its only thread: everything that takes a right, then the rights are given up.

use anyhow::Context as _;
use tokio::net::TcpListener;

use super::rights::{self, Rights};
use super::{doors, entrance, handed};
use crate::config::{self, Config};
use crate::control;
use crate::intercept::door::{DoorEnforcer, DoorError};
use crate::relay::Listeners;

/// What takes rights that are given up after it.
pub(super) struct Begun {
    /// Or why there is none.
    pub(super) control: Result<control::ControlListener, String>,
    pub(super) listeners: Listeners,
    pub(super) metrics_listener: Option<TcpListener>,
    /// Whose doors are kept, and who refuses.
    pub(super) door: Option<(config::DoorConfig, (DoorEnforcer, Option<DoorError>))>,
    pub(super) rights: Rights,
}

impl Begun {
    /// Capabilities belong to a thread: whatever starts another comes after this.
    pub(super) async fn begin(config: &Config) -> anyhow::Result<Self> {
        let handed = handed::take()?;
        rights::begin(config)?;
        // First: a second gateway with this configuration ends here.
        let control = super::control::bind(&config.control)?;
        let listeners = Listeners::open(&config.relay, handed)?;
        let metrics_listener = match config.metrics {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} for metrics; change `[metrics] address`")
            })?),
            None => None,
        };
        let door = doors(config).map(|settings| {
            let entrance = entrance(config, listeners.addresses());
            let enforcer = DoorEnforcer::start(settings.refuse, settings.exempt.clone(), entrance);
            (settings, enforcer)
        });
        let rights = Rights::of(config);
        rights.settle()?;
        Ok(Self { control, listeners, metrics_listener, door, rights })
    }
}
