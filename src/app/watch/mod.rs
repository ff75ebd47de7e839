//! `gatepost watch`: SMTP sessions on this host's interfaces, reported as they end.
//!
//! The source has its own thread (`capture`), as have the lines that are written as sessions end (`lines`). The main thread
//! handles signals, HTTP and the live view.

mod background;
mod capture;
mod clean;
mod copy;
mod lines;
mod output;
mod own_addresses;
mod screen;

use std::io::{Write as _, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::SignalKind;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, timeout};

pub(super) use self::background::BackgroundWatch;
use self::capture::{CaptureFailure, capture, description, panic_message, source};
pub(super) use self::clean::clean;
use self::copy::PacketCopy;
use self::lines::LineOutput;
use self::output::{SharedView, WatchOutput, WatchReporter};
use self::own_addresses::OwnAddresses;
use self::screen::Screen;
use super::metrics_endpoint::{HttpEndpoint, serve_with_index};
use super::output::{has_colour, is_closed_pipe, note, print};
use super::pipeline::AnalysisPipeline;
use super::signals::{Shutdown, on};
use crate::analyzer::AnalyzerSettings;
use crate::cli::{OutputFormat, WatchArgs, WatchCommand, WatchSource};
use crate::engine::Observe;
use crate::metrics::Metrics;
use crate::report::watch::{SessionTable, frame};
use crate::source::live::{CaptureSettings, LiveCapture, SourceChoice};
use crate::stream::WatchedPorts;
use crate::traffic::{FlowObserver, Traffic};

/// Interval at which the view is drawn.
const DRAW: Duration = Duration::from_secs(1);
/// Time to write the last lines; a reader that does not read must not keep the command from ending.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
const TERMINAL: &str = "cannot write to the terminal";

pub(super) async fn watch(args: &WatchArgs) -> anyhow::Result<ExitCode> {
    if let Some(WatchCommand::Clean) = args.command {
        print(&clean()?)?;
        return Ok(ExitCode::SUCCESS);
    }
    // Before the source is open: a signal must not end the process while filters are attached.
    let stop = StopSignals::new(args.duration)?;
    let live = LiveCapture::open(&settings(args))?;
    let metrics = match args.metrics {
        Some(address) => Some(serve_metrics(address).await?),
        None => None,
    };
    // After the source is open: without one, no empty file is created.
    let copy = match &args.write {
        Some(path) => Some(PacketCopy::create(path, args.force, live.interfaces())?),
        None => None,
    };
    note(&description(&live));

    let colour = has_colour();
    let output = match args.format {
        OutputFormat::Json => WatchOutput::Json(LineOutput::start()?),
        OutputFormat::Text if Screen::is_available() => WatchOutput::View,
        OutputFormat::Text => {
            let (lines, table) = (LineOutput::start()?, SessionTable::new(colour));
            WatchOutput::Lines { lines, table, report: Box::default(), colour }
        }
    };
    let is_view = matches!(output, WatchOutput::View);
    let reporter = WatchReporter::new(output, source(&live), args.count, copy);
    let view = reporter.view.clone();
    let thread_metrics = metrics.as_ref().map(|(metrics, _)| Arc::clone(metrics));
    let thread = CaptureThread::start(live, args, reporter, thread_metrics)?;
    let ended = if is_view {
        draw(thread, stop, &view, colour).await
    } else {
        thread.run_until(stop).await
    };
    match ended {
        // The reader has closed the pipe, like `| head`.
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

fn settings(args: &WatchArgs) -> CaptureSettings {
    CaptureSettings {
        choice: match args.source {
            WatchSource::Auto => SourceChoice::Auto,
            WatchSource::Ebpf => SourceChoice::Ebpf,
            WatchSource::Pcap => SourceChoice::Pcap,
        },
        interfaces: args.interfaces.clone(),
        ports: WatchedPorts::with_defaults(&args.ports),
        buffer: args.buffer,
    }
}

async fn serve_metrics(
    address: std::net::SocketAddr,
) -> anyhow::Result<(Arc<Metrics>, HttpEndpoint)> {
    let metrics = Arc::new(Metrics::new()?);
    metrics.set_not_intercepting();
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| {
        format!("cannot listen on {address} for metrics; name another address with --metrics")
    })?;
    let endpoint = serve_with_index(listener, Arc::clone(&metrics));
    Ok((metrics, endpoint))
}

struct CaptureThread {
    stop: Arc<AtomicBool>,
    /// Resolves when the thread ends in any way; `None` afterwards.
    ended: Option<oneshot::Receiver<()>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl CaptureThread {
    fn start(
        live: LiveCapture,
        args: &WatchArgs,
        mut reporter: WatchReporter,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<Self> {
        let observer: Arc<dyn Observe> = match &metrics {
            Some(metrics) => Arc::clone(metrics) as _,
            None => Arc::new(()),
        };
        let settings = AnalyzerSettings {
            ports: WatchedPorts::new(WatchedPorts::with_defaults(&args.ports)),
            observer,
            ..AnalyzerSettings::default()
        };
        let mut own = OwnAddresses::new(args.local.iter().copied());
        let traffic = Traffic::new(own.networks());
        let observers = metrics.iter().map(|metrics| Arc::clone(metrics) as Arc<dyn FlowObserver>);
        let mut pipeline = AnalysisPipeline::new(settings, traffic, observers.collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, ended) = oneshot::channel::<()>();
        let stop_flag = Arc::clone(&stop);
        let task = move || {
            let _ended_when_dropped = sender;
            reporter.begin()?;
            match capture(
                live,
                &mut pipeline,
                &mut reporter,
                &stop_flag,
                metrics.as_deref(),
                &mut own,
            ) {
                Err(CaptureFailure::Sink(error)) => Err(error),
                Err(CaptureFailure::Source(error)) => {
                    reporter.end(&pipeline).and(Err(error.into()))
                }
                Ok(()) => reporter.end(&pipeline),
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(task);
        let thread = thread.context("cannot start the capture thread")?;
        Ok(Self { stop, ended: Some(ended), thread })
    }

    async fn run_until(mut self, mut stop: StopSignals) -> anyhow::Result<()> {
        tokio::select! {
            () = stop.requested() => {}
            () = self.ended() => {}
        }
        self.stop().await
    }

    async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            let _dropped = ended.await;
            self.ended = None;
        }
    }

    /// Stops the thread and waits for its end.
    async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if timeout(FLUSH_TIMEOUT, self.ended()).await.is_err() {
            bail!("standard output is not read; stopped without writing the last lines");
        }
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => bail!(
                "watching failed ({}); the capture has stopped and nothing is left in the kernel: please report this",
                panic_message(&*panic)
            ),
        }
    }
}

/// Signals, and the limit of `--duration`. SIGHUP and SIGQUIT are handled so that the terminal is restored.
struct StopSignals {
    shutdown: Shutdown,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
}

impl StopSignals {
    fn new(limit: Option<Duration>) -> anyhow::Result<Self> {
        let (hangup, quit) = (on(SignalKind::hangup())?, on(SignalKind::quit())?);
        Ok(Self { shutdown: Shutdown::new(limit)?, hangup, quit })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.shutdown.requested() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}

/// Draws the live view until the end. Its last state then stays on the normal screen.
async fn draw(
    mut thread: CaptureThread,
    mut stop: StopSignals,
    view: &SharedView,
    colour: bool,
) -> anyhow::Result<()> {
    let mut resized = on(SignalKind::window_change())?;
    let mut suspended = on(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
    let mut tick = interval(DRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut screen = Screen::open().context(TERMINAL)?;
    let mut drawn = Ok(());
    while drawn.is_ok() {
        tokio::select! {
            () = stop.requested() => break,
            () = thread.ended() => break,
            _ = resized.recv() => {}
            _ = suspended.recv() => screen.suspend().context(TERMINAL)?,
            _ = tick.tick() => {}
        }
        let lines = frame(&view.lock(), screen::size(), colour);
        drawn = screen.draw(&lines);
    }
    let ended = thread.stop().await;
    drop(screen);
    drawn.context(TERMINAL)?;
    let lines = frame(&view.lock(), screen::size(), colour);
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}").context(TERMINAL)?;
    }
    ended
}
