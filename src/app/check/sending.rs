//! Whether this host's own mail over IPv6 gives receivers a reason to refuse it. `gatepost outbound` shows it where many do.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::{QuerySources, check, host, senders};
use crate::lookup::{Dns, SurveySettings};
use crate::policy::facts::DomainName;
use crate::readiness::{CheckReport, CheckRequest, Origin, evaluate_sending};

/// Of the whole check; somebody waits for the output.
const LIMIT: Duration = Duration::from_secs(6);
const DNS_TIMEOUT: Duration = Duration::from_secs(2);

/// The host that sends.
#[derive(Clone, Debug)]
pub(in crate::app) struct CheckedHost {
    /// Of its senders, for SPF and DMARC.
    pub(in crate::app) domain: DomainName,
    /// Of its Postfix, if that is not the system's.
    pub(in crate::app) config_directory: Option<PathBuf>,
}

/// Checks the addresses from which this host sends. Queries without an answer in time are unknown in the report.
///
/// # Errors
/// No DNS server is known, or the kernel does not list this host's addresses.
pub(in crate::app) async fn check_sending(
    host: CheckedHost,
) -> anyhow::Result<(CheckRequest, CheckReport)> {
    let deadline = Instant::now() + LIMIT;
    let dns = Dns::for_domain_check(None, DNS_TIMEOUT)?;
    let interfaces = host::interfaces().await?;
    // Another MTA has no such configuration, and the rest is checked all the same.
    let postfix = host::postfix(host.config_directory.as_deref()).ok();
    let bound = postfix.as_ref().map(|postfix| postfix.bind_addresses()).unwrap_or_default();
    let (senders, senders_from) = senders(&interfaces, &bound);
    let helo = postfix.as_ref().and_then(|postfix| Some((postfix.helo()?, Origin::Postfix)));
    let survey = SurveySettings {
        hostname: host.domain.to_string(),
        port: super::SMTP,
        timeout: LIMIT,
        deadline,
        tls: super::survey_tls()?,
    };
    let request = CheckRequest {
        senders,
        senders_from,
        helo,
        interfaces,
        postfix,
        ..CheckRequest::new(host.domain)
    };
    let sources = QuerySources { dns, survey, vantage: None };
    let report = check(evaluate_sending, &request, sources, deadline).await;
    Ok((request, report))
}
