//! Every metric family of the gateway: names, labels, help texts, and how events count.
//!
//! Layer 4, on crate `prometheus`. Label values are closed sets, and never an address, a domain, a HELO name or reply
//! text. Every series exists from the start at zero, so that `rate()` sees the first event; its handle is resolved then,
//! and counting an event is an array index and an atomic add.

pub mod http;
mod reply_code;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder, core::Collector,
};

use crate::addr::Family;
use crate::engine::{
    Anomaly, AttemptOutcome, Desync, Direction, Event, Observe, Outcome, Phase, Refusal,
    ReplySource, SessionRecord, Starttls,
};
use crate::smtp::Verb;

const PREFIX: &str = "gatepost";

/// Seconds. From a reply of a host next door to the longest of RFC 5321's time-outs; 30, 60, 300 and 600 are where
/// usual time-outs lie.
const PHASE_BUCKETS: [f64; 13] =
    [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 600.0];

/// Why the metrics could not be set up: always a mistake in this module, never in the configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    #[error("could not set up a metric family: {0}")]
    Prometheus(#[from] prometheus::Error),
    #[error("a metric label has {found} values where its set has {expected}")]
    LabelSet { expected: usize, found: usize },
}

/// All metric families, with a registry of their own.
pub struct Metrics {
    registry: Registry,
    by_family: [ByFamily; Family::ALL.len()],
    config_reloads_applied: IntCounter,
    config_reloads_failed: IntCounter,
    log_lines_dropped: IntCounter,
    record_omitted_octets: IntCounter,
    sessions_limit: IntGauge,
}

/// The families as registered. Only [`Metrics::new`] needs them; counting goes by the handles in [`ByFamily`].
struct Families {
    sessions_total: IntCounterVec,
    sessions: IntGaugeVec,
    commands: IntCounterVec,
    replies: IntCounterVec,
    messages: IntCounterVec,
    message_bytes: IntCounterVec,
    relayed_bytes: IntCounterVec,
    phase_duration: HistogramVec,
    refusals: IntCounterVec,
    upstream_attempts: IntCounterVec,
    starttls: IntCounterVec,
    anomalies: IntCounterVec,
    parser_desyncs: IntCounterVec,
    config_reloads: IntCounterVec,
    log_lines_dropped: IntCounter,
    record_omitted_octets: IntCounter,
    sessions_limit: IntGauge,
}

impl Families {
    /// The one place that names them.
    fn register(registry: &Registry) -> Result<Self, MetricsError> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help).namespace(PREFIX), labels)?;
            register(registry, family)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::with_opts(Opts::new(name, help).namespace(PREFIX))?;
            register(registry, gauge)
        };
        let build_info = IntGaugeVec::new(
            Opts::new("build_info", "Always 1; the label tells the version.").namespace(PREFIX),
            &["version"],
        )?;
        build_info.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION")])?.set(1);
        register(registry, build_info)?;
        registry.register(Box::new(ProcessCollector::for_self()))?;

        Ok(Self {
            sessions_total: counter(
                "sessions_total",
                "Sessions that ended, by how. `family` is the client's here and everywhere but in upstream attempts.",
                &["family", "outcome"],
            )?,
            sessions: register(
                registry,
                IntGaugeVec::new(
                    Opts::new("sessions", "Sessions open now.").namespace(PREFIX),
                    &["family"],
                )?,
            )?,
            commands: counter(
                "commands_total",
                "Commands from clients, before STARTTLS.",
                &["family", "verb"],
            )?,
            replies: counter(
                "replies_total",
                "Complete replies to clients, by who wrote them.",
                &["family", "source", "class", "code"],
            )?,
            messages: counter(
                "messages_total",
                "Messages by the class of the reply to their end of data; 2xx is accepted.",
                &["family", "class"],
            )?,
            message_bytes: counter(
                "message_bytes_total",
                "Octets of the messages that upstream accepted.",
                &["family"],
            )?,
            relayed_bytes: counter(
                "relayed_bytes_total",
                "Octets relayed, also those after STARTTLS.",
                &["family", "direction"],
            )?,
            phase_duration: register(
                registry,
                HistogramVec::new(
                    HistogramOpts::new(
                        "phase_duration_seconds",
                        "How long the phases of a session took.",
                    )
                    .namespace(PREFIX)
                    .buckets(PHASE_BUCKETS.to_vec()),
                    &["family", "phase"],
                )?,
            )?,
            refusals: counter(
                "refusals_total",
                "What the gateway itself refused, by reason.",
                &["family", "reason"],
            )?,
            upstream_attempts: counter(
                "upstream_attempts_total",
                "Connection attempts to upstreams; `family` is the upstream's.",
                &["family", "outcome"],
            )?,
            starttls: counter(
                "starttls_total",
                "STARTTLS commands by what became of them.",
                &["family", "outcome"],
            )?,
            anomalies: counter(
                "anomalies_total",
                "Things that a clean session does not contain.",
                &["family", "anomaly"],
            )?,
            parser_desyncs: counter(
                "parser_desyncs_total",
                "Dialogues in captured traffic that could not be followed for a while, by why.",
                &["family", "cause"],
            )?,
            config_reloads: counter(
                "config_reloads_total",
                "Configuration reloads (SIGHUP); after a failed one the old configuration stays.",
                &["result"],
            )?,
            log_lines_dropped: register(
                registry,
                IntCounter::with_opts(
                    Opts::new(
                        "log_lines_dropped_total",
                        "Log lines lost because the log took them too slowly or not at all.",
                    )
                    .namespace(PREFIX),
                )?,
            )?,
            record_omitted_octets: register(
                registry,
                IntCounter::with_opts(
                    Opts::new(
                        "record_omitted_octets_total",
                        "Octets that `gatepost record` did not get because it was too slow.",
                    )
                    .namespace(PREFIX),
                )?,
            )?,
            sessions_limit: gauge(
                "sessions_limit",
                "Sessions that may be open at once: `limits.sessions` of the configuration in force.",
            )?,
        })
    }
}

fn register<C: Collector + Clone + 'static>(
    registry: &Registry,
    family: C,
) -> Result<C, MetricsError> {
    registry.register(Box::new(family.clone()))?;
    Ok(family)
}

/// The handles of one address family's series, in arrays by the `index()` of their label.
struct ByFamily {
    sessions_total: [IntCounter; Outcome::ALL.len()],
    sessions: IntGauge,
    commands: [IntCounter; Verb::ALL.len()],
    /// By source, then by [`reply_code::slot`].
    replies: [[IntCounter; reply_code::SLOTS]; ReplySource::ALL.len()],
    /// By [`reply_code::class`].
    messages: [IntCounter; reply_code::CLASSES.len()],
    message_bytes: IntCounter,
    relayed_bytes: [IntCounter; Direction::ALL.len()],
    phase_duration: [Histogram; Phase::ALL.len()],
    refusals: [IntCounter; Refusal::ALL.len()],
    upstream_attempts: [IntCounter; AttemptOutcome::ALL.len()],
    starttls: [IntCounter; Starttls::ALL.len()],
    anomalies: [IntCounter; Anomaly::ALL.len()],
    parser_desyncs: [IntCounter; Desync::ALL.len()],
}

impl ByFamily {
    /// Makes every series of `family`, at zero.
    fn resolve(families: &Families, family: Family) -> Result<Self, MetricsError> {
        let family = family.as_str();
        /// The series of a `{family, <label>}` counter, one for each value of the label.
        macro_rules! each {
            ($vec:ident, $values:expr) => {
                array($values.iter().map(|value| {
                    let labels = [family, value.as_str()];
                    families.$vec.get_metric_with_label_values(&labels)
                }))?
            };
        }
        let replies = |source: ReplySource| {
            array(reply_code::labels().map(|(class, code)| {
                let labels = [family, source.as_str(), class, code];
                families.replies.get_metric_with_label_values(&labels)
            }))
        };
        Ok(Self {
            sessions_total: each!(sessions_total, Outcome::ALL),
            sessions: families.sessions.get_metric_with_label_values(&[family])?,
            commands: each!(commands, Verb::ALL),
            // In the order of their index.
            replies: [replies(ReplySource::Upstream)?, replies(ReplySource::Gateway)?],
            messages: array(
                reply_code::CLASSES
                    .iter()
                    .map(|class| families.messages.get_metric_with_label_values(&[family, class])),
            )?,
            message_bytes: families.message_bytes.get_metric_with_label_values(&[family])?,
            relayed_bytes: each!(relayed_bytes, Direction::ALL),
            phase_duration: each!(phase_duration, Phase::ALL),
            refusals: each!(refusals, Refusal::ALL),
            upstream_attempts: each!(upstream_attempts, AttemptOutcome::ALL),
            starttls: each!(starttls, Starttls::ALL),
            anomalies: each!(anomalies, Anomaly::ALL),
            parser_desyncs: each!(parser_desyncs, Desync::ALL),
        })
    }
}

fn array<T, const N: usize>(
    handles: impl Iterator<Item = prometheus::Result<T>>,
) -> Result<[T; N], MetricsError> {
    let handles: Vec<T> = handles.collect::<prometheus::Result<_>>()?;
    <[T; N]>::try_from(handles)
        .map_err(|handles| MetricsError::LabelSet { expected: N, found: handles.len() })
}

impl Metrics {
    /// Every series of the closed label sets, at zero.
    ///
    /// # Errors
    /// Only if this module names a family wrongly or twice.
    pub fn new() -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let families = Families::register(&registry)?;
        let reloads = |result| families.config_reloads.get_metric_with_label_values(&[result]);
        Ok(Self {
            // In the order of `family as usize`.
            by_family: [
                ByFamily::resolve(&families, Family::Ipv4)?,
                ByFamily::resolve(&families, Family::Ipv6)?,
            ],
            config_reloads_applied: reloads("applied")?,
            config_reloads_failed: reloads("failed")?,
            log_lines_dropped: families.log_lines_dropped,
            record_omitted_octets: families.record_omitted_octets,
            sessions_limit: families.sessions_limit,
            registry,
        })
    }

    /// A new configuration is in force.
    pub fn config_reload_applied(&self) {
        self.config_reloads_applied.inc();
    }

    /// A configuration was refused and the old one stays.
    pub fn config_reload_failed(&self) {
        self.config_reloads_failed.inc();
    }

    /// `count` log lines were lost.
    pub fn log_lines_dropped(&self, count: u64) {
        self.log_lines_dropped.inc_by(count);
    }

    /// Recorders did not get `count` octets.
    pub fn record_omitted_octets(&self, count: u64) {
        self.record_omitted_octets.inc_by(count);
    }

    /// `limits.sessions` of the configuration in force.
    pub fn set_sessions_limit(&self, limit: usize) {
        self.sessions_limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// All series in Prometheus' text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(e) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // The encoder knows one error, a family without series, and `gather` leaves those out.
            text.push_str(&format!("# incomplete: {e}\n"));
        }
        text
    }
}

impl Observe for Metrics {
    fn event(&self, family: Family, event: Event) {
        let of = &self.by_family[family as usize];
        match event {
            Event::SessionOpened => of.sessions.inc(),
            Event::SessionClosed(outcome) => {
                of.sessions.dec();
                of.sessions_total[outcome.index()].inc();
            }
            Event::Command(verb) => of.commands[verb.index()].inc(),
            Event::Reply { code, source } => {
                of.replies[source.index()][reply_code::slot(code)].inc();
            }
            Event::Message { code, bytes } => {
                of.messages[reply_code::class(code)].inc();
                if (200..300).contains(&code) {
                    of.message_bytes.inc_by(bytes);
                }
            }
            Event::Anomaly(anomaly) => of.anomalies[anomaly.index()].inc(),
            Event::Refusal(reason) => of.refusals[reason.index()].inc(),
            Event::Desync(cause) => of.parser_desyncs[cause.index()].inc(),
            Event::Starttls(outcome) => of.starttls[outcome.index()].inc(),
            Event::Attempt { family: upstream, outcome } => {
                self.by_family[upstream as usize].upstream_attempts[outcome.index()].inc()
            }
            Event::Phase { phase, duration } => {
                of.phase_duration[phase.index()].observe(duration.as_secs_f64());
            }
            Event::Bytes { direction, count } => of.relayed_bytes[direction.index()].inc_by(count),
        }
    }

    /// Nothing: every fact in the record came as an event before.
    fn session(&self, _: &SessionRecord) {}
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{ErrorKind, Write};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::*;

    /// Every event of every closed set, every code there is in a reply, and bytes.
    fn feed_everything(metrics: &Metrics) {
        let seconds = Duration::from_millis(250);
        for family in Family::ALL {
            let tell = |event| metrics.event(family, event);
            tell(Event::SessionOpened);
            for &outcome in Outcome::ALL {
                tell(Event::SessionClosed(outcome));
            }
            for verb in Verb::ALL {
                tell(Event::Command(verb));
            }
            for &source in ReplySource::ALL {
                for code in (0..1000).chain([u16::MAX]) {
                    tell(Event::Reply { code, source });
                    tell(Event::Message { code, bytes: 1 });
                }
            }
            for &anomaly in Anomaly::ALL {
                tell(Event::Anomaly(anomaly));
            }
            for &reason in Refusal::ALL {
                tell(Event::Refusal(reason));
            }
            for &cause in Desync::ALL {
                tell(Event::Desync(cause));
            }
            for &outcome in Starttls::ALL {
                tell(Event::Starttls(outcome));
            }
            for &outcome in AttemptOutcome::ALL {
                for family in Family::ALL {
                    tell(Event::Attempt { family, outcome });
                }
            }
            for &phase in Phase::ALL {
                tell(Event::Phase { phase, duration: seconds });
            }
            for &direction in Direction::ALL {
                tell(Event::Bytes { direction, count: u64::from(u32::MAX) });
            }
        }
        metrics.config_reload_applied();
        metrics.config_reload_failed();
        metrics.log_lines_dropped(3);
        metrics.record_omitted_octets(5);
        metrics.set_sessions_limit(10_000);
    }

    /// Series (name and labels) to value.
    fn series(metrics: &Metrics) -> BTreeMap<String, f64> {
        let text = metrics.encode();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (series, value) = line.rsplit_once(' ').unwrap();
                (series.to_owned(), value.parse().unwrap())
            })
            .collect()
    }

    #[test]
    fn every_series_is_there_from_the_start_at_zero_and_no_event_adds_one() {
        let metrics = Metrics::new().unwrap();
        let before = series(&metrics);
        let ours = |name: &str| name.starts_with("gatepost_") && !name.contains("build_info");
        for (name, value) in before.iter().filter(|(name, _)| ours(name)) {
            assert_eq!(*value, 0.0, "{name}");
        }

        feed_everything(&metrics);
        let after = series(&metrics);
        let names = |series: &BTreeMap<String, f64>| series.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after));
        assert!(after.len() < 2000, "{} series", after.len());

        // Each one can be reached; buckets below the one duration that was fed stay empty.
        for (name, value) in after.iter().filter(|(name, _)| ours(name)) {
            let bucket = name.contains("_bucket");
            assert!(bucket || *value != 0.0, "nothing counts in {name}");
        }
    }

    #[test]
    fn each_event_counts_where_it_belongs() {
        let metrics = Metrics::new().unwrap();
        let tell = |event| metrics.event(Family::Ipv6, event);
        let before = series(&metrics);
        tell(Event::SessionOpened);
        tell(Event::SessionOpened);
        tell(Event::SessionClosed(Outcome::ClientClosed));
        tell(Event::Command(Verb::Rcpt));
        for code in [250, 999, 599] {
            let source = ReplySource::Gateway;
            tell(Event::Reply { code, source });
        }
        tell(Event::Message { code: 250, bytes: 700 });
        tell(Event::Message { code: 452, bytes: 5000 });
        tell(Event::Attempt { family: Family::Ipv4, outcome: AttemptOutcome::Connected });
        tell(Event::Phase { phase: Phase::Data, duration: Duration::from_secs(45) });
        tell(Event::Bytes { direction: Direction::UpstreamToClient, count: 12 });

        let changed: Vec<String> = series(&metrics)
            .into_iter()
            .filter(|(name, value)| name.starts_with("gatepost_") && before[name] != *value)
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        insta::assert_snapshot!(changed.join("\n"));
    }

    #[test]
    fn promtool_finds_nothing_to_complain_of() {
        let metrics = Metrics::new().unwrap();
        feed_everything(&metrics);
        let promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut promtool = match promtool {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                // Past the test harness's capture, so that it is read.
                let note = "SKIPPED promtool_finds_nothing_to_complain_of: promtool is not installed \
                            (Debian package prometheus)";
                writeln!(std::io::stderr(), "\n{note}").unwrap();
                return;
            }
            spawned => spawned.unwrap(),
        };
        let mut stdin = promtool.stdin.take().unwrap();
        stdin.write_all(metrics.encode().as_bytes()).unwrap();
        drop(stdin);
        let output = promtool.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert_eq!(said, "");
    }
}
