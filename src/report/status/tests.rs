//! The page, with data of hostile clients in it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use self::records::{a_session, at, from};
use super::page::page;
use super::session::Tone;
use super::*;
use crate::addr::Side;
use crate::canary::{
    CanaryDirection, CanaryOutcome, CanaryStatus, Comparison, Mark, MarkedWhere, SpamFilter,
};
use crate::engine::{
    AttemptOutcome, MessageProgress, Outcome, RecipientRecord, TlsState, TransactionRecord,
};
use crate::policy::PolicyAction;
use crate::policy::door::{
    Door, DoorReport, DoorSettings, ProbeResults, Signals, SilenceSign, VantageStatus,
};
use crate::policy::facts::{Answer, DnsRecord, DomainName, Reason, Source};
use crate::report::wording;

pub(super) mod records {
    use crate::addr::Family;
    use crate::engine::{
        Endpoint, Outcome, SessionRecord, SmtpFacts, TcpFacts, TransactionRecord, VerdictRecord,
    };
    use crate::policy::PolicyAction;
    use crate::time::Timestamp;
    use std::net::IpAddr;
    use std::time::Duration;

    /// So many seconds after 2026-01-02 03:00:00 UTC.
    pub(in crate::report::status) fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos(1_767_322_800_000_000_000) + Duration::from_secs(seconds)
    }

    /// One message from joe@a.example to ann@example.org, over IPv6.
    pub(in crate::report::status) fn a_session() -> SessionRecord {
        from("2001:db8:1::10".parse().unwrap())
    }

    pub(in crate::report::status) fn from(address: IpAddr) -> SessionRecord {
        let transaction = TransactionRecord {
            mail_from: "joe@a.example".to_owned(),
            mail_code: Some(250),
            data_code: Some(250),
            ..TransactionRecord::default()
        };
        let mut smtp = SmtpFacts {
            helo: Some("mail.a.example".to_owned()),
            transactions: vec![transaction],
            ..SmtpFacts::default()
        };
        smtp.phases.connect = Some(Duration::from_millis(3));
        smtp.phases.greeting = Some(Duration::from_millis(20));
        smtp.phases.acceptance = Some(Duration::from_millis(80));
        SessionRecord {
            start: at(0),
            duration: Duration::from_millis(1200),
            family: Family::of(address),
            client: Endpoint { address, port: 40_000 },
            server: Endpoint { address, port: 25 },
            listener: None,
            upstream: None,
            upstream_name: None,
            upstream_error: None,
            upstream_tls: None,
            outcome: Outcome::Quit,
            tcp: TcpFacts::default(),
            smtp,
            facts: None,
            verdict: VerdictRecord {
                action: PolicyAction::Accept,
                rule: None,
                reason: None,
                shadow: Vec::new(),
            },
            encrypted: None,
            questions: Vec::new(),
        }
    }
}

fn quiet(at: Timestamp) -> LiveState {
    LiveState {
        at,
        ready: true,
        readiness: "ready",
        doors: Vec::new(),
        canaries: None,
        upstreams: Vec::new(),
        warning: None,
    }
}

fn rendered(status: &StatusCollector, live: &LiveState) -> String {
    let gateway = GatewayInfo {
        host: "mx.example.org".to_owned(),
        version: "1.2.3",
        config: "/etc/<gatepost>\u{202e}.toml".to_owned(),
        started: at(0),
    };
    page(&gateway, live, &status.snapshot(live.at)).into_string()
}

/// A gateway with all kinds of problems.
fn busy(settings: &StatusSettings) -> (StatusCollector, LiveState) {
    let status = StatusCollector::new(settings);
    for minute in (0..50).step_by(10) {
        let mut record = from("192.0.2.10".parse().unwrap());
        record.start = at(minute * 60);
        status.session(&record);
    }
    let mut refused = a_session();
    refused.start = at(3000);
    refused.smtp.helo = Some("<script>alert(1)</script>\"'&\u{1b}[2J\u{202e}".to_owned());
    refused.smtp.transactions[0] = TransactionRecord {
        mail_from: "joe\"<b>@host-192-0-2-7.<i>.example".to_owned(),
        rcpt_to: vec![RecipientRecord {
            address: "ann@example.org".to_owned(),
            code: Some(450),
            enhanced: None,
        }],
        rcpt_total: 3,
        ..TransactionRecord::default()
    };
    refused.verdict.action = PolicyAction::Tempfail;
    refused.verdict.rule = Some("names </td> & more".to_owned());
    refused.verdict.reason = Some("fcrdns.no_ptr".to_owned());
    status.session(&refused);
    let mut failed = a_session();
    failed.start = at(3100);
    failed.outcome = Outcome::Timeout;
    failed.smtp.transactions[0].data_code = None;
    status.session(&failed);
    status.event(Family::Ipv6, Event::SessionOpened);

    let ip = "2001:db8:1::10".parse().unwrap();
    let exchange =
        DnsRecord::Exchange { preference: 10, host: DomainName::parse("mx.a.example").unwrap() };
    for (lookup, answer) in [
        (Lookup::Reverse(ip), Answer::NxDomain),
        (
            Lookup::MailExchanges(DomainName::parse("a.example").unwrap()),
            Answer::Records(vec![exchange]),
        ),
        (
            Lookup::Callout(ip, "joe@a.example".to_owned()),
            Answer::No(Reason::NoSuchMailbox, Some("550 <joe@a.example> unknown".to_owned())),
        ),
    ] {
        status.on_new_answer(
            &lookup,
            &LookupResult { answer, source: Source::Dns, at: Some(at(3100)) },
        );
    }

    let mut door = Door::new(Family::Ipv6, DoorSettings::default(), at(0));
    for seconds in [2400, 2461] {
        let probes = ProbeResults {
            last: at(seconds),
            reached: false,
            in_a_row: 5,
            last_reached: Some(at(60)),
            last_large: None,
            detail: Some("mx.example.org 2001:db8::25 no_response <b>\u{202e}".to_owned()),
        };
        let signs = Signals { probes: Some(probes), has_vantage: true, ..Signals::default() };
        door.update(&signs, at(seconds));
    }
    let closed = DoorReport {
        family: Family::Ipv6,
        status: Some(door.status(at(3200))),
        refuses: "syn".to_owned(),
        refused: 1204,
        vantage: Some(vantage_down(at(3000))),
        silence: Some(missing_mail()),
        filtered: None,
        enforced: true,
    };
    let unguarded = DoorReport {
        family: Family::Ipv4,
        status: None,
        refuses: "syn".to_owned(),
        refused: 0,
        vantage: Some(vantage_down(at(3000))),
        silence: None,
        filtered: None,
        enforced: true,
    };
    let upstream = |address: &str, up, seconds, last_error| UpstreamRow {
        name: address.to_owned(),
        up,
        unchanged_for: Duration::from_secs(seconds),
        last_error,
    };
    let refused = Some((wording::attempt(AttemptOutcome::Refused), Duration::from_secs(30)));
    let upstreams = vec![
        upstream("[2001:db8:2::25]:25", Some(false), 200, refused),
        upstream("198.51.100.25:25", Some(true), 3100, None),
        upstream("198.51.100.26:25", None, 0, None),
    ];
    (status, LiveState { doors: vec![closed, unguarded], upstreams, ..quiet(at(3200)) })
}

#[test]
fn page_with_problems() {
    let (status, live) = busy(&StatusSettings::default());
    let html = rendered(&status, &live);
    // One element per line, for readable diffs.
    insta::assert_snapshot!(html.replace("><", ">\n<"));
}

#[test]
fn the_listener_is_shown_where_there_are_several() {
    let status = StatusCollector::new(&StatusSettings::default());
    let observe = |name: &str| {
        status.session(&SessionRecord { listener: Some(name.into()), ..a_session() });
        rendered(&status, &quiet(at(10)))
    };
    assert!(!observe("mx").contains("data-label=\"Listener\""), "of the only one");
    assert!(!observe("mx").contains("data-label=\"Listener\""), "of the only one, twice");
    let html = observe("submission");
    for name in ["mx", "submission"] {
        assert!(html.contains(&format!("data-label=\"Listener\"><div>{name}</div>")), "{html}");
    }
}

#[test]
fn client_data_is_not_markup() {
    for show_addresses in [false, true] {
        let (status, live) = busy(&StatusSettings { show_addresses, ..StatusSettings::default() });
        let html = rendered(&status, &live);
        for text in ["<script>", "</td> &", "<b>", "<i>", "<gatepost>", "\u{1b}", "\u{202e}"] {
            assert!(!html.contains(text), "{text:?} in {html}");
        }
        for shown in ["&lt;script&gt;", "&lt;/td&gt; &amp; more", "\\u{202e}", "\\x1b"] {
            assert!(html.contains(shown), "no {shown:?} in {html}");
        }
        for word in ["2001:db8:1::10", "joe", "ann@", "550 "] {
            assert_eq!(html.contains(word), show_addresses, "{word:?}");
        }
        assert!(html.contains("2001:db8:2::25"), "upstream addresses are not hidden");
        assert!(!html.contains("style="), "the content security policy forbids it");
    }
}

#[test]
fn headlines() {
    let mut text = String::new();
    let mut add = |name: &str, status: &StatusCollector, live: &LiveState| {
        let headline = headline::Headline::new(live, &status.snapshot(live.at));
        text += &format!("{name}: [{}] {}\n", headline.tone.class(), headline.sentence);
        headline.also.iter().for_each(|also| text += &format!("  {also}\n"));
    };
    let empty = StatusCollector::new(&StatusSettings::default());
    add("no session yet", &empty, &quiet(at(0)));
    let mut draining = quiet(at(0));
    (draining.ready, draining.readiness) =
        (false, "not ready: draining, no new sessions are accepted");
    add("draining", &empty, &draining);
    let (status, mut live) = busy(&StatusSettings::default());
    add("closed, and an upstream down", &status, &live);
    live.doors.clear();
    add("an upstream down", &status, &live);
    live.upstreams.truncate(1);
    live.ready = false;
    add("the upstream down", &status, &live);
    live.upstreams[0].up = Some(true);
    live.ready = true;
    add("no problems", &status, &live);
    for second in 0..6 {
        let mut failed = a_session();
        failed.start = at(3100 + second);
        failed.outcome = Outcome::Timeout;
        failed.smtp.transactions.clear();
        status.session(&failed);
    }
    add("IPv6 fails", &status, &live);
    let set_manually = |mode| {
        let mut door = Door::new(Family::Ipv6, DoorSettings::default(), at(0));
        door.set_mode(mode);
        door.update(&Signals::default(), at(60));
        let status = Some(door.status(at(3200)));
        vec![DoorReport {
            family: Family::Ipv6,
            status,
            refuses: "smtp".to_owned(),
            refused: 0,
            vantage: None,
            silence: None,
            filtered: None,
            enforced: true,
        }]
    };
    for mode in crate::policy::door::OperatorMode::ALL {
        let doors = set_manually(mode);
        add(mode.as_str(), &empty, &LiveState { doors, ..quiet(at(3200)) });
    }
    let unguarded = |vantage, silence| DoorReport {
        family: Family::Ipv6,
        status: None,
        refuses: "syn".to_owned(),
        refused: 0,
        vantage,
        silence,
        filtered: None,
        enforced: true,
    };
    let doors = vec![unguarded(Some(vantage_down(at(3000))), Some(missing_mail()))];
    add(
        "mail is missing, and the vantage is down",
        &empty,
        &LiveState { doors, ..quiet(at(3200)) },
    );
    insta::assert_snapshot!(text);
}

/// A session of second `start` over IPv6, whose TLS passed through.
fn under_tls(start: u64, outcome: Outcome) -> SessionRecord {
    let mut record = a_session();
    (record.start, record.outcome) = (at(start), outcome);
    record.tcp.closed_by = Some(Side::Client);
    record.smtp.tls = TlsState::Started;
    record.smtp.transactions.clear();
    record
}

#[test]
fn sessions_under_tls_are_neither_failed_nor_without_messages() {
    let status = StatusCollector::new(&StatusSettings::default());
    let live = quiet(at(60));
    for second in 0..19 {
        status.session(&under_tls(second, Outcome::TlsCompleted));
    }
    let headline = || headline::Headline::new(&live, &status.snapshot(live.at));
    assert_eq!(headline().sentence, "No problems: 19 sessions under TLS in the last hour.");
    let snapshot = status.snapshot(live.at);
    assert_eq!(snapshot.families[Family::Ipv6 as usize].hour.all.failed, 0);
    assert_eq!(snapshot.sessions[0].verdict, "relayed under TLS");
    assert_eq!(snapshot.sessions[0].reason, "");
    let html = rendered(&status, &live);
    let row = |name: &str| {
        let after = html.split_once(name).unwrap_or_else(|| panic!("no row {name}")).1;
        after.split_once("</tr>").unwrap().0.to_owned()
    };
    assert!(row("… under TLS, replies not visible").contains(">19<"), "{html}");
    let accepted = row("Accepted messages");
    assert!(
        accepted.contains("–") && accepted.contains(">0<"),
        "IPv6 unknown, IPv4 none: {accepted}"
    );

    status.session(&a_session());
    assert_eq!(
        headline().sentence,
        "No problems: 1 message accepted and 19 sessions under TLS in the last hour."
    );
    for second in 20..41 {
        status.session(&under_tls(second, Outcome::TlsFailed));
    }
    assert_eq!(headline().sentence, "21 of 41 IPv6 sessions in the last 10 min failed.");
    let snapshot = status.snapshot(live.at);
    let latest = &snapshot.sessions[0];
    assert_eq!((latest.verdict, &*latest.reason), ("TLS failed", "client closed"));
}

/// The questions of the Postfix behind the gateway were joined to the session.
#[test]
fn a_joined_session_under_tls_has_its_envelope_and_queue_id() {
    let status = StatusCollector::new(&StatusSettings { show_addresses: true, hosts: Vec::new() });
    let mut record = under_tls(0, Outcome::TlsCompleted);
    let to = RecipientRecord { address: "ann@example.org".to_owned(), code: None, enhanced: None };
    record.smtp.transactions = vec![TransactionRecord {
        mail_from: "joe@a.example".to_owned(),
        rcpt_to: vec![to],
        rcpt_total: 1,
        queue_id: Some("4XyZ\u{1b}".to_owned()),
        progress: Some(MessageProgress::Received),
        ..TransactionRecord::default()
    }];
    status.session(&record);
    let snapshot = status.snapshot(at(60));
    let row = &snapshot.sessions[0];
    assert_eq!((row.tone, row.verdict), (Tone::Good, "received under TLS"));
    assert_eq!(snapshot.families[Family::Ipv6 as usize].hour.all.messages_received, 1);
    let html = rendered(&status, &quiet(at(60)));
    let cell = |label: &str| {
        let after = html.split_once(&format!("<td role=\"cell\" data-label=\"{label}\"><div>"));
        after.unwrap_or_else(|| panic!("no {label}: {html}")).1.split_once('<').unwrap().0
    };
    assert_eq!((cell("From"), cell("To")), ("joe@a.example", "ann@example.org"));
    assert_eq!(cell("Queue ID"), "4XyZ\\x1b");
    let (_, rest) = html.split_once("Messages received under TLS").unwrap();
    assert!(rest.split_once("</tr>").unwrap().0.contains(">1<"), "{html}");

    record.smtp.transactions[0].progress = Some(MessageProgress::ContentDue);
    status.session(&record);
    assert_eq!(status.snapshot(at(60)).sessions[0].verdict, "relayed under TLS");
    let none = StatusCollector::new(&StatusSettings::default());
    none.session(&a_session());
    assert!(!rendered(&none, &quiet(at(60))).contains("Queue ID"));
}

fn vantage_down(since: Timestamp) -> VantageStatus {
    let mut vantage = VantageStatus::new(at(0));
    vantage.on_result(Ok(()), at(60));
    vantage.on_result(Err("the vantage at [2001:db8::9]:9626 did not answer in time"), since);
    vantage
}

fn missing_mail() -> SilenceSign {
    SilenceSign { since: at(2600), other_sessions: 45, expected: 18.7 }
}

#[test]
fn rows_are_bounded_and_the_latest_is_first() {
    let status = StatusCollector::new(&StatusSettings::default());
    for n in 0..100 {
        let mut record = a_session();
        record.smtp.helo = Some(format!("host{n}.example{}", "x".repeat(10_000)));
        status.session(&record);
        let name = DomainName::parse(&format!("domain{n}.example")).unwrap();
        let answer = Answer::Records(vec![DnsRecord::Name(name.clone()); 1000]);
        let result = LookupResult { answer, source: Source::Dns, at: None };
        status.on_new_answer(&Lookup::MailExchanges(name), &result);
    }
    let snapshot = status.snapshot(at(0));
    assert_eq!((snapshot.sessions.len(), snapshot.lookups.len()), (ROWS, ROWS));
    assert!(snapshot.sessions[0].helo.as_deref().unwrap().starts_with("host99."));
    assert_eq!(snapshot.lookups[0].subject, "domain99.example");
    let html = rendered(&status, &quiet(at(0)));
    assert!(html.len() < 64 << 10, "{} bytes", html.len());
}

#[tokio::test]
async fn one_page_serves_concurrent_clients() {
    use std::sync::atomic::AtomicUsize;

    let rendered = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&rendered);
    let provider: LiveStateProvider = Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { quiet(at(0)) })
    });
    let gateway =
        GatewayInfo { host: String::new(), version: "1", config: String::new(), started: at(0) };
    let status = Arc::new(StatusCollector::new(&StatusSettings::default()));
    let router = routes::routes_with_max_age(Duration::MAX, status, gateway, provider);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let serving = tokio::spawn(async { axum::serve(listener, router).await });
    let requests = (0..20).map(|_| tokio::spawn(request(address, "GET", "/")));
    for answer in futures_util::future::join_all(requests).await {
        assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK"));
    }
    assert_eq!(rendered.load(Ordering::Relaxed), 1);
    let mut heads = String::new();
    for (method, path) in [
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/status.css"),
        ("GET", "/status.js"),
        ("GET", "/status.svg"),
        ("POST", "/"),
        ("GET", "/status"),
    ] {
        let answer = request(address, method, path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<&str> = head.lines().collect();
        lines.retain(|line| !line.starts_with("date:") && !line.starts_with("content-length:"));
        lines[1..].sort_unstable();
        let body = if body.is_empty() { "no body" } else { "body" };
        heads += &format!("{method} {path}\n{}\n{body}\n\n", lines.join("\n"));
    }
    insta::assert_snapshot!(heads);
    serving.abort();
}

async fn request(address: SocketAddr, method: &'static str, path: &'static str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: gatepost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The page after a client at `ip` sent these texts together with its address.
fn page_after(ip: IpAddr, texts: &[String]) -> String {
    let [helo, local, domain, rule, reason] = texts else { panic!("{texts:?}") };
    let status = StatusCollector::new(&StatusSettings::default());
    let dashed = ip.to_string().replace(['.', ':'], "-");
    for spelling in [ip.to_string(), format!("[{ip}]"), format!("[IPv6:{ip}]"), dashed] {
        let mut record = from(ip);
        record.smtp.helo = Some(format!("{helo} {spelling}"));
        record.smtp.transactions[0].mail_from = format!("{local}secret@{spelling} {domain}");
        let address = format!("secret{local}@{domain} {spelling}");
        let recipient = RecipientRecord { address, code: None, enhanced: None };
        record.smtp.transactions[0].rcpt_to = vec![recipient];
        record.verdict.rule = Some(format!("{rule} {spelling}"));
        record.verdict.reason = Some(format!("{reason} {spelling}"));
        status.session(&record);
        let callout = Lookup::Callout(ip, format!("secret@{spelling}"));
        for lookup in [Lookup::Reverse(ip), Lookup::Greet(ip), callout] {
            let answer = Answer::No(Reason::Refused, Some(format!("{spelling} secret")));
            status
                .on_new_answer(&lookup, &LookupResult { answer, source: Source::Probe, at: None });
        }
        if let Some(name) = DomainName::parse(&format!("host-{spelling}.example")) {
            for subject in [name.clone(), DomainName::reverse(ip)] {
                let answer =
                    Answer::Records(vec![DnsRecord::Name(name.clone()), DnsRecord::Address(ip)]);
                let result = LookupResult { answer, source: Source::Dns, at: None };
                status.on_new_answer(&Lookup::Addresses(subject, Family::Ipv4), &result);
            }
        }
    }
    rendered(&status, &quiet(at(1)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No client data creates markup or reveals the client's address.
    #[test]
    fn no_client_address_and_no_client_markup(
        ip in prop_oneof![
            any::<u32>().prop_map(|ip| IpAddr::V4(ip.into())),
            any::<u128>().prop_map(|ip| IpAddr::V6(ip.into())),
        ],
        texts in proptest::collection::vec("([^@]|[<>&\"'/=a-z]){0,40}", 5),
    ) {
        let ip = ip.to_canonical();
        let html = page_after(ip, &texts);
        let reverse = DomainName::reverse(ip).to_string();
        let reverse = reverse.trim_end_matches(".in-addr.arpa").trim_end_matches(".ip6.arpa");
        let dashed = ip.to_string().replace(['.', ':'], "-");
        for hidden in [&ip.to_string(), &dashed, reverse, "secret"] {
            prop_assert!(!html.contains(hidden), "{hidden:?} in {html}");
        }
        let harmless = page_after(ip, &["a", "b", "c", "d", "e"].map(str::to_owned));
        for c in ['<', '>', '"'] {
            let count = |html: &str| html.matches(c).count();
            prop_assert_eq!(count(&html), count(&harmless), "{}", html);
        }
        prop_assert!(!html.chars().any(char::is_control), "{html:?}");
    }
}

#[test]
fn canaries_have_a_sentence_each() {
    let empty = StatusCollector::new(&StatusSettings::default());
    let status = |direction, comparison, ipv6, mark| CanaryStatus {
        direction,
        comparison,
        at: Some(at(3_000)),
        ipv4: CanaryOutcome::Clean,
        ipv6,
        mark,
        waiting: 0,
    };
    let (field, value) = ("X-Spam".to_owned(), "<b>Yes".to_owned());
    let mark = Mark { by: SpamFilter::Rspamd, field, value };
    let worse = status(
        CanaryDirection::Inbound,
        Comparison::Ipv6Worse,
        CanaryOutcome::MarkedSpam,
        Some((mark, MarkedWhere::BehindGateway)),
    );
    let alike = status(CanaryDirection::Outbound, Comparison::Equal, CanaryOutcome::Clean, None);
    let live = LiveState { canaries: Some(vec![worse, alike]), ..quiet(at(3_200)) };
    let html = rendered(&empty, &live);
    let sentence = "IPv6 mail is treated worse: the message over IPv6 was marked as spam, the one over IPv4 arrived without \
        a mark; marked by rspamd (X-Spam: &lt;b&gt;Yes), behind the gateway";
    assert!(html.contains(&format!("Canaries, inbound: {sentence}.")), "{html}");
    assert!(html.contains("Both messages were treated alike: each arrived without a mark"));
    let none = LiveState { canaries: Some(Vec::new()), ..quiet(at(3_200)) };
    let html = rendered(&empty, &none);
    assert!(html.contains("None yet.") && html.contains("no problems"), "{html}");
    assert!(!rendered(&empty, &quiet(at(3_200))).contains("Canaries"));
}
