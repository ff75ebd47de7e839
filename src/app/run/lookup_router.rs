//! The lookups of sessions: the door controller answers for our own receive path, the lookup service for the rest.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use crate::app::door::DoorHandle;
use crate::lookup::{HostNames, LargeHello, LookupService, LookupSettings};
use crate::policy::facts::{Lookup, LookupObserver, LookupResult, Source};
use crate::relay::{HostAnswer, HostFuture, LookupFuture, LookupProvider};
use crate::report::{LogLevel, SessionLog};
use crate::time::Timestamp;
use crate::tls::survey_config;

/// Starts the lookup service. Without it a gateway still relays; the log has the reason.
pub(super) fn start_lookups(
    settings: &LookupSettings,
    observer: Arc<dyn LookupObserver>,
    log: &SessionLog,
) -> Option<LookupService> {
    let mut settings = settings.clone();
    if settings.probes.large_segments {
        match survey_config() {
            Ok(config) => settings.large_hello = Some(LargeHello(config)),
            Err(error) => log.notice(
                LogLevel::Warn,
                &format!("probe_large_segments = true has no effect: TLS: {error}"),
            ),
        }
    }
    match LookupService::start(settings, observer) {
        Ok((service, notices)) => {
            notices.iter().for_each(|notice| log.notice(LogLevel::Warn, notice));
            Some(service)
        }
        Err(error) => {
            log.notice(LogLevel::Warn, &format!("lookups are disabled: {error}"));
            None
        }
    }
}

/// Created before the relay, and so before the doors.
pub(super) struct LookupRouter {
    /// `None` if lookups are disabled.
    service: Option<LookupService>,
    /// Of upstreams.
    hosts: Arc<HostNames>,
    doors: OnceLock<DoorHandle>,
}

impl LookupRouter {
    pub(super) fn new(service: Option<LookupService>) -> Self {
        Self { service, hosts: Arc::default(), doors: OnceLock::new() }
    }

    pub(super) fn set_doors(&self, doors: DoorHandle) {
        let _set_before = self.doors.set(doors);
    }
}

impl LookupRouter {
    fn route(&self, lookup: Lookup, client: Option<IpAddr>) -> LookupFuture {
        if let (Lookup::ReceivePath(family), Some(doors)) = (&lookup, self.doors.get()) {
            let (doors, family) = (doors.clone(), *family);
            return Box::pin(async move {
                let answer = doors.receive_path(family).await;
                let at = Some(Timestamp::from_system_time(SystemTime::now()));
                LookupResult { answer, source: Source::Traffic, at }
            });
        }
        match &self.service {
            Some(service) => {
                let service = service.clone();
                Box::pin(async move { service.lookup_for(&lookup, client).await })
            }
            None => ().lookup(lookup),
        }
    }
}

impl LookupProvider for LookupRouter {
    fn lookup(&self, lookup: Lookup) -> LookupFuture {
        self.route(lookup, None)
    }

    fn lookup_for(&self, lookup: Lookup, client: IpAddr) -> LookupFuture {
        self.route(lookup, Some(client))
    }

    fn resolve(&self, name: Arc<str>) -> HostFuture {
        let hosts = Arc::clone(&self.hosts);
        Box::pin(async move {
            let (addresses, ttl) = hosts.resolve(&name).await;
            HostAnswer { addresses, ttl }
        })
    }
}
