//! Sessions that are joined to those of a relay, and those that are not.

use std::sync::Mutex;

use super::*;
use crate::addr::{Family, Networks};
use crate::engine::{AskedAt, DelegationEvent, MessageProgress, Outcome, PolicyQuestion};
use crate::policy::PolicyAction;
use crate::policy::facts::PresentedCertificate;
use crate::policy::rules::{PolicyRule, PolicyRules, PolicyStage, RuleMode, When};

const HOUR: Duration = Duration::from_secs(3600);
const KEPT: SessionTimes = SessionTimes { quiet: HOUR, left: HOUR };

/// Keeps the records that were reported by themselves.
#[derive(Default)]
struct Recorded(Mutex<Vec<SessionRecord>>);

impl Observe for Recorded {
    fn event(&self, _: Family, _: Event) {}

    fn policy(&self, _: Family, _: &str, _: PolicyAction, _: RuleMode) {}

    fn session(&self, record: &SessionRecord) {
        self.0.lock().unwrap().push(record.clone());
    }

    fn delegation(&self, _: DelegationEvent) {}
}

impl Recorded {
    fn take(&self) -> Vec<SessionRecord> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct NoLookups;

impl PolicyLookups for NoLookups {
    fn lookup_for(&self, _: Lookup, _: IpAddr) -> PolicyLookupFuture {
        unreachable!("no rule needs one")
    }
}

/// With a rule that decides at the end of each message, and rejects it.
fn rejecting_at_end() -> Arc<Sessions> {
    let rule = PolicyRule {
        name: "nobody".into(),
        at: PolicyStage::Data,
        when: When::default(),
        exempt: vec![],
        require: vec![],
        otherwise: PolicyAction::Reject,
        on_unknown: PolicyAction::Tempfail,
        mode: RuleMode::Enforce,
        url: None,
    };
    let rules = PolicyRules::new(vec![rule], Networks::default());
    let profile = Arc::new(Profile { rules: Arc::new(rules), ..Profile::default() });
    Arc::new(Sessions::new(Arc::new(NoLookups), Arc::new(Recorded::default()), profile, KEPT))
}

fn sessions(times: SessionTimes) -> (Arc<Sessions>, Arc<Recorded>) {
    let recorded = Arc::new(Recorded::default());
    let observer = Arc::clone(&recorded) as _;
    (Arc::new(Sessions::new(Arc::new(NoLookups), observer, Arc::default(), times)), recorded)
}

fn key(port: u16) -> SessionKey {
    SessionKey {
        client: format!("[2001:db8::25]:{port}").parse().unwrap(),
        server: "[2001:db8::1]:25".parse().unwrap(),
    }
}

async fn ask(sessions: &Sessions, key: SessionKey, at: AskedAt) {
    assert_eq!(decide(sessions, key, at).await, DelegatedReply::Accept);
}

async fn decide(sessions: &Sessions, key: SessionKey, at: AskedAt) -> DelegatedReply {
    let recipient = (at == AskedAt::Rcpt).then(|| "b@example.org".into());
    let stage = match at {
        AskedAt::Rcpt => PolicyStage::Rcpt,
        AskedAt::EndOfMessage => PolicyStage::Data,
        _ => PolicyStage::Mail,
    };
    let asked = DelegatedQuestion {
        question: PolicyQuestion {
            stage,
            message: None,
            helo: Some("mta.a.example".into()),
            sender: Some(format!("{}@a.example", key.client.port()).into()),
            recipient,
            authenticated: false,
            tls: true,
        },
        at,
        esmtp: true,
        tls_version: None,
        certificate: PresentedCertificate::None,
        instance: key.client.port().to_string().into(),
        queue_id: None,
        size: 100,
        decided_by_relay: false,
    };
    let deadline = tokio::time::Instant::now() + HOUR;
    sessions.decide(key, asked, deadline).await.0
}

fn senders(record: &SessionRecord) -> Vec<&str> {
    record.smtp.transactions.iter().map(|one| &*one.mail_from).collect()
}

#[tokio::test]
async fn two_sessions_of_one_address_differ_by_the_port() {
    let (sessions, recorded) = sessions(KEPT);
    for at in [AskedAt::Rcpt, AskedAt::Data] {
        for port in [1, 2] {
            ask(&sessions, key(port), at).await;
        }
    }
    ask(&sessions, key(2), AskedAt::EndOfMessage).await;
    for (port, progress) in [(1, MessageProgress::ContentDue), (2, MessageProgress::Received)] {
        let record = sessions.take(key(port)).unwrap();
        assert_eq!(senders(&record), [format!("{port}@a.example")]);
        assert_eq!(record.smtp.transactions[0].progress, Some(progress));
    }
    assert!(sessions.take(key(1)).is_none());
    sessions.finish_all();
    assert_eq!(recorded.take(), [], "each has one record");
}

#[tokio::test]
async fn a_session_without_a_record_of_the_relay_has_its_own() {
    let never = SessionTimes { quiet: Duration::ZERO, left: Duration::ZERO };
    let (expires, expired) = sessions(never);
    ask(&expires, key(1), AskedAt::Rcpt).await;
    expires.finish_quiet();
    let records = expired.take();
    assert_eq!((records.len(), records[0].outcome), (1, Outcome::Delegated));
    assert!(expires.take(key(1)).is_none());

    let (kept, recorded) = sessions(KEPT);
    ask(&kept, key(1), AskedAt::Rcpt).await;
    kept.finish_quiet();
    assert_eq!(recorded.take(), []);
    assert!(kept.take(key(1)).is_some());
}

#[tokio::test]
async fn a_session_that_postfix_left_waits_for_the_record_of_the_relay() {
    let (beside, recorded) = sessions(KEPT);
    ask(&beside, key(1), AskedAt::Rcpt).await;
    beside.on_left(key(1));
    beside.finish_quiet();
    assert_eq!(recorded.take(), []);
    assert!(beside.take(key(1)).is_some());

    let (alone, recorded) = sessions(SessionTimes { left: Duration::ZERO, ..KEPT });
    ask(&alone, key(1), AskedAt::Rcpt).await;
    alone.on_left(key(1));
    assert_eq!(recorded.take().len(), 1);
    assert!(alone.take(key(1)).is_none());

    // Leaving does not keep it longer than silence does.
    let (short, recorded) = sessions(SessionTimes { quiet: Duration::ZERO, ..KEPT });
    ask(&short, key(1), AskedAt::Rcpt).await;
    short.on_left(key(1));
    short.finish_quiet();
    assert_eq!(recorded.take().len(), 1);
}

/// The client left after its message, and Postfix asks about its end.
#[tokio::test]
async fn a_question_after_the_end_of_its_session_is_recorded_by_itself() {
    let (sessions, recorded) = sessions(KEPT);
    ask(&sessions, key(1), AskedAt::Rcpt).await;
    let record = sessions.take(key(1)).unwrap();
    assert_eq!(record.smtp.transactions[0].progress, None);
    ask(&sessions, key(1), AskedAt::EndOfMessage).await;
    sessions.finish_all();
    let records = recorded.take();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].smtp.transactions[0].progress, Some(MessageProgress::Received));
    assert_eq!(senders(&records[0]), ["1@a.example"]);
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_recorded_at_once() {
    let (sessions, recorded) = sessions(KEPT);
    let last = u16::try_from(MAX_SESSIONS).unwrap();
    for port in 0..=last {
        ask(&sessions, key(port), AskedAt::Rcpt).await;
    }
    assert_eq!(sessions.lock().len(), MAX_SESSIONS);
    let records = recorded.take();
    assert_eq!(records.iter().flat_map(senders).collect::<Vec<_>>(), ["10000@a.example"]);
    // Those that are kept stay so.
    ask(&sessions, key(0), AskedAt::Data).await;
    assert_eq!(recorded.take(), []);
    assert!(sessions.take(key(0)).is_some());
}

#[tokio::test]
async fn postfix_before_3_2_names_no_server() {
    let (sessions, _) = sessions(KEPT);
    let unknown = SessionKey { server: "[::]:25".parse().unwrap(), ..key(1) };
    ask(&sessions, unknown, AskedAt::Rcpt).await;
    assert!(sessions.take(key(2)).is_none());
    assert!(sessions.take(key(1)).is_some());
}

#[tokio::test]
async fn the_end_of_a_message_that_the_relay_decided_is_accepted() {
    let sessions = rejecting_at_end();
    let is_accepted = async |key| {
        ask(&sessions, key, AskedAt::Rcpt).await;
        decide(&sessions, key, AskedAt::EndOfMessage).await == DelegatedReply::Accept
    };
    assert!(!is_accepted(key(1)).await);
    sessions.on_message_decided(key(1));
    assert!(is_accepted(key(1)).await);
    assert!(is_accepted(key(1).without_server()).await, "Postfix before 3.2");
    assert!(!is_accepted(key(2)).await, "another session");
    assert!(sessions.take(key(1)).is_some());
    assert!(!is_accepted(key(1)).await, "a later session from the same port");
}
