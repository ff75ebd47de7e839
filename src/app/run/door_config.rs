//! The doors of a configuration, and the ingress at which they are enforced.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::{Config, DoorConfig};
use crate::intercept::SharedInterception;
use crate::intercept::door::Ingress;
use crate::policy::rules::{FactName, PolicyRule};

/// The doors of `[door]`. Without it both families are always open, but policy rules may still require the receive path,
/// which the door controller evaluates.
pub(super) fn door_config(config: &Config) -> Option<DoorConfig> {
    let requires_receive_path = |rule: &PolicyRule| {
        rule.require.iter().any(|require| require.fact == FactName::ReceivePath)
    };
    config.door.clone().or_else(|| {
        config.relay.rules.iter().any(requires_receive_path).then(DoorConfig::unguarded)
    })
}

pub(super) fn ingress(
    interception: Option<&SharedInterception>,
    listening: impl Iterator<Item = SocketAddr>,
) -> Ingress {
    match interception {
        Some(interception) => Ingress::Intercepted(Arc::clone(interception)),
        None => Ingress::Listeners(listening.collect()),
    }
}
