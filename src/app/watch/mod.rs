//! `gatepost watch`: what passes this host's interfaces, told as it passes.
//!
//! The source has a thread of its own (`watcher`), which also writes lines as sessions end; the main thread has signals,
//! HTTP and the live view.

mod beside;
mod copy;
mod screen;
mod telling;
mod watcher;

use std::any::Any;
use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sys::signal::Signal;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

pub(super) use self::beside::Beside;
use self::copy::Copy;
use self::screen::Screen;
use self::telling::{Board, Form, Telling};
use self::watcher::{Failure, ours, source, watch as follow};
use super::reading::Reading;
use super::replay::telling::is_unread;
use crate::analyzer::{AnalyzerSettings, Transcripts};
use crate::cli::{OutputFormat, WatchArgs, WatchSource};
use crate::engine::{Observe, Profile};
use crate::metrics::Metrics;
use crate::metrics::http::{self, HealthState, ReadyState};
use crate::report::watch::{CaptureSource, SessionTable, frame, joined_names};
use crate::source::live::{self, LiveCapture, SourceChoice, SourceKind};
use crate::stream::{FlowLimits, WatchedPorts};

/// How often the view is drawn.
const DRAW: Duration = Duration::from_secs(1);
/// How long the last lines may take; a reader that takes none of them shall not keep the command from ending.
const LAST_LINES: Duration = Duration::from_secs(5);
/// Longer than anybody watches.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

pub(super) async fn watch(asked: &WatchArgs) -> anyhow::Result<ExitCode> {
    let live = LiveCapture::open(&settings(asked))?;
    let post = post(&live);
    let metrics = match asked.metrics {
        Some(address) => Some(Served::at(address).await?),
        None => None,
    };
    // Only now: without a source there shall be no empty file.
    let copy = match &asked.write {
        Some(path) => Some(Copy::create(path, asked.force, live.interfaces())?),
        None => None,
    };
    say(&watching(&live));

    let colour = stdout().is_terminal()
        && anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never;
    let form = match asked.format {
        OutputFormat::Json => Form::Json,
        OutputFormat::Text if Screen::is_there() => Form::View,
        OutputFormat::Text => {
            Form::Lines { lines: SessionTable::new(colour), report: Box::default(), colour }
        }
    };
    let drawn = matches!(form, Form::View);
    let telling = Telling::new(form, post, asked.count, copy);
    let board = telling.board.clone();
    let counted = metrics.as_ref().map(|served| Arc::clone(&served.metrics));
    let watcher = Watcher::start(live, asked, telling, counted)?;
    let ended = if drawn {
        draw(watcher, asked, &board, colour).await
    } else {
        watcher.until_over(asked.duration).await
    };
    match ended {
        // `| head` has read what it wanted.
        Err(error) if is_unread(&error) => Ok(ExitCode::SUCCESS),
        ended => ended.map(|()| ExitCode::SUCCESS),
    }
}

fn settings(asked: &WatchArgs) -> live::CaptureSettings {
    live::CaptureSettings {
        choice: match asked.source {
            WatchSource::Auto => SourceChoice::Auto,
            WatchSource::Ebpf => SourceChoice::Ebpf,
            WatchSource::Pcap => SourceChoice::Pcap,
        },
        interfaces: asked.interfaces.clone(),
        ports: WatchedPorts::with_defaults(&asked.ports),
        buffer: asked.buffer,
    }
}

fn post(live: &LiveCapture) -> CaptureSource {
    CaptureSource {
        source: source(live.kind()).to_owned(),
        interfaces: live.interfaces().iter().map(|interface| interface.name.clone()).collect(),
    }
}

/// `watching eth0 and eth1 by libpcap, since eBPF needs CAP_BPF, which this process lacks`
fn watching(live: &LiveCapture) -> String {
    let post = post(live);
    let why = live.choice_reason().map_or_else(String::new, |why| format!(", since {why}"));
    // Of libpcap nobody expects them: there it is no lack to tell.
    let sockets = live.socket_events_unavailable().filter(|_| live.kind() == SourceKind::Ebpf);
    let less = sockets.map_or_else(String::new, |lack| {
        format!("; without the round-trip times of sockets: {lack}")
    });
    format!("watching {} by {}{why}{less}", joined_names(&post.interfaces), post.source)
}

/// `/metrics` and the others, as long as it lives.
struct Served {
    metrics: Arc<Metrics>,
    _stop: oneshot::Sender<()>,
}

impl Served {
    async fn at(address: std::net::SocketAddr) -> anyhow::Result<Self> {
        let metrics = Arc::new(Metrics::new()?);
        let listener = TcpListener::bind(address).await;
        let listener = listener.with_context(|| {
            format!("cannot listen on {address} for metrics; name another address with --metrics")
        })?;
        let readiness = HealthState::new();
        readiness.set(ReadyState::Ready);
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let router = http::routes(Arc::clone(&metrics), readiness).merge(http::index());
        tokio::spawn(http::serve(listener, router, shutdown));
        Ok(Self { metrics, _stop: stop })
    }
}

/// The thread that watches, from outside.
struct Watcher {
    stop: Arc<AtomicBool>,
    /// Ready when the thread is over, in whatever way.
    over: Option<oneshot::Receiver<()>>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Watcher {
    fn start(
        live: LiveCapture,
        asked: &WatchArgs,
        mut telling: Telling,
        metrics: Option<Arc<Metrics>>,
    ) -> anyhow::Result<Self> {
        let observer: Arc<dyn Observe> = match &metrics {
            Some(metrics) => Arc::clone(metrics) as _,
            None => Arc::new(()),
        };
        let settings = AnalyzerSettings {
            profile: Arc::new(Profile::default()),
            ports: WatchedPorts::new(WatchedPorts::with_defaults(&asked.ports)),
            limits: FlowLimits::default(),
            observer,
            transcripts: Transcripts::None,
            numbered: 0,
        };
        let ours = ours(&live, asked.local.iter().copied());
        let mut reading = Reading::new(settings, ours).counting(metrics.clone());
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, over) = oneshot::channel::<()>();
        let told_to_end = Arc::clone(&stop);
        let task = move || {
            let _over_when_dropped = sender;
            telling.begin()?;
            let ended = follow(live, &mut reading, &mut telling, &told_to_end, metrics.as_deref());
            match ended {
                Err(Failure::Listener(error)) => Err(error),
                Err(Failure::Source(error)) => telling.end(&reading).and(Err(error.into())),
                Ok(()) => telling.end(&reading),
            }
        };
        let thread = thread::Builder::new().name("watch".to_owned()).spawn(task);
        let thread = thread.context("cannot start the thread that watches")?;
        Ok(Self { stop, over: Some(over), thread })
    }

    async fn until_over(mut self, time: Option<Duration>) -> anyhow::Result<()> {
        let mut ending = Ending::watch(time)?;
        tokio::select! {
            () = ending.comes() => {}
            () = self.over() => {}
        }
        self.end().await
    }

    async fn over(&mut self) {
        if let Some(over) = &mut self.over {
            let _ended = over.await;
            self.over = None;
        }
    }

    /// Tells the thread to end, and waits until it did.
    async fn end(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        if timeout(LAST_LINES, self.over()).await.is_err() {
            bail!("nobody reads standard output; ended without what was not written yet");
        }
        match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => bail!(
                "watching failed ({}); the packets are no longer captured and nothing is left in the kernel: \
                 please report this",
                said(&*panic)
            ),
        }
    }
}

/// Signals, and the time of `--duration`.
struct Ending {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    over: std::pin::Pin<Box<tokio::time::Sleep>>,
}

impl Ending {
    fn watch(time: Option<Duration>) -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot watch for signals");
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
            over: Box::pin(sleep(time.unwrap_or(FOR_EVER))),
        })
    }

    async fn comes(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
            () = &mut self.over => {}
        }
    }
}

/// The live view, until the end; then its last state stays where lines usually stand.
async fn draw(
    mut watcher: Watcher,
    asked: &WatchArgs,
    board: &Board,
    colour: bool,
) -> anyhow::Result<()> {
    let mut ending = Ending::watch(asked.duration)?;
    let on = |kind| signal(kind).context("cannot watch for signals");
    let mut resized = on(SignalKind::window_change())?;
    let mut suspended = on(SignalKind::from_raw(Signal::SIGTSTP as i32))?;
    let mut tick = interval(DRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut screen = Screen::take().context("cannot write to the terminal")?;
    let mut drawn = Ok(());
    while drawn.is_ok() {
        tokio::select! {
            () = ending.comes() => break,
            () = watcher.over() => break,
            _ = resized.recv() => {}
            _ = suspended.recv() => screen.suspend().context("cannot write to the terminal")?,
            _ = tick.tick() => {}
        }
        let lines = frame(&board.lock(), screen::size(), colour);
        drawn = screen.draw(&lines);
    }
    let ended = watcher.end().await;
    drop(screen);
    drawn.context("cannot write to the terminal")?;
    let lines = frame(&board.lock(), screen::size(), colour);
    let mut out = stdout().lock();
    for line in lines {
        writeln!(out, "{line}").context("cannot write to the terminal")?;
    }
    ended
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}

/// On standard error: standard output may be JSON.
fn say(text: &str) {
    let _nobody_listens = writeln!(stderr(), "gatepost: {text}");
}
