//! `gatepost replay FILE…`: captures through the core, as an analyst, a judge, or an actor.

mod facts;
mod progress;
mod reenactment;
pub(super) mod telling;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;

use self::facts::FactFinder;
use self::progress::Progress;
use self::reenactment::Reenactment;
use self::telling::Telling;
use super::reading::Reading;
use crate::addr::Networks;
use crate::analyzer::{AnalyzerSettings, FinishedSession, Transcripts};
use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::engine::{Observe, Profile};
use crate::metrics::{ExpositionFormat, Metrics};
use crate::source::{CaptureFile, PacketSource as _};
use crate::stream::{FlowLimits, WatchedPorts};
use crate::traffic::Traffic;

pub(super) async fn replay(asked: &ReplayArgs) -> anyhow::Result<ExitCode> {
    match tell(asked).await {
        // `| head` has read what it wanted.
        Err(error) if telling::is_unread(&error) => Ok(ExitCode::SUCCESS),
        ended => ended,
    }
}

async fn tell(asked: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let config = asked.policy.config.as_deref().map(Config::load).transpose()?;
    let metrics = asked.metrics_out.as_ref().map(|_| Metrics::new()).transpose()?.map(Arc::new);
    let observer: Arc<dyn Observe> = match &metrics {
        Some(metrics) => Arc::clone(metrics) as _,
        None => Arc::new(()),
    };
    let settings = AnalyzerSettings {
        profile: Arc::new(config.map_or_else(Profile::default, |config| config.relay.profile())),
        ports: WatchedPorts::new(WatchedPorts::with_defaults(&asked.ports)),
        limits: FlowLimits::default(),
        observer,
        transcripts: Transcripts::None,
        numbered: 0,
    };
    let mut replayer = Replayer {
        settings,
        facts: FactFinder::new(&asked.policy)?,
        reenactment: match asked.reenact.target.is_empty() {
            true => None,
            false => Some(Reenactment::start(&asked.reenact).await?),
        },
        telling: Telling::new(asked),
        metrics: metrics.clone(),
        traffic: Traffic::new(Networks::new(asked.local.iter().copied())),
        wanted: asked.session,
        whole: true,
        as_recorded: true,
    };
    for file in &asked.files {
        replayer.file(file).await?;
    }
    let evidence = replayer.traffic.evidence();
    let known = !replayer.traffic.ours().is_empty();
    replayer.telling.end(&WatchedPorts::with_defaults(&asked.ports), known.then_some(&evidence))?;
    if let (Some(metrics), Some(path)) = (metrics, &asked.metrics_out) {
        metrics.set_evidence(&evidence);
        fs::write(path, metrics.encode(ExpositionFormat::Text)).with_context(|| {
            format!(
                "cannot write {}; name a file in a directory that this user may write to",
                path.display()
            )
        })?;
    }
    Ok(if replayer.whole && replayer.as_recorded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Replayer {
    settings: AnalyzerSettings,
    facts: Option<FactFinder>,
    reenactment: Option<Reenactment>,
    telling: Telling,
    metrics: Option<Arc<Metrics>>,
    /// Of all files so far.
    traffic: Traffic,
    /// The session of `--session`.
    wanted: Option<u64>,
    /// Every file was read to its end.
    whole: bool,
    /// Every answer was of the recorded class.
    as_recorded: bool,
}

impl Replayer {
    async fn file(&mut self, path: &Path) -> anyhow::Result<()> {
        let name = path.display().to_string();
        let mut capture = match CaptureFile::open(path) {
            Ok(capture) => capture,
            Err(error) => {
                self.whole = false;
                return self.telling.unreadable(&name, &error.to_string());
            }
        };
        let traffic = std::mem::replace(&mut self.traffic, Traffic::new(Networks::default()));
        let mut reading = Reading::further(self.settings(), traffic).counting(self.metrics.clone());
        let mut progress = Progress::new(&name);
        loop {
            let packet = match capture.next() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => {
                    self.whole = false;
                    self.telling.damage(&name, &error.to_string())?;
                    continue; // A source says what is wrong once, and ends, or goes on behind it.
                }
            };
            self.telling.packet(packet.at);
            reading.packet(&packet);
            self.tell(&name, &mut reading).await?;
            progress.at(|| capture.progress());
        }
        progress.end();
        reading.finish();
        self.tell(&name, &mut reading).await?;
        self.telling.unread(&name, reading.analyst().packet_counts())?;
        self.telling.given_up(&name, reading.analyst().stream_counts(), reading.dns())?;
        self.settings.numbered = reading.analyst().last_number();
        self.traffic = reading.into_traffic();
        Ok(())
    }

    fn settings(&self) -> AnalyzerSettings {
        let transcripts = match (self.wanted, &self.reenactment) {
            (Some(number), _) => Transcripts::One(number),
            (None, Some(_)) => Transcripts::All,
            (None, None) => Transcripts::None,
        };
        AnalyzerSettings { transcripts, ..self.settings.clone() }
    }

    /// Tells the sessions that are over and the fall-backs that are certain.
    async fn tell(&mut self, file: &str, reading: &mut Reading) -> anyhow::Result<()> {
        for mut session in reading.sessions() {
            let mut unknown = Vec::new();
            if let Some(finder) = &self.facts {
                let FinishedSession { record, note, .. } = &mut session;
                let profile = &self.settings.profile;
                finder.judge(profile, record, note.as_deref(), reading.dns()).await;
                unknown = record.facts.as_ref().map(facts::unknown).unwrap_or_default();
            }
            if let Some(reenactment) = &self.reenactment {
                let outcome = reenactment.run(&session).await?;
                self.as_recorded &= outcome.is_as_recorded();
                self.telling.reenacted(&session, &outcome)?;
            } else {
                self.telling.session(file, &session, &unknown)?;
            }
        }
        reading.fall_backs().iter().try_for_each(|pair| self.telling.fall_back(pair))
    }
}
