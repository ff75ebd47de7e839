//! Captures beside the relay (`[watch]`) for what a proxy cannot see. Relaying takes precedence: a failure here is logged
//! and retried, and never stops the gateway.

use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::capture::{CaptureFailure, CaptureSink, capture, description, panic_message};
use super::own_addresses::OwnAddresses;
use crate::addr::{Family, Networks};
use crate::analyzer::AnalyzerSettings;
use crate::app::pipeline::AnalysisPipeline;
use crate::engine::{Event, Observe, SessionRecord};
use crate::humanize::duration;
use crate::metrics::Metrics;
use crate::report::{LogLevel, SessionLog};
use crate::source::live::{CaptureSettings, LiveCapture, LiveError};
use crate::stream::WatchedPorts;
use crate::traffic::{FlowObserver, Traffic};

/// Pause before the source is opened again.
const RETRY: Duration = Duration::from_secs(30);

/// The handle to the thread.
pub(in crate::app) struct BackgroundWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl BackgroundWatch {
    /// Starts the thread; a missing source is only logged. Mail to our own `upstreams` is no evidence of the paths to
    /// others; mail from the networks `own` is ours, as that of this host. Besides the metrics, `observers` receive each flow.
    ///
    /// # Errors
    /// The thread cannot be created.
    pub(in crate::app) fn start(
        settings: CaptureSettings,
        (upstreams, own): (&[SocketAddr], Networks),
        metrics: Arc<Metrics>,
        log: Arc<SessionLog>,
        observers: Vec<Arc<dyn FlowObserver>>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut observers = observers;
        observers.push(Arc::clone(&metrics) as _);
        let mut worker = CaptureWorker {
            settings,
            upstreams: upstreams.iter().map(|upstream| upstream.ip()).collect(),
            own,
            metrics,
            log,
            observers,
            stop: Arc::clone(&stop),
            previous: None,
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || worker.run())?;
        Ok(Self { stop, thread })
    }

    /// Ends the thread and waits until nothing of it is left in the kernel.
    pub(in crate::app) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // The worker has logged a panic.
        let _panicked = self.thread.join();
    }
}

struct CaptureWorker {
    settings: CaptureSettings,
    upstreams: Vec<IpAddr>,
    own: Networks,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    observers: Vec<Arc<dyn FlowObserver>>,
    stop: Arc<AtomicBool>,
    /// The traffic before the source failed, and its last session number.
    previous: Option<(Traffic, u64)>,
}

impl CaptureWorker {
    fn run(&mut self) {
        let mut logged = String::new();
        while !self.stop.load(Ordering::Relaxed) {
            let ended = catch_unwind(AssertUnwindSafe(|| self.capture()));
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => {
                    format!("a bug in gatepost, please report it: {}", panic_message(&*panic))
                }
            };
            // A repeated error is logged once.
            if error != logged {
                let retry = duration(RETRY);
                let notice =
                    format!("not watching, retried every {retry}; mail is not affected: {error}");
                self.log.notice(LogLevel::Warn, &notice);
                logged = error;
            }
            self.pause();
        }
    }

    fn pause(&self) {
        let deadline = Instant::now() + RETRY;
        while let Some(left) = deadline.checked_duration_since(Instant::now())
            && !self.stop.load(Ordering::Relaxed)
        {
            thread::park_timeout(left);
        }
    }

    /// Captures until it is stopped or the source fails.
    fn capture(&mut self) -> Result<(), CaptureFailure> {
        let live = LiveCapture::open(&self.settings)?;
        self.log.notice(LogLevel::Info, &description(&live));
        let mut own = OwnAddresses::new(self.own.iter());
        let (traffic, numbered) = self.previous.take().unwrap_or_else(|| {
            let upstreams = Networks::new(self.upstreams.iter().map(|ip| (*ip).into()));
            (Traffic::new(own.networks()).excluding(upstreams), 0)
        });
        let settings = AnalyzerSettings {
            ports: WatchedPorts::new(self.settings.ports.iter().copied()),
            observer: Arc::new(DesyncCounter(Arc::clone(&self.metrics))),
            numbered,
            ..AnalyzerSettings::default()
        };
        let mut pipeline = AnalysisPipeline::new(settings, traffic, self.observers.clone());
        // The traffic may be of an earlier source.
        pipeline.set_ours(own.networks());
        let mut sink = LogSink { log: &self.log };
        let ended =
            capture(live, &mut pipeline, &mut sink, &self.stop, Some(&self.metrics), &mut own);
        let numbered = pipeline.analyzer().last_number();
        self.previous = Some((pipeline.into_traffic(), numbered));
        ended
    }
}

/// The relay counts its own sessions, so of watched ones only desyncs are counted.
struct DesyncCounter(Arc<Metrics>);

impl Observe for DesyncCounter {
    fn event(&self, family: Family, event: Event) {
        if matches!(event, Event::Desync(_)) {
            self.0.event(family, event);
        }
    }

    fn session(&self, _: &SessionRecord) {}
}

struct LogSink<'a> {
    log: &'a SessionLog,
}

impl CaptureSink for LogSink<'_> {
    fn on_error(&mut self, error: &LiveError) -> anyhow::Result<()> {
        self.log.notice(LogLevel::Warn, &error.to_string());
        Ok(())
    }
}
