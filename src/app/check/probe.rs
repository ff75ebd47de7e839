//! The checks behind `/probe` of a metrics endpoint.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::{DNS_TIMEOUT, DomainChecker, TOTAL, closed_doors, host, senders};
use crate::addr::Networks;
use crate::lookup::Dns;
use crate::metrics::domain_check::{CheckFuture, DomainCheckSettings, DomainChecks};
use crate::policy::facts::DomainName;
use crate::readiness::{CheckReport, CheckRequest, Control};

/// Of each connection, if the scraper waits long enough; that of `gatepost check`.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The host on which checks run.
#[derive(Clone, Debug)]
pub(in crate::app) struct CheckingHost {
    /// `None` for the system's.
    pub(in crate::app) dns: Option<SocketAddr>,
    /// For EHLO.
    pub(in crate::app) hostname: String,
    /// Hosts known to answer on port 25.
    pub(in crate::app) controls: Vec<Control>,
    /// Of its gateway, which knows the doors that it has closed.
    pub(in crate::app) control_socket: Option<PathBuf>,
    /// The networks behind that gateway.
    pub(in crate::app) site: Networks,
}

/// Checks the domains of `settings`, which are listed in `list`.
pub(in crate::app) fn domain_checks(
    settings: DomainCheckSettings,
    list: &'static str,
    host: CheckingHost,
) -> Arc<DomainChecks> {
    let run = move |domain, limit: Duration| {
        let host = host.clone();
        Box::pin(async move {
            let report = host.check(domain, limit).await;
            report.map_err(|error| format!("{error:#}"))
        }) as CheckFuture
    };
    Arc::new(DomainChecks::new(settings, list, Box::new(run)))
}

impl CheckingHost {
    async fn check(self, domain: DomainName, limit: Duration) -> anyhow::Result<CheckReport> {
        let timeout = (limit / TOTAL).min(TIMEOUT);
        let dns = Dns::for_domain_check(self.dns, timeout.min(DNS_TIMEOUT)).context("DNS")?;
        let checker = DomainChecker::new(dns, self.hostname, timeout)?;
        let interfaces = host::interfaces().await?;
        let (senders, senders_from) = senders(&interfaces, &[]);
        let closed_doors = match self.control_socket {
            Some(socket) => closed_doors(&socket).await,
            None => BTreeMap::new(),
        };
        let request = CheckRequest {
            senders,
            senders_from,
            interfaces,
            controls: self.controls,
            closed_doors,
            behind_gateway: self.site,
            ..CheckRequest::new(domain)
        };
        Ok(checker.check(&request).await)
    }
}
