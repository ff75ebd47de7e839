//! One check of a domain from this host. The command and the metrics endpoint use it.

use std::time::Duration;

use tokio::time::Instant;

use super::{OutsideObserver, QuerySources, SMTP, SURVEYS_END, TOTAL, check, survey_tls};
use crate::lookup::{Dns, SurveySettings};
use crate::readiness::{CheckReport, CheckRequest, evaluate};

pub(in crate::app) struct DomainChecker {
    sources: QuerySources,
    deadline: Instant,
}

impl DomainChecker {
    /// A check that begins now and ends after [`TOTAL`] times `timeout`, the limit of each connection. `hostname` is sent in
    /// EHLO.
    ///
    /// # Errors
    /// TLS cannot be configured.
    pub(in crate::app) fn new(
        dns: Dns,
        hostname: String,
        timeout: Duration,
    ) -> anyhow::Result<Self> {
        let deadline = Instant::now() + timeout * TOTAL;
        let survey = SurveySettings {
            hostname,
            port: SMTP,
            timeout,
            deadline: deadline - SURVEYS_END,
            tls: survey_tls()?,
        };
        Ok(Self { sources: QuerySources { dns, survey, vantage: None }, deadline })
    }

    /// Also asks a vantage what it sees from outside.
    #[must_use]
    pub(super) fn asking(mut self, vantage: OutsideObserver) -> Self {
        self.sources.vantage = Some(vantage);
        self
    }

    pub(in crate::app) async fn check(self, request: &CheckRequest) -> CheckReport {
        check(evaluate, request, self.sources, self.deadline).await
    }
}
