//! eBPF and libpcap beside each other, while real Postfix sends to real Postfix over a path that works and one that does
//! not: each thing is counted as what it is, and both tell the same.

mod comparison;
mod counted;
mod expected;
pub(crate) mod load;
mod mail;
pub(crate) mod rights;
pub(crate) mod view;

use std::fs;

use crate::harness::tests;
use crate::support::watcher::{Metrics, Source, WatchOutput, Watcher};
use crate::support::{Host, Lab};
use expected::Failed;
use mail::Correspondence;
use serde_json::Value;

tests![real_mail_is_told_as_what_it_is_and_by_both_sources_alike];

/// Where watchers stand: the gateway's host forwards everything, the sender's host opens it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// On the gateway's link to the sender, which all packets pass that either end sends, or is sent by the path.
    Link,
    /// On both of the gateway's links: what is forwarded shows twice.
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

    /// Who is on this side. A watcher knows its own host's addresses, and a replay those that it is told.
    fn local(self, lab: &Lab, is_live: bool) -> Vec<String> {
        match self {
            Self::Link | Self::BothLinks => mail::local(|family| lab.server_ip(family)),
            Self::Sender if is_live => Vec::new(),
            Self::Sender => mail::local(|family| lab.client_ip(family)),
        }
    }
}

/// A watcher in its place.
struct Post<'lab> {
    place: Place,
    source: Source,
    watcher: Watcher<'lab>,
    /// What it writes.
    file: String,
}

impl<'lab> Post<'lab> {
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

/// What a watcher told, in its place.
struct Report {
    place: Place,
    source: Source,
    told: WatchOutput,
}

fn real_mail_is_told_as_what_it_is_and_by_both_sources_alike() {
    let lab = Lab::new();
    for source in Source::ALL {
        source.require(&lab);
    }
    let correspondence = Correspondence::new(&lab);
    let mut posts = Vec::new();
    for (place, source) in Place::ALL.iter().flat_map(|p| Source::ALL.map(|s| (*p, s))) {
        posts.push(Post::new(&lab, place, source));
    }
    correspondence.pass();
    correspondence.silence();
    posts.iter().for_each(|post| post.watcher.wait_until_quiet());

    let mut failed = Failed::default();
    let mut reports: Vec<Report> = Vec::new();
    for post in posts {
        // The one that nobody answered is over after two minutes, and counted then; eBPF on the sender's host hears from
        // the kernel that it gave up.
        failed.about(&format!("{}, metrics until the end", post.name()), |failed| {
            let (told, metrics) = (post.watcher.output(), post.watcher.metrics());
            counted::check(&metrics, &told, post.place.direction(), failed);
            let over = told.sessions().len();
            let all: usize = mail::SESSIONS.iter().map(|(_, sessions)| sessions).sum();
            failed.unless(over >= all - 1, || format!("{over} of {all} sessions were over"));
        });
        let (name, Post { place, source, watcher, file }) = (post.name(), post);
        let told = watcher.finish();
        failed.about(&name, |failed| {
            expected::check(&told, failed);
            if place == Place::Sender && source == Source::Ebpf {
                round_trips(&told, failed);
            }
            let lost: Vec<&Value> = told.of_type("lost").collect();
            failed.unless(lost.len() == 1 && told.lost() == (0, 0), || format!("lost: {lost:?}"));
            let page = lab.path("replayed.metrics");
            let mut options = place.local(&lab, false);
            options.extend(["--metrics-out".to_owned(), page.to_str().unwrap().to_owned()]);
            let replayed = WatchOutput::replayed(&lab, &file, &options);
            let page = Metrics(fs::read_to_string(page).unwrap());
            counted::check(&page, &told, place.direction(), failed);
            let (live, offline) = (evidence(&told), evidence(&replayed));
            failed.unless(live.len() == 1 && live == offline, || {
                format!("evidence: live {live:?}, replayed {offline:?}")
            });
        });
        reports.push(Report { place, source, told });
    }
    for (one, other) in pairs(&reports) {
        let name = |r: &Report| format!("{:?} by {}", r.place, r.source.name());
        failed.about(&format!("{} and {}", name(one), name(other)), |failed| {
            failed.0.extend(comparison::differences(&one.told, &other.told));
        });
    }
    assert!(failed.0.is_empty(), "\n{}", failed.0.join("\n"));
}

/// The kernel knows the round-trip time of each connection that this host itself opened.
fn round_trips(told: &WatchOutput, failed: &mut Failed) {
    let sessions: Vec<&Value> = told.of_type("session").collect();
    let established = sessions.iter().filter(|session| !session["tcp"]["handshake_s"].is_null());
    let without = established.filter(|session| session["tcp"]["rtt_s"].is_null());
    failed.unless(without.clone().count() == 0, || {
        format!("without a round-trip time: {:?}", without.collect::<Vec<_>>())
    });
}

/// What passed proves, but for when it was told and what is too old for that by then: the clock goes on while a watcher
/// waits for its end, and a replay ends with the last packet.
fn evidence(told: &WatchOutput) -> Vec<Value> {
    fn forget(value: &mut Value) {
        if let Value::Object(fields) = value {
            fields.retain(|name, _| !["type", "at", "minute"].contains(&name.as_str()));
            fields.values_mut().for_each(forget);
        }
    }
    let mut evidence: Vec<Value> = told.of_type("evidence").cloned().collect();
    evidence.iter_mut().for_each(forget);
    evidence
}

/// Both sources in one place, and one source in two places that see the same.
fn pairs(reports: &[Report]) -> impl Iterator<Item = (&Report, &Report)> {
    let pairs = reports.iter().enumerate();
    let pairs = pairs.flat_map(|(n, one)| reports[n + 1..].iter().map(move |other| (one, other)));
    pairs.filter(|(one, other)| {
        let forwarded = |r: &Report| r.place != Place::Sender;
        one.place == other.place || one.source == other.source && forwarded(one) && forwarded(other)
    })
}
