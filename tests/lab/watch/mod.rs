//! `gatepost watch` by eBPF and by libpcap at the same time, while Postfix sends to Postfix over good and faulty paths: the
//! records and metrics are correct, and those of both sources are equal.

mod comparison;
mod counted;
mod expected;
pub(crate) mod leftovers;
pub(crate) mod load;
mod mail;
pub(crate) mod many_interfaces;
pub(crate) mod order;
pub(crate) mod own_addresses;
pub(crate) mod rights;
pub(crate) mod view;

use std::fs;

use crate::harness::tests;
use crate::support::watcher::{Metrics, Source, WatchOutput, Watcher};
use crate::support::{Host, Lab};
use expected::Failed;
use mail::TestMail;
use serde_json::Value;

tests![both_sources_report_real_mail_correctly_and_alike];

/// Where watchers run: the gateway's host forwards all connections, the sender's host opens them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the gateway's link to the sender, with the packets of both ends and ICMP errors from the path.
    Link,
    /// On both of the gateway's links: forwarded packets appear twice.
    BothLinks,
    /// On the sender's own host.
    Sender,
}

impl Place {
    const ALL: [Self; 3] = [Self::Link, Self::BothLinks, Self::Sender];

    const fn interfaces(self) -> &'static [&'static str] {
        match self {
            Self::Link => &["client"],
            Self::BothLinks => &["client", "server"],
            Self::Sender => &["gateway"],
        }
    }

    /// The metrics' label.
    const fn direction(self) -> &'static str {
        match self {
            Self::Link | Self::BothLinks => "in",
            Self::Sender => "out",
        }
    }

    fn host(self, lab: &Lab) -> &Host {
        if self == Self::Sender { &lab.client } else { &lab.gateway }
    }

    /// The `--local` options. A watcher knows its own host's addresses, a replay needs them all.
    fn local(self, lab: &Lab, is_live: bool) -> Vec<String> {
        match self {
            Self::Link | Self::BothLinks => mail::local(|family| lab.server_ip(family)),
            Self::Sender if is_live => Vec::new(),
            Self::Sender => mail::local(|family| lab.client_ip(family)),
        }
    }
}

/// A watcher with its place and source.
struct PlacedWatcher<'lab> {
    place: Place,
    source: Source,
    watcher: Watcher<'lab>,
    /// Its `--write` file.
    file: String,
}

impl<'lab> PlacedWatcher<'lab> {
    fn new(lab: &'lab Lab, place: Place, source: Source) -> Self {
        let file = lab.path(&format!("{place:?}-{}.pcapng", source.name()));
        let file = file.to_str().unwrap().to_owned();
        let mut options = place.local(lab, true);
        options.extend(["--write".to_owned(), file.clone()]);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let watcher = Watcher::start(lab, place.host(lab), source, place.interfaces(), &options);
        Self { place, source, watcher, file }
    }

    fn name(&self) -> String {
        format!("{:?}, {}", self.place, self.source.name())
    }
}

/// The output of one watcher.
struct Report {
    place: Place,
    source: Source,
    output: WatchOutput,
}

fn both_sources_report_real_mail_correctly_and_alike() {
    let lab = Lab::new();
    for source in Source::ALL {
        source.require(&lab);
    }
    let test_mail = TestMail::new(&lab);
    let mut watchers = Vec::new();
    for (place, source) in Place::ALL.iter().flat_map(|p| Source::ALL.map(|s| (*p, s))) {
        watchers.push(PlacedWatcher::new(&lab, place, source));
    }
    test_mail.send_all();
    test_mail.stall();
    watchers.iter().for_each(|placed| placed.watcher.wait_until_quiet());

    let mut failed = Failed::default();
    let mut reports: Vec<Report> = Vec::new();
    for placed in watchers {
        // The unanswered connection ends after two minutes, and is counted then; eBPF on the sender's host gets the
        // kernel's own timeout.
        failed.about(&format!("{}, metrics until the end", placed.name()), |failed| {
            let (output, metrics) = (placed.watcher.output(), placed.watcher.metrics());
            counted::check(&metrics, &output, placed.place.direction(), failed);
            let over = output.sessions().len();
            let all: usize = mail::SESSIONS.iter().map(|(_, sessions)| sessions).sum();
            failed.unless(over >= all - 1, || format!("{over} of {all} sessions were over"));
        });
        let (name, PlacedWatcher { place, source, watcher, file }) = (placed.name(), placed);
        let output = watcher.finish();
        failed.about(&name, |failed| {
            expected::check(&output, failed);
            if place == Place::Sender && source == Source::Ebpf {
                round_trips(&output, failed);
            }
            let lost: Vec<&Value> = output.of_type("lost").collect();
            failed.unless(lost.len() == 1 && output.lost() == (0, 0), || format!("lost: {lost:?}"));
            let page = lab.path("replayed.metrics");
            let mut options = place.local(&lab, false);
            options.extend(["--metrics-out".to_owned(), page.to_str().unwrap().to_owned()]);
            let replayed = WatchOutput::replayed(&lab, &file, &options);
            let page = Metrics(fs::read_to_string(page).unwrap());
            counted::check(&page, &output, place.direction(), failed);
            let (live, offline) = (evidence(&output), evidence(&replayed));
            failed.unless(live.len() == 1 && live == offline, || {
                format!("evidence: live {live:?}, replayed {offline:?}")
            });
        });
        reports.push(Report { place, source, output });
    }
    for (one, other) in pairs(&reports) {
        let name = |r: &Report| format!("{:?} by {}", r.place, r.source.name());
        failed.about(&format!("{} and {}", name(one), name(other)), |failed| {
            failed.0.extend(comparison::differences(&one.output, &other.output));
        });
    }
    assert!(failed.0.is_empty(), "\n{}", failed.0.join("\n"));
}

/// The kernel knows the round-trip time of each connection that this host itself opened.
fn round_trips(output: &WatchOutput, failed: &mut Failed) {
    let sessions: Vec<&Value> = output.of_type("session").collect();
    let established = sessions.iter().filter(|session| !session["tcp"]["handshake_s"].is_null());
    let without = established.filter(|session| session["tcp"]["rtt_s"].is_null());
    failed.unless(without.clone().count() == 0, || {
        format!("without a round-trip time: {:?}", without.collect::<Vec<_>>())
    });
}

/// The evidence of the traffic, without its time and without the last minute's counts: the clock goes on while a watcher
/// waits for its end, and a replay ends with the last packet.
fn evidence(output: &WatchOutput) -> Vec<Value> {
    fn forget(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.retain(|name, _| !["type", "at", "minute"].contains(&name.as_str()));
            fields.values_mut().for_each(forget);
        }
    }
    let mut evidence: Vec<Value> = output.of_type("evidence").cloned().collect();
    evidence.iter_mut().for_each(forget);
    evidence
}

/// Both sources in one place, and one source in two places with the same packets.
fn pairs(reports: &[Report]) -> impl Iterator<Item = (&Report, &Report)> {
    let pairs = reports.iter().enumerate();
    let pairs = pairs.flat_map(|(n, one)| reports[n + 1..].iter().map(move |other| (one, other)));
    pairs.filter(|(one, other)| {
        let forwarded = |r: &Report| r.place != Place::Sender;
        one.place == other.place || one.source == other.source && forwarded(one) && forwarded(other)
    })
}
