//! Postfix's questions: the service of `[postfix] policy`, with the rules, the lookups and the observers of the relay.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::lookup_router::LookupRouter;
use crate::config::Config;
use crate::engine::{Observe, Profile};
use crate::policy::facts::Lookup;
use crate::postfix::policy::{
    PolicyListener, PolicyListenerError, PolicyLookupFuture, PolicyLookups, PolicyService,
    PolicyServiceParts, SessionTimes,
};
use crate::relay::LookupProvider;
use crate::report::{LogLevel, SessionLog};

/// Where Postfix alone has the sessions.
const ALONE: SessionTimes = SessionTimes { quiet: Duration::from_secs(5), left: Duration::ZERO };
/// Where the relay may be in front of that Postfix: most sessions are joined to those of the relay by then.
const BESIDE_RELAY: SessionTimes =
    SessionTimes { quiet: Duration::from_secs(60), left: Duration::from_secs(5) };

/// Creates the socket, while the process may still write to Postfix's folder.
///
/// # Errors
/// The socket cannot be created.
pub(super) async fn bind(config: &Config) -> Result<Option<PolicyListener>, PolicyListenerError> {
    match &config.policy_service {
        Some(settings) => PolicyListener::bind(&settings.address).await.map(Some),
        None => Ok(None),
    }
}

/// Starts the service, if there is a socket for it.
pub(super) fn start(
    listener: Option<PolicyListener>,
    config: &Config,
    router: &Arc<LookupRouter>,
    observer: Arc<dyn Observe>,
    log: &Arc<SessionLog>,
) -> Option<PolicyService> {
    let log = Arc::clone(log);
    let parts = PolicyServiceParts {
        settings: config.policy_service.clone()?,
        profile: profile(config),
        lookups: Arc::clone(router) as _,
        observer,
        times: if config.relay.listeners.is_empty() { ALONE } else { BESIDE_RELAY },
        warn: Box::new(move |warning| log.notice(LogLevel::Warn, warning)),
    };
    Some(PolicyService::start(listener?, parts))
}

/// New rules and limits. The address stays.
pub(super) fn reload(service: Option<&PolicyService>, config: &Config) {
    if let (Some(service), Some(settings)) = (service, &config.policy_service) {
        service.reload(settings.clone(), profile(config));
    }
}

/// Whether the change of the configuration needs a restart.
pub(super) fn has_moved(old: &Config, new: &Config) -> bool {
    let address = |config: &Config| config.policy_service.as_ref().map(|own| own.address.clone());
    address(old) != address(new)
}

/// Postfix's sessions have no listener of the gateway.
fn profile(config: &Config) -> Arc<Profile> {
    Arc::new(config.relay.profile(None))
}

impl PolicyLookups for LookupRouter {
    fn lookup_for(&self, lookup: Lookup, client: IpAddr) -> PolicyLookupFuture {
        LookupProvider::lookup_for(self, lookup, client)
    }
}
