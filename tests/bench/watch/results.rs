//! The results: every round, the medians, and the targets.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Value, json};

use super::load::Receiver;
use super::timed::median;
use super::ways::{Figures, Way};

/// One method, one round.
#[derive(Serialize)]
struct Sample {
    receiver: &'static str,
    way: Way,
    round: u32,
    /// The machine's load average before, which shows other work.
    load: f64,
    #[serde(flatten)]
    figures: Figures,
}

#[derive(Default)]
pub(crate) struct Results {
    samples: Vec<Sample>,
}

/// The promised limit of a ratio.
struct Target {
    what: &'static str,
    receiver: Receiver,
    figure: fn(&Figures) -> f64,
    way: Way,
    base: Way,
    wanted: Wanted,
}

enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

const TARGETS: [Target; 4] = [
    Target {
        what: "CPU, eBPF beside libpcap",
        receiver: Receiver::SmtpSink,
        figure: cpu,
        way: Way::Ebpf,
        base: Way::Pcap,
        wanted: Wanted::AtMost(0.3),
    },
    Target {
        what: "CPU, libpcap beside dumpcap + replay",
        receiver: Receiver::SmtpSink,
        figure: cpu,
        way: Way::Pcap,
        base: Way::DumpcapAndReplay,
        wanted: Wanted::AtMost(1.0),
    },
    Target {
        what: "Postfix's messages/s, eBPF beside unwatched",
        receiver: Receiver::Postfix,
        figure: speed,
        way: Way::Ebpf,
        base: Way::Unwatched,
        wanted: Wanted::AtLeast(0.98),
    },
    Target {
        what: "smtp-sink's messages/s, eBPF beside unwatched",
        receiver: Receiver::SmtpSink,
        figure: speed,
        way: Way::Ebpf,
        base: Way::Unwatched,
        wanted: Wanted::AtLeast(0.98),
    },
];

const fn cpu(figures: &Figures) -> f64 {
    figures.cpu_s
}

const fn speed(figures: &Figures) -> f64 {
    figures.messages_per_s
}

impl Results {
    pub(crate) fn add(
        &mut self,
        receiver: Receiver,
        way: Way,
        round: u32,
        load: f64,
        figures: Figures,
    ) {
        self.samples.push(Sample { receiver: receiver.name(), way, round, load, figures });
    }

    fn rounds(&self, receiver: Receiver, way: Way) -> impl Iterator<Item = &Sample> {
        let wanted = move |s: &&Sample| s.receiver == receiver.name() && s.way == way;
        self.samples.iter().filter(wanted)
    }

    fn median(&self, receiver: Receiver, way: Way, figure: fn(&Figures) -> f64) -> f64 {
        median(self.rounds(receiver, way).map(|sample| figure(&sample.figures)))
    }

    /// The median of the rounds' ratios: other load affects both figures of a round.
    fn ratio(&self, target: &Target) -> f64 {
        let &Target { receiver, figure, way, base, .. } = target;
        let ratios = self.rounds(receiver, way).filter_map(|sample| {
            let same = self.rounds(receiver, base).find(|other| other.round == sample.round)?;
            Some(figure(&sample.figures) / figure(&same.figures))
        });
        median(ratios)
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for receiver in [Receiver::SmtpSink, Receiver::Postfix] {
            for way in Way::ALL {
                let rounds = self.rounds(receiver, way).count();
                if rounds == 0 {
                    continue;
                }
                let median = |figure| self.median(receiver, way, figure);
                let missed: u64 =
                    self.rounds(receiver, way).map(|s| s.figures.missed_sessions).sum();
                let lost: u64 = self.rounds(receiver, way).map(|s| s.figures.lost_packets).sum();
                let _ = writeln!(
                    text,
                    "{:10} {:20} {:7.1} messages/s   CPU {:6.3} s   {rounds} rounds   \
                     {missed} sessions not seen, {lost} packets lost",
                    receiver.name(),
                    way.name(),
                    median(speed),
                    median(cpu),
                );
            }
        }
        for target in &TARGETS {
            let ratio = self.ratio(target);
            let (sign, bound, met) = match target.wanted {
                Wanted::AtMost(bound) => ("<=", bound, ratio <= bound),
                Wanted::AtLeast(bound) => (">=", bound, ratio >= bound),
            };
            let verdict = if met { "met" } else { "MISSED" };
            let what = target.what;
            let _ = writeln!(text, "{what:48} {ratio:6.3}   wanted {sign} {bound:<5} {verdict}");
        }
        text
    }

    /// Sessions and messages that some watcher did not see, in all rounds.
    pub(crate) fn missed(&self) -> u64 {
        let missed = |s: &Sample| s.figures.missed_sessions + s.figures.missed_messages;
        self.samples.iter().map(missed).sum()
    }

    pub(crate) fn json(&self) -> Value {
        let targets: Vec<Value> = TARGETS
            .iter()
            .map(|target| json!({ "what": target.what, "ratio": self.ratio(target) }))
            .collect();
        json!({ "targets": targets, "rounds": self.samples })
    }
}
