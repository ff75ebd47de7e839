//! Restarts of the service with one cache file.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::canary::{HeaderJudgement, Mark, PairId, SpamFilter};
use crate::lookup::LookupSettings;
use crate::report::LogSettings;

const TO: &str = "canary@example.org";

/// Removed on drop.
struct Site(PathBuf);

/// A process: it ends with its drop.
struct Running {
    service: CanaryService,
    lookup: LookupService,
    log: Arc<SessionLog>,
}

impl Site {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("gatepost-canaries-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("key"), "0b".repeat(32)).unwrap();
        Self(path)
    }

    fn lookup(&self) -> LookupService {
        let settings = LookupSettings {
            dns_servers: vec!["127.0.0.1:9".parse().unwrap()],
            cache_file: Some(self.0.join("facts.redb")),
            ..LookupSettings::default()
        };
        let (lookup, warnings) = LookupService::start(settings, Arc::new(())).unwrap();
        assert_eq!(warnings, [""; 0]);
        lookup
    }

    fn config(&self, to: &str) -> Config {
        let text = format!(
            "smtp.hostname = \"mx.example.org\"\nlisten.addresses = [\"[::1]:2525\"]\nupstream.addresses = [\"[::1]:25\"]\n\
             [canary]\nkey_file = {:?}\ninbound_to = {to:?}\n",
            self.0.join("key")
        );
        Config::parse(&text, "gatepost.toml").unwrap()
    }

    fn start(&self, to: &str) -> Running {
        let lookup = self.lookup();
        let metrics = Arc::new(Metrics::new().unwrap());
        let settings = LogSettings { file: Some(self.0.join("log")), ..LogSettings::default() };
        let log = Arc::new(SessionLog::start(&settings, Box::new(|_| {})).unwrap());
        let config = self.config(to);
        let service = CanaryService::start(&config, Some(&lookup), &metrics, &log).unwrap();
        Running { service, lookup, log }
    }

    /// Of a mailbox.
    fn report(&self, pair: u8, family: Family, to: &str, marks: Vec<Mark>) -> CanaryReport {
        let key = SharedKey::read(&self.0.join("key")).unwrap().hmac().clone();
        let (pair, sent) = (PairId::new([pair; 8]), wall_clock());
        let direction = CanaryDirection::Inbound;
        let message_id =
            CanaryToken { pair, family, direction, sent }.message_id(to, "v.example", &key);
        let judgement = HeaderJudgement { marks, score: None };
        CanaryReport { message_id, recipient: to.to_owned(), received: sent, judgement }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _gone = fs::remove_dir_all(&self.0);
    }
}

impl Running {
    fn comparison(&self) -> (Comparison, bool) {
        let status = self.service.status().unwrap().remove(0);
        (status.comparison, status.at.is_some())
    }

    fn end(self) {
        self.lookup.flush();
        self.log.flush(Duration::from_secs(2));
    }
}

fn spam() -> Vec<Mark> {
    let (field, value) = ("X-Spam".to_owned(), "Yes".to_owned());
    vec![Mark { by: SpamFilter::Rspamd, field, value }]
}

#[tokio::test]
async fn results_of_the_same_mailbox_survive_and_an_unreadable_state_is_a_warning() {
    let site = Site::new();
    let running = site.start(TO);
    assert_eq!(running.comparison(), (Comparison::Unknown, false));
    for (family, marks) in [(Family::Ipv4, Vec::new()), (Family::Ipv6, spam())] {
        running.service.on_report(site.report(1, family, TO, marks)).unwrap();
    }
    let filtered = running.service.filtered(Family::Ipv6);
    assert!(filtered.as_ref().is_some_and(|why| why.contains("marked as spam")), "{filtered:?}");
    running.end();

    let running = site.start(TO);
    assert_eq!(running.comparison(), (Comparison::Ipv6Worse, true));
    assert_eq!(running.service.filtered(Family::Ipv6), filtered);
    // The same pair again counts for nothing.
    running.service.on_report(site.report(1, Family::Ipv6, TO, Vec::new())).unwrap();
    assert_eq!(running.comparison(), (Comparison::Ipv6Worse, true));
    // A reload without the section, and with it again.
    running.service.apply(None);
    assert!(running.service.status().is_none() && running.service.filtered(Family::Ipv6).is_none());
    assert!(running.service.on_report(site.report(2, Family::Ipv6, TO, spam())).is_err());
    running.service.apply(ActiveCanaries::new(&site.config(TO)).unwrap());
    assert_eq!(running.comparison(), (Comparison::Unknown, false));
    // Not saved since: the file still has the result.
    running.end();
    let other = site.start("other@example.org");
    assert_eq!(other.comparison(), (Comparison::Unknown, false), "of another mailbox");
    other.end();

    let lookup = site.lookup();
    lookup.save_state(STATE, b"{\"inbound\": 1}".to_vec());
    lookup.flush();
    drop(lookup);
    let running = site.start(TO);
    assert_eq!(running.comparison(), (Comparison::Unknown, false));
    for (family, marks) in [(Family::Ipv4, spam()), (Family::Ipv6, spam())] {
        running.service.on_report(site.report(3, family, TO, marks)).unwrap();
    }
    assert_eq!(running.comparison(), (Comparison::Equal, true));
    running.end();
    let log = fs::read_to_string(site.0.join("log")).unwrap();
    let warning = "warn the saved results of canaries cannot be read, so that nothing is known until the next pair: ";
    assert_eq!(log.matches(warning).count(), 1, "{log}");
    let running = site.start(TO);
    assert_eq!(running.comparison(), (Comparison::Equal, true));
    running.end();
}
