//! What a gateway watches beside its own relay (`[watch]`): what the relay cannot see. Mail comes first: whatever fails
//! here is told in the log and tried again, and never keeps the gateway from relaying.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::watcher::{Failure, Listener, ours, watch};
use super::{said, watching};
use crate::addr::{Family, Networks};
use crate::analyzer::{AnalyzerSettings, FinishedSession, Transcripts};
use crate::app::reading::{Reading, Told};
use crate::engine::{Event, Observe, Profile, SessionRecord};
use crate::metrics::Metrics;
use crate::report::{LogLevel, SessionLog};
use crate::source::CaptureLoss;
use crate::source::live::{self, LiveCapture, LiveError};
use crate::stream::{FlowLimits, WatchedPorts};
use crate::traffic::Traffic;
use crate::traffic::fallback::Fallback;
use crate::wire::Packet;

/// Between two tries to open the source.
const AGAIN: Duration = Duration::from_secs(30);

/// The thread that watches beside the relay.
pub(in crate::app) struct Beside {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Beside {
    /// Begins to watch; that there is no source is told in the log. `upstreams` are the MTAs behind: mail to them proves
    /// nothing of the ways to others. `told` hears of each flow that passes.
    ///
    /// # Errors
    /// There is no thread for it.
    pub(in crate::app) fn start(
        settings: live::CaptureSettings,
        upstreams: &[SocketAddr],
        metrics: Arc<Metrics>,
        log: Arc<SessionLog>,
        told: Option<Told>,
    ) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let upstreams = upstreams.iter().map(|upstream| upstream.ip()).collect();
        let mut post =
            Post { settings, upstreams, metrics, log, told, stop: Arc::clone(&stop), kept: None };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(move || post.hold())?;
        Ok(Self { stop, thread })
    }

    /// Tells the thread to end and waits until the kernel is as it was before.
    pub(in crate::app) fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        // What it had to say is in the log.
        let _panicked = self.thread.join();
    }
}

struct Post {
    settings: live::CaptureSettings,
    upstreams: Vec<std::net::IpAddr>,
    metrics: Arc<Metrics>,
    log: Arc<SessionLog>,
    told: Option<Told>,
    stop: Arc<AtomicBool>,
    /// What passed before the source failed, and how many sessions were numbered.
    kept: Option<(Traffic, u64)>,
}

impl Post {
    fn hold(&mut self) {
        let mut before = String::new();
        while !self.stop.load(Ordering::Relaxed) {
            let ended = catch_unwind(AssertUnwindSafe(|| self.once()));
            let why = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => {
                    format!("a mistake in gatepost itself, please report it: {}", said(&*panic))
                }
            };
            // Once is enough while it is the same.
            if why != before {
                let again = humantime::format_duration(AGAIN);
                let message =
                    format!("not watching, tried again every {again}, mail goes on: {why}");
                self.log.notice(LogLevel::Warn, &message);
                before = why;
            }
            self.wait();
        }
    }

    fn wait(&self) {
        let until = Instant::now() + AGAIN;
        while let Some(left) = until.checked_duration_since(Instant::now())
            && !self.stop.load(Ordering::Relaxed)
        {
            thread::park_timeout(left);
        }
    }

    /// Watches until told to end, or the source fails.
    fn once(&mut self) -> Result<(), Failure> {
        let live = LiveCapture::open(&self.settings)?;
        self.log.notice(LogLevel::Info, &watching(&live));
        let upstreams = self.upstreams.iter().map(|ip| (*ip).into());
        let ours = ours(&live, []);
        let (traffic, numbered) = self
            .kept
            .take()
            .unwrap_or_else(|| (Traffic::new(ours).excluding(Networks::new(upstreams)), 0));
        let settings = AnalyzerSettings {
            profile: Arc::new(Profile::default()),
            ports: WatchedPorts::new(self.settings.ports.iter().copied()),
            limits: FlowLimits::default(),
            observer: Arc::new(Desyncs(Arc::clone(&self.metrics))),
            transcripts: Transcripts::None,
            numbered,
        };
        let mut reading = Reading::further(settings, traffic)
            .counting(Some(Arc::clone(&self.metrics)))
            .telling(self.told.clone());
        let mut listener = Noting { log: &self.log };
        let ended = watch(live, &mut reading, &mut listener, &self.stop, Some(&self.metrics));
        let numbered = reading.analyst().last_number();
        self.kept = Some((reading.into_traffic(), numbered));
        ended
    }
}

/// The relay counts its own sessions; of the watched ones only what is lost on the way to understanding them.
struct Desyncs(Arc<Metrics>);

impl Observe for Desyncs {
    fn event(&self, family: Family, event: Event) {
        if matches!(event, Event::Desync(_)) {
            self.0.event(family, event);
        }
    }

    fn session(&self, _: &SessionRecord) {}
}

struct Noting<'a> {
    log: &'a SessionLog,
}

impl Listener for Noting<'_> {
    fn packet(&mut self, _: &Packet<'_>) -> anyhow::Result<()> {
        Ok(())
    }

    fn session(&mut self, _: &FinishedSession) -> anyhow::Result<()> {
        Ok(())
    }

    fn fall_back(&mut self, _: &Fallback) -> anyhow::Result<()> {
        Ok(())
    }

    fn look(&mut self, _: &Reading, _: CaptureLoss) -> anyhow::Result<()> {
        Ok(())
    }

    fn trouble(&mut self, what: &LiveError) -> anyhow::Result<()> {
        self.log.notice(LogLevel::Warn, &what.to_string());
        Ok(())
    }
}
