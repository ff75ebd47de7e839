//! Pairs of canaries through Postfix and rspamd, one that adds score to all mail over IPv6 and one that does not.

pub(crate) mod failing_writes;
pub(crate) mod gateway;
pub(crate) mod outbound;
pub(crate) mod restart;

use std::fs;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::harness::tests;
use crate::support::rspamd::{self, Filter, MILTER};
use crate::support::{Family, Lab, Postfix, Process, until};

tests![
    a_filter_that_marks_ipv6_is_found,
    a_healthy_filter_is_not_reported,
    postfix_delivers_canaries_to_a_pipe,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const CANARY: &str = "canary@example.org";
/// The user `nobody`, whose mailbox it is in the lab.
const NOBODY: u32 = 65534;

/// A Postfix whose milter is rspamd, the key, and a folder for the reports.
struct Site<'lab> {
    lab: &'lab Lab,
    postfix: Postfix<'lab>,
    _filter: Process,
    key: PathBuf,
    reports: PathBuf,
}

impl<'lab> Site<'lab> {
    fn new(lab: &'lab Lab, filter: Filter) -> Self {
        let rspamd = rspamd::start_filter(lab, &lab.server, "rspamd", filter);
        let main_cf = format!(
            "smtpd_milters = inet:{MILTER}\nmilter_default_action = tempfail\nqueue_run_delay = 2s\n"
        );
        let postfix = Postfix::start(lab, &lab.server, "postfix", None, &main_cf);
        let key = lab.path("canary.key");
        fs::write(&key, "0123456789abcdef".repeat(4)).unwrap();
        let reports = lab.folder("reports");
        chown(&reports, Some(NOBODY), None).unwrap();
        Self { lab, postfix, _filter: rspamd, key, reports }
    }

    fn receive(&self) -> Vec<String> {
        let (key, reports) = (self.key.to_str().unwrap(), self.reports.to_str().unwrap());
        let words =
            [GATEPOST, "canary", "receive", "--key", key, "--to", CANARY, "--reports", reports];
        words.map(str::to_owned).to_vec()
    }

    /// `gatepost canary receive --maildir`, beside the mailbox.
    fn watch(&self) -> Process {
        let mailbox = self.postfix.config_directory().join("../mail/inbox");
        until("the mailbox", || mailbox.join("new").is_dir().then_some(()));
        let mut words = self.receive();
        words.extend(["--maildir".to_owned(), mailbox.to_str().unwrap().to_owned()]);
        self.lab.server.spawn(words)
    }

    /// `gatepost canary send` from the client's host, in JSON.
    fn send(&self) -> (Output, Value) {
        let servers = Family::ALL.map(|family| self.lab.direct(family).to_string());
        let [key, reports] = [&self.key, &self.reports].map(|path| path.to_str().unwrap());
        let output = self.lab.client.output([
            GATEPOST,
            "canary",
            "send",
            "--to",
            CANARY,
            "--from",
            "check@example.net",
            "--key",
            key,
            "--server",
            &servers[0],
            "--server",
            &servers[1],
            "--reports",
            reports,
            "--wait",
            "60s",
            "--hostname",
            "vantage.example.net",
            "--format",
            "json",
        ]);
        let json = serde_json::from_slice(&output.stdout);
        let json = json.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        (output, json)
    }
}

fn with_mailbox(site: &Site<'_>) {
    with_mailbox_at(site.lab, &site.postfix);
}

/// Virtual(8) makes the mailbox with its first message, which Postfix defers until the filter works.
fn with_mailbox_at(lab: &Lab, postfix: &Postfix<'_>) {
    until("a filter that works", || {
        let sent = lab.client.swaks(lab.direct(Family::Ipv4), "somebody@example.org", &[]);
        sent.status.success().then_some(())
    });
    postfix.take_message_to("somebody@example.org");
}

fn a_filter_that_marks_ipv6_is_found() {
    let lab = Lab::new();
    let site = Site::new(&lab, Filter::MarksIpv6);
    with_mailbox(&site);
    let _receiver = site.watch();
    let (output, json) = site.send();
    assert_eq!(json["comparison"], "ipv6_worse", "{json:#}");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(json["ipv4"]["outcome"], "clean", "{json:#}");
    assert_eq!(json["ipv6"]["outcome"], "marked_spam", "{json:#}");
    let marks = json["ipv6"]["received"]["marks"].as_array().unwrap();
    assert!(
        marks.iter().any(|mark| mark["by"] == "rspamd" && mark["field"] == "X-Spam"),
        "{marks:?}"
    );
    assert_eq!(json["ipv6"]["delivery"]["code"], 250);

    // A copy of the message for another recipient is no canary.
    let copied =
        site.postfix.messages().into_iter().find(|it| it.header("Delivered-To: ") == Some(CANARY));
    let copied = copied.unwrap().header("Message-ID: ").unwrap().to_owned();
    let header = format!("Message-ID: {copied}");
    lab.client.swaks(lab.direct(Family::Ipv6), "other@example.org", &["--header", &header]);
    site.postfix.message_to("other@example.org");
    assert_eq!(site.send().1["comparison"], "ipv6_worse");
    assert_eq!(fs::read_dir(&site.reports).unwrap().count(), 4);
}

fn a_healthy_filter_is_not_reported() {
    let lab = Lab::new();
    let site = Site::new(&lab, Filter::Healthy);
    with_mailbox(&site);
    let _receiver = site.watch();
    for _ in 0..2 {
        let (output, json) = site.send();
        assert_eq!(json["comparison"], "equal", "{json:#}");
        assert_eq!(output.status.code(), Some(0));
        for family in ["ipv4", "ipv6"] {
            assert_eq!(json[family]["outcome"], "clean", "{json:#}");
        }
    }
}

/// The report of a mailbox that has no Maildir; and a report that cannot be written keeps the message in the queue.
fn postfix_delivers_canaries_to_a_pipe() {
    let lab = Lab::new();
    let site = Site::new(&lab, Filter::MarksIpv6);
    let config = site.postfix.config_directory();
    let pipe = format!(
        "canary unix - n n - 1 pipe\n  flags=Rq user=nobody argv={}\n",
        site.receive().join(" ")
    );
    let master = config.join("master.cf");
    fs::write(&master, fs::read_to_string(&master).unwrap() + &pipe).unwrap();
    let main = config.join("main.cf");
    let transport = format!("transport_maps = inline:{{{CANARY}=canary:}}\n");
    fs::write(&main, fs::read_to_string(&main).unwrap() + &transport).unwrap();
    // Pipe(8) runs the program as nobody, who cannot read root's key.
    chown(&site.key, Some(NOBODY), None).unwrap();
    site.postfix.stop();
    site.postfix.start_again();
    with_mailbox(&site);

    fs::remove_dir(&site.reports).unwrap();
    let servers = Family::ALL.map(|family| lab.direct(family).to_string());
    lab.client.run([
        GATEPOST,
        "canary",
        "send",
        "--to",
        CANARY,
        "--from",
        "check@example.net",
        "--key",
        site.key.to_str().unwrap(),
        "--server",
        &servers[0],
        "--server",
        &servers[1],
        "--hostname",
        "vantage.example.net",
    ]);
    until("two deferred messages", || {
        let log = site.postfix.log();
        let is_deferred = |line: &&str| {
            line.contains("status=deferred") && line.contains("cannot write a report")
        };
        (log.lines().filter(is_deferred).count() >= 2).then_some(())
    });
    fs::create_dir(&site.reports).unwrap();
    chown(&site.reports, Some(NOBODY), None).unwrap();
    until("both reports", || (fs::read_dir(&site.reports).unwrap().count() == 2).then_some(()));
    site.postfix.wait_until_idle();
}
