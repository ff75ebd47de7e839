//! The script language of the engine's tests, and the runner that tries a script under every segmentation.
//!
//! A script lists the steps of a dialogue in causal order, one a line; leading white space is ignored:
//!
//! | line | meaning |
//! |---|---|
//! | `C: text` | the client sends it and upstream receives it |
//! | `C- text` | the client sends it and upstream does not receive it |
//! | `C\| text`, `C\|- text` | the same, and the client does not wait for the replies before it |
//! | `S: text`, `S- text` | upstream sends it, and the client receives it or does not |
//! | `+C text`, `+S text` | sent by the gateway itself, to the client or to upstream |
//! | `C.`, `S.` | that side closes |
//! | `T 300s` | time passes |
//! | `drain`, `abort` | the gateway drains, or aborts the session |
//! | `= outcome` | the session has ended with this outcome; without this line it must still be open |
//! | `--` | the next lines are sent only after the lines before have taken effect |
//! | `# …` | a comment |
//!
//! Each text ends in CRLF unless `\` is its last character. `\r`, `\n`, `\t`, `\0`, `\xNN` and `\\` mean the same as in Rust.
//!
//! Each dialogue runs with replies as early as possible and as late as the client permits, each in whole flights, line by
//! line, one byte at a time and cut at every point, with and without splicing. Each side must always receive the same
//! bytes, and the same order must give the same record (with its anomalies sorted).

use std::time::Duration;

use gatepost::engine::{
    Outcome, Profile, SessionRecord, SmtpOptions, TcpFacts, Timeouts, UpstreamTls,
};
use gatepost::policy::facts::{ClientCertificate, Lookup, LookupResult};

use crate::engine::driver::Driver;

#[derive(Clone, Debug)]
enum Step {
    Client { bytes: Vec<u8>, pipelined: bool },
    Upstream(Vec<u8>),
    ClientCloses,
    UpstreamCloses,
    Wait(Duration),
    Drain,
    Abort,
    Pause,
}

/// A step, and how much each side must have received after it.
#[derive(Clone, Debug)]
struct ExpectedStep {
    step: Step,
    client_receives: usize,
    upstream_receives: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cut {
    Whole,
    Lines,
    Bytes,
    At(usize),
}

/// When the policy's lookups are answered.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answers {
    /// Before anything else is sent.
    AtOnce,
    /// After the flight that caused the lookups, the last lookup first.
    Behind,
    /// Never.
    Never,
}

pub(crate) struct Dialogue {
    pub(crate) profile: Profile,
    pub(crate) timeouts: Timeouts,
    pub(crate) client: &'static str,
    upstream_tls: UpstreamTls,
    starttls_hidden: bool,
    client_certificate: Option<ClientCertificate>,
    oracle: Option<fn(&Lookup) -> LookupResult>,
    steps: Vec<ExpectedStep>,
    client_receives: Vec<u8>,
    upstream_receives: Vec<u8>,
    outcome: Option<String>,
}

/// Runs a dialogue with the default profile; returns its record, with the steps in the order of the script.
#[track_caller]
pub(crate) fn dialogue(text: &str) -> SessionRecord {
    Dialogue::new(text).run()
}

impl Dialogue {
    pub(crate) fn new(text: &str) -> Self {
        let mut new = Self {
            profile: Profile {
                smtp: SmtpOptions { hostname: "gate.example".to_owned(), ..SmtpOptions::default() },
                ..Profile::default()
            },
            timeouts: Timeouts::RFC_5321,
            client: "[2001:db8::1]:40000",
            upstream_tls: UpstreamTls::Off,
            starttls_hidden: false,
            client_certificate: None,
            oracle: None,
            steps: Vec::new(),
            client_receives: Vec::new(),
            upstream_receives: Vec::new(),
            outcome: None,
        };
        for line in text.lines().map(str::trim_start) {
            new.line(line);
        }
        new
    }

    pub(crate) fn with(mut self, set: impl FnOnce(&mut Profile)) -> Self {
        set(&mut self.profile);
        self
    }

    /// The gateway uses TLS with upstream in this way.
    pub(crate) const fn upstream_tls(mut self, level: UpstreamTls) -> Self {
        self.upstream_tls = level;
        self
    }

    /// Handshakes of the client failed again and again.
    pub(crate) const fn starttls_hidden(mut self) -> Self {
        self.starttls_hidden = true;
        self
    }

    /// The client presents it in its handshake.
    pub(crate) fn client_certificate(mut self, certificate: ClientCertificate) -> Self {
        self.client_certificate = Some(certificate);
        self
    }

    /// Answers the policy's lookups with `oracle`; without it they stay unanswered.
    pub(crate) fn answered_by(mut self, oracle: fn(&Lookup) -> LookupResult) -> Self {
        self.oracle = Some(oracle);
        self
    }

    fn line(&mut self, line: &str) {
        let (word, text) = line.split_once(' ').unwrap_or((line, ""));
        let bytes = unescape(text);
        match word {
            "" | "#" => return,
            "+C" => self.client_receives.extend(bytes),
            "+S" => self.upstream_receives.extend(bytes),
            "C:" | "C|" | "C-" | "C|-" => {
                if !word.ends_with('-') {
                    self.upstream_receives.extend(&bytes);
                }
                let pipelined = word.contains('|');
                self.step(Step::Client { bytes, pipelined });
            }
            "S:" | "S-" => {
                if word == "S:" {
                    self.client_receives.extend(&bytes);
                }
                self.step(Step::Upstream(bytes));
            }
            "C." => self.step(Step::ClientCloses),
            "S." => self.step(Step::UpstreamCloses),
            "T" => {
                let seconds = text.strip_suffix('s').and_then(|n| n.parse().ok());
                self.step(Step::Wait(Duration::from_secs(seconds.expect(line))));
            }
            "--" => self.step(Step::Pause),
            "drain" => self.step(Step::Drain),
            "abort" => self.step(Step::Abort),
            "=" => self.outcome = Some(text.to_owned()),
            _ => panic!("not a line of a dialogue: {line}"),
        }
        if let Some(step) = self.steps.last_mut() {
            step.client_receives = self.client_receives.len();
            step.upstream_receives = self.upstream_receives.len();
        }
    }

    fn step(&mut self, step: Step) {
        self.steps.push(ExpectedStep { step, client_receives: 0, upstream_receives: 0 });
    }

    /// # Panics
    /// The outcome, a record or the received bytes differ from the script.
    #[track_caller]
    pub(crate) fn run(&self) -> SessionRecord {
        let script: Vec<Step> = self.steps.iter().map(|expected| expected.step.clone()).collect();
        let mut first = None;
        let answers: &[Answers] = match self.oracle {
            Some(_) => &[Answers::AtOnce, Answers::Behind],
            None => &[Answers::Never],
        };
        for (order, steps) in [("early", flights(&script)), ("late", flights(&hoisted(&script)))] {
            let total: usize = steps.iter().map(|step| bytes_of(step).len()).sum();
            let cuts = (1..total).map(Cut::At);
            let mut reference: Option<SessionRecord> = None;
            let ways = answers.iter().flat_map(|&answers| [(answers, false), (answers, true)]);
            for (answers, splice) in ways {
                for cut in [Cut::Whole, Cut::Bytes].into_iter().chain(cuts.clone()) {
                    let what =
                        format!("replies {order}, answers {answers:?}, {cut:?}, splice {splice}");
                    let mut record = self.run_steps(&steps, cut, answers, splice, &what);
                    if record.outcome == Outcome::Protocol {
                        record.tcp = TcpFacts::default(); // How much of the invalid input was read does not matter.
                    }
                    let reference = reference.get_or_insert_with(|| record.clone());
                    assert_eq!(&record, reference, "the record, {what}");
                }
            }
            first = first.or(reference);
        }
        for splice in [false, true] {
            self.run_steps(&script, Cut::Lines, answers[0], splice, "line by line");
        }
        first.expect("a dialogue of at least one step")
    }

    #[track_caller]
    fn run_steps(
        &self,
        steps: &[Step],
        cut: Cut,
        answers: Answers,
        splice: bool,
        what: &str,
    ) -> SessionRecord {
        let destination = "[2001:db8::2]:25";
        let (profile, client) = (self.profile.clone(), self.client);
        let mut driver = Driver::new(profile, self.timeouts, client, destination, splice);
        driver.use_upstream_tls(self.upstream_tls);
        driver.client_certificate.clone_from(&self.client_certificate);
        if self.starttls_hidden {
            driver.hide_starttls();
        }
        let answer_all = |driver: &mut Driver| {
            while let (false, Some(oracle)) = (driver.needs.is_empty(), self.oracle) {
                driver.answer(driver.needs.len() - 1, oracle);
            }
        };
        if answers == Answers::AtOnce {
            answer_all(&mut driver);
        }
        let mut offset = 0;
        for (number, step) in steps.iter().enumerate() {
            let bytes = bytes_of(step);
            for part in parts(bytes, cut, offset) {
                match step {
                    Step::Client { .. } => driver.client_sends(part),
                    _ => driver.upstream_sends(part),
                }
                if answers == Answers::AtOnce {
                    answer_all(&mut driver);
                }
            }
            answer_all(&mut driver);
            offset += bytes.len();
            match step {
                Step::Client { .. } | Step::Upstream(_) | Step::Pause => {}
                Step::ClientCloses => driver.client_closes(),
                Step::UpstreamCloses => driver.upstream_closes(),
                Step::Wait(time) => driver.wait(*time),
                Step::Drain => driver.drain(),
                Step::Abort => driver.abort(Outcome::Shutdown),
            }
            let more = steps.get(number + 1);
            let mid_flight = more.is_some_and(|next| same_side(step, next));
            if cut == Cut::Lines && !mid_flight {
                let expected = &self.steps[number];
                let what = format!("{what}, after {:?}", expected.step);
                same(
                    &driver.to_client,
                    &self.client_receives[..expected.client_receives],
                    "client",
                    &what,
                );
                same(
                    &driver.to_upstream,
                    &self.upstream_receives[..expected.upstream_receives],
                    "upstream",
                    &what,
                );
            }
        }
        same(&driver.to_client, &self.client_receives, "client", what);
        same(&driver.to_upstream, &self.upstream_receives, "upstream", what);
        assert_eq!(driver.closed, self.outcome.is_some(), "closed, {what}");
        let mut record = driver.finish();
        driver.check_replay(&record, what);
        record.smtp.anomalies.sort_unstable();
        if let Some(outcome) = &self.outcome {
            assert_eq!(record.outcome.as_str(), outcome, "{what}");
        }
        record
    }
}

#[track_caller]
fn same(received: &[u8], expected: &[u8], who: &str, what: &str) {
    let lines = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\n", "\\n\n");
    assert!(
        received == expected,
        "received by the {who}, {what}:\n{}\nexpected:\n{}",
        lines(received),
        lines(expected)
    );
}

fn same_side(a: &Step, b: &Step) -> bool {
    use Step::{Client, Upstream};
    matches!((a, b), (Client { .. }, Client { .. }) | (Upstream(_), Upstream(_)))
}

fn bytes_of(step: &Step) -> &[u8] {
    match step {
        Step::Client { bytes, .. } | Step::Upstream(bytes) => bytes,
        _ => &[],
    }
}

/// Splits `bytes`, which start at `offset` in all sent bytes, according to `cut`.
fn parts(bytes: &[u8], cut: Cut, offset: usize) -> Vec<&[u8]> {
    match cut {
        Cut::Bytes => bytes.chunks(1).collect(),
        Cut::At(point) if offset < point && point < offset + bytes.len() => {
            let (head, tail) = bytes.split_at(point - offset);
            vec![head, tail]
        }
        _ if bytes.is_empty() => Vec::new(),
        _ => vec![bytes],
    }
}

/// Moves each pipelined client step as early as the replies before it permit.
fn hoisted(script: &[Step]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for step in script {
        let after_replies = steps
            .iter()
            .rposition(|step| !matches!(step, Step::Upstream(_)))
            .map_or(0, |last| last + 1);
        match step {
            Step::Client { pipelined: true, .. } => steps.insert(after_replies, step.clone()),
            _ => steps.push(step.clone()),
        }
    }
    steps
}

/// Joins consecutive sends of one side.
fn flights(script: &[Step]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for step in script {
        match (steps.last_mut(), step) {
            (Some(Step::Client { bytes, .. }), Step::Client { bytes: more, .. })
            | (Some(Step::Upstream(bytes)), Step::Upstream(more)) => bytes.extend(more),
            _ => steps.push(step.clone()),
        }
    }
    steps
}

pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.extend(c.encode_utf8(&mut [0; 4]).bytes());
            continue;
        }
        match chars.next() {
            None => return out,
            Some('r') => out.push(b'\r'),
            Some('n') => out.push(b'\n'),
            Some('0') => out.push(0),
            Some('t') => out.push(b'\t'),
            Some('\\') => out.push(b'\\'),
            Some('x') => {
                let hex: String = chars.by_ref().take(2).collect();
                out.push(u8::from_str_radix(&hex, 16).expect("two hexadecimal digits"));
            }
            Some(other) => panic!("no such escape: \\{other}"),
        }
    }
    out.extend(b"\r\n");
    out
}
