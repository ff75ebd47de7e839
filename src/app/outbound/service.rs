//! The parts of `[outbound]` in a running gateway.

use std::io;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::OutboundEvidence;
use super::evidence::QUEUE_EVENTS;
use super::mail_log::MailLogReader;
use super::requeue::Requeue;
use super::resets::OutboundResets;
use super::steering::Steering;
use crate::config::OutboundConfig;
use crate::lookup::LookupService;
use crate::metrics::Metrics;
use crate::outbound::CanaryPreference;
use crate::postfix::mail_log::{MailLogFollower, MailLogSettings};
use crate::postfix::socketmap::MapListener;
use crate::report::SessionLog;
use crate::traffic::FlowObserver;

pub(in crate::app) struct OutboundService {
    steering: Steering,
    evidence: OutboundEvidence,
    resets: OutboundResets,
    has_mail_log: bool,
}

impl OutboundService {
    /// Answers Postfix from now on.
    ///
    /// # Errors
    /// The reader of the mail log cannot be started.
    pub(in crate::app) fn start(
        config: &OutboundConfig,
        listener: MapListener,
        lookup: Option<LookupService>,
        metrics: &Arc<Metrics>,
        log: &Arc<SessionLog>,
    ) -> io::Result<Self> {
        let (queue, events) = mpsc::channel(QUEUE_EVENTS);
        let record = Arc::default();
        let evidence = OutboundEvidence::new(
            config.steering,
            queue,
            Arc::clone(&record),
            Arc::clone(metrics),
            Arc::clone(log),
        );
        let requeue = Requeue {
            config_directory: config.config_directory.clone(),
            events,
            metrics: Arc::clone(metrics),
            log: Arc::clone(log),
        };
        tokio::spawn(requeue.run());
        let pins = config.pins.clone();
        let steering = Steering::new(pins, lookup, evidence.clone(), Arc::clone(metrics));
        tokio::spawn(serve_map(listener, steering.clone()));
        if let Some(source) = config.mail_log.clone() {
            let reader = MailLogReader {
                follower: MailLogFollower::start(MailLogSettings::new(source))?,
                evidence: evidence.clone(),
                metrics: Arc::clone(metrics),
                log: Arc::clone(log),
            };
            tokio::spawn(reader.run());
        }
        let resets =
            OutboundResets::start(config.resets.clone(), steering.clone(), record, Arc::clone(log));
        Ok(Self { steering, evidence, resets, has_mail_log: config.mail_log.is_some() })
    }

    pub(in crate::app) const fn evidence(&self) -> &OutboundEvidence {
        &self.evidence
    }

    /// The watched traffic is a source of attempts where no mail log is.
    pub(in crate::app) fn flow_observer(&self) -> Option<Arc<dyn FlowObserver>> {
        (!self.has_mail_log).then(|| Arc::new(self.evidence.clone()) as _)
    }

    /// Passes on to `observer` what shows the paths to others: no connections that this host reset.
    pub(in crate::app) fn without_own_resets(
        &self,
        observer: Arc<dyn FlowObserver>,
    ) -> Arc<dyn FlowObserver> {
        self.evidence.without_own_resets(observer)
    }

    /// Applies pins, times and resets. Without the section nothing is pinned or reset.
    pub(in crate::app) fn reload(&self, config: Option<&OutboundConfig>) {
        self.steering.set_pins(config.map(|config| config.pins.clone()).unwrap_or_default());
        self.evidence.set_settings(config.map(|config| config.steering).unwrap_or_default());
        self.resets.set(config.and_then(|config| config.resets.clone()));
    }

    /// Hosts that filter mail over IPv6 away, as canaries show: it prefers IPv4.
    pub(in crate::app) fn set_canary(&self, preference: Option<CanaryPreference>) {
        self.steering.set_canary(preference);
    }

    /// Leaves nothing in the kernel.
    pub(in crate::app) async fn stop(self) {
        self.resets.stop().await;
    }

    /// Once a second.
    pub(in crate::app) fn on_tick(&self) {
        self.evidence.on_tick();
    }
}

async fn serve_map(listener: MapListener, steering: Steering) {
    let answer = move |record| {
        let steering = steering.clone();
        async move { steering.answer(record).await }
    };
    listener.serve(answer).await;
}
