//! `gatepost replay FILE…`: analyses captures, evaluates a policy on them, or re-enacts their sessions.

mod output;
mod progress;
mod record_evaluator;
mod reenactment;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use self::output::ReplayReporter;
use self::progress::FileProgress;
use self::record_evaluator::RecordEvaluator;
use self::reenactment::Reenactment;
use super::output::is_closed_pipe;
use super::pipeline::AnalysisPipeline;
use crate::addr::Networks;
use crate::analyzer::{AnalyzerSettings, FinishedSession, Transcripts};
use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::engine::Observe;
use crate::metrics::{ExpositionFormat, Metrics};
use crate::source::{CaptureFile, PacketSource as _};
use crate::stream::WatchedPorts;
use crate::traffic::{FlowObserver, Traffic};

pub(super) async fn replay(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    match run(args).await {
        // The reader has closed the pipe, like `| head`.
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        ended => ended,
    }
}

async fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let config = args.policy.config.as_deref().map(Config::load).transpose()?;
    let metrics = args.metrics_out.as_ref().map(|_| Metrics::new()).transpose()?.map(Arc::new);
    let observer: Arc<dyn Observe> = match &metrics {
        Some(metrics) => Arc::clone(metrics) as _,
        None => Arc::new(()),
    };
    let settings = AnalyzerSettings {
        profiles: config.map_or_else(Arc::default, |config| Arc::new(config.relay.profiles())),
        ports: WatchedPorts::new(WatchedPorts::with_defaults(&args.ports)),
        observer,
        ..AnalyzerSettings::default()
    };
    let mut replayer = Replayer {
        settings,
        policy: RecordEvaluator::new(&args.policy)?,
        reenactment: match args.reenact.target.is_empty() {
            true => None,
            false => Some(Reenactment::start(&args.reenact).await?),
        },
        reporter: ReplayReporter::new(args),
        flow_observers: metrics.iter().map(|metrics| Arc::clone(metrics) as _).collect(),
        traffic: Traffic::new(Networks::new(args.local.iter().copied())),
        wanted: args.session,
        is_complete: true,
        is_as_recorded: true,
    };
    for file in &args.files {
        replayer.file(file).await?;
    }
    let evidence = replayer.traffic.evidence();
    let is_known = !replayer.traffic.ours().is_empty();
    let ports = WatchedPorts::with_defaults(&args.ports);
    replayer.reporter.end(&ports, is_known.then_some(&evidence))?;
    if let (Some(metrics), Some(path)) = (metrics, &args.metrics_out) {
        metrics.set_evidence(&evidence);
        fs::write(path, metrics.encode(ExpositionFormat::Text)).with_context(|| {
            format!("cannot write {}; name a file in a writable directory", path.display())
        })?;
    }
    let is_success = replayer.is_complete && replayer.is_as_recorded;
    Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Replayer {
    settings: AnalyzerSettings,
    policy: Option<RecordEvaluator>,
    reenactment: Option<Reenactment>,
    reporter: ReplayReporter,
    flow_observers: Vec<Arc<dyn FlowObserver>>,
    /// Of all files so far.
    traffic: Traffic,
    /// The session of `--session`.
    wanted: Option<u64>,
    /// Every file was read to its end.
    is_complete: bool,
    /// Every live reply was of the recorded class.
    is_as_recorded: bool,
}

impl Replayer {
    async fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display().to_string();
        let mut capture = match CaptureFile::open(path) {
            Ok(capture) => capture,
            Err(error) => {
                self.is_complete = false;
                return self.reporter.unreadable(&name, &error.to_string());
            }
        };
        let traffic = std::mem::replace(&mut self.traffic, Traffic::new(Networks::default()));
        let observers = self.flow_observers.clone();
        let mut pipeline = AnalysisPipeline::new(self.analyzer_settings(), traffic, observers);
        let mut progress = FileProgress::new(&name);
        loop {
            let packet = match capture.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => {
                    self.is_complete = false;
                    self.reporter.damage(&name, &error.to_string())?;
                    continue; // A source reports an error once, and then ends or continues after it.
                }
            };
            self.reporter.packet(packet.at);
            pipeline.packet(&packet);
            self.publish(&name, &mut pipeline).await?;
            progress.on_packet(|| capture.progress());
        }
        progress.finish();
        pipeline.finish();
        self.publish(&name, &mut pipeline).await?;
        let analyzer = pipeline.analyzer();
        self.reporter.undecoded(&name, analyzer.packet_counts())?;
        self.reporter.given_up(&name, analyzer.stream_counts(), pipeline.dns())?;
        self.settings.numbered = analyzer.last_number();
        self.traffic = pipeline.into_traffic();
        Ok(())
    }

    fn analyzer_settings(&self) -> AnalyzerSettings {
        let transcripts = match (self.wanted, &self.reenactment) {
            (Some(number), _) => Transcripts::One(number),
            (None, Some(_)) => Transcripts::All,
            (None, None) => Transcripts::None,
        };
        AnalyzerSettings { transcripts, ..self.settings.clone() }
    }

    /// Evaluates, re-enacts or reports the sessions that ended.
    async fn publish(&mut self, file: &str, pipeline: &mut AnalysisPipeline) -> anyhow::Result<()> {
        for mut session in pipeline.sessions() {
            let mut unknown = Vec::new();
            if let Some(policy) = &self.policy {
                let FinishedSession { record, answers, .. } = &mut session;
                let profiles = &self.settings.profiles;
                let profile = profiles.of(record.listener.as_deref(), record.server.into());
                let answers = answers.as_deref();
                unknown = policy.evaluate(profile, record, answers, pipeline.dns()).await;
            }
            if let Some(reenactment) = &self.reenactment {
                let result = reenactment.run(&session).await?;
                self.is_as_recorded &= result.is_as_recorded();
                self.reporter.reenacted(&session, &result)?;
            } else {
                self.reporter.session(file, &session, &unknown)?;
            }
        }
        pipeline.fallbacks().iter().try_for_each(|fallback| self.reporter.fallback(fallback))
    }
}
