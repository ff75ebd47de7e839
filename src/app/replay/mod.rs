//! `gatepost replay FILE…`: captures through the core, as an analyst, a judge, or an actor.

mod act;
mod attempt;
mod facts;
mod progress;
mod telling;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use self::act::Stage;
use self::attempt::attempt;
use self::facts::FactFinder;
use self::progress::Progress;
use self::telling::Telling;
use crate::analyst::{Analyst, Session, Settings, Transcripts};
use crate::cli::Replay;
use crate::config::Config;
use crate::engine::{Observe, Profile};
use crate::metrics::Metrics;
use crate::reach::Capture;
use crate::source::{CaptureFile, PacketSource as _};
use crate::stream::{Limits, Ports};
use crate::time::Timestamp;
use crate::traffic::pairs::Pairs;

/// How often, in the capture's time, fall-backs are looked for and flows are looked over.
const LOOK: Duration = Duration::from_secs(60);

pub(super) async fn replay(asked: &Replay) -> anyhow::Result<ExitCode> {
    match tell(asked).await {
        // `| head` has read what it wanted.
        Err(error) if telling::is_unread(&error) => Ok(ExitCode::SUCCESS),
        ended => ended,
    }
}

async fn tell(asked: &Replay) -> anyhow::Result<ExitCode> {
    let config = asked.judge.config.as_deref().map(Config::load).transpose()?;
    let metrics = asked.metrics_out.as_ref().map(|_| Metrics::new()).transpose()?.map(Arc::new);
    let observer: Arc<dyn Observe> = match &metrics {
        Some(metrics) => Arc::clone(metrics) as _,
        None => Arc::new(()),
    };
    let settings = Settings {
        profile: Arc::new(config.map_or_else(Profile::default, |config| config.relay.profile())),
        ports: Ports::new(ports(&asked.ports)),
        limits: Limits::default(),
        observer,
        transcripts: Transcripts::None,
    };
    let mut replayer = Replayer {
        settings,
        facts: FactFinder::new(&asked.judge)?,
        stage: match asked.act.against.is_empty() {
            true => None,
            false => Some(Stage::set(&asked.act).await?),
        },
        telling: Telling::new(asked),
        wanted: asked.session,
        numbered: 0,
        whole: true,
        as_recorded: true,
    };
    for file in &asked.files {
        replayer.file(file).await?;
    }
    replayer.telling.end(&ports(&asked.ports))?;
    if let (Some(metrics), Some(path)) = (metrics, &asked.metrics_out) {
        fs::write(path, metrics.encode()).with_context(|| {
            format!(
                "cannot write {}; name a file in a directory that this user may write to",
                path.display()
            )
        })?;
    }
    Ok(if replayer.whole && replayer.as_recorded { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Those that are taken for SMTP without a look at the greeting.
fn ports(more: &[u16]) -> Vec<u16> {
    let mut ports = Ports::DEFAULT.to_vec();
    ports.extend(more.iter().filter(|port| !Ports::DEFAULT.contains(port)));
    ports
}

struct Replayer {
    settings: Settings,
    facts: Option<FactFinder>,
    stage: Option<Stage>,
    telling: Telling,
    /// The session of `--session`.
    wanted: Option<u64>,
    /// Sessions in the files before: numbers go on from file to file.
    numbered: u64,
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
        let mut reading = Reading::new(self.settings(), self.numbered);
        let mut progress = Progress::new(&name);
        let mut next_look = Timestamp::default();
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
            let at = packet.at;
            self.telling.packet(at);
            if let Some(datagram) = reading.analyst.packet(&packet) {
                reading.dns.datagram(&datagram);
            }
            reading.take();
            if !reading.over.is_empty() {
                self.sessions(&name, &mut reading).await?;
            }
            if at > next_look {
                next_look = at + LOOK;
                self.fall_backs(&mut reading, Some(at))?;
            }
            progress.at(|| capture.progress());
        }
        progress.end();
        reading.analyst.finish();
        reading.take();
        self.sessions(&name, &mut reading).await?;
        self.fall_backs(&mut reading, None)?;
        self.telling.unread(&name, reading.analyst.counts())?;
        self.telling.given_up(&name, reading.analyst.given_up(), &reading.dns)?;
        self.numbered = reading.highest;
        Ok(())
    }

    fn settings(&self) -> Settings {
        let transcripts = match (self.wanted, &self.stage) {
            (Some(number), _) => {
                number.checked_sub(self.numbered).map_or(Transcripts::None, Transcripts::One)
            }
            (None, Some(_)) => Transcripts::All,
            (None, None) => Transcripts::None,
        };
        Settings { transcripts, ..self.settings.clone() }
    }

    /// Tells the sessions that are over.
    async fn sessions(&mut self, file: &str, reading: &mut Reading) -> anyhow::Result<()> {
        for mut session in std::mem::take(&mut reading.over) {
            let mut unknown = Vec::new();
            if let Some(finder) = &mut self.facts {
                let facts = finder.facts(&session.record, &reading.dns).await;
                unknown = facts::unknown(&facts);
                session.record.facts = Some(facts);
            }
            reading.pairs.push(attempt(&session));
            if let Some(stage) = &self.stage {
                let outcome = stage.perform(&session).await?;
                self.as_recorded &= outcome.is_as_recorded();
                self.telling.performed(&session, &outcome)?;
            } else {
                self.telling.session(file, &session, &unknown)?;
            }
        }
        Ok(())
    }

    /// Tells the fall-backs that are certain by `now`, or all at the end.
    fn fall_backs(&mut self, reading: &mut Reading, now: Option<Timestamp>) -> anyhow::Result<()> {
        let names = reading.dns.server_names();
        let share = |one, other| {
            let known = names.of(one).next().is_some() && names.of(other).next().is_some();
            known.then(|| names.common(one, other).is_some())
        };
        let mut found = Vec::new();
        match now {
            Some(now) => reading.pairs.advance(now, &share, &mut |pair| found.push(pair)),
            None => reading.pairs.finish(&share, &mut |pair| found.push(pair)),
        }
        found.iter().try_for_each(|pair| self.telling.fall_back(pair))
    }
}

/// One capture on its way.
struct Reading {
    analyst: Analyst,
    /// What DNS servers said in it.
    dns: Capture,
    pairs: Pairs,
    over: Vec<Session>,
    /// What was numbered before.
    base: u64,
    highest: u64,
}

impl Reading {
    fn new(settings: Settings, base: u64) -> Self {
        Self {
            analyst: Analyst::new(settings),
            dns: Capture::default(),
            pairs: Pairs::new(),
            over: Vec::new(),
            base,
            highest: base,
        }
    }

    /// Takes over the sessions that the analyst has finished, with numbers of the whole replay.
    fn take(&mut self) {
        for mut session in self.analyst.sessions() {
            session.number += self.base;
            self.highest = self.highest.max(session.number);
            self.over.push(session);
        }
    }
}
