//! Sessions with one message of 2 kB, large messages, and the memory of idle sessions.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::net::Lab;
use crate::proxies::{Peer, Proxy, Site, clients};
use crate::results::Figures;
use crate::sink::{Counters, Sink};
use crate::smtp_client::{Load, LoadReport, message_of};
use crate::smtp_sink::{SmtpSink, check_path};
use crate::timing::{LARGE, STREAMS, in_parallel, percentiles};

/// Concurrent clients: enough to keep two cores busy.
pub(crate) const PARALLEL: usize = 20;
/// Of the message of each session.
const SHORT: usize = 2048;
/// TLS 1.3 (RFC 8446): what every proxy must agree on, for people.
const AGREED: &str = "TLSv1_3 TLS13_AES_128_GCM_SHA256 X25519";

/// Sends one message, checks that the proxy is in its path, and returns its handshake.
pub(crate) fn check(lab: &Lab, proxy: &Proxy, folder: &Path) -> Result<String> {
    let content = message_of(SHORT);
    let mut handshake = None;
    check_path(lab, proxy.peer, folder, || {
        let load = Load { to: proxy.address, content: &content, ..Load::default() };
        let report = lab.client.within(|| clients(proxy.peer, 1, false).run(&load))?;
        handshake = report.handshake;
        Ok(())
    })?;
    match handshake {
        None => Ok("no TLS".to_owned()),
        Some(handshake) => {
            let (agreed, certificates) = (handshake.to_string(), handshake.certificates.len());
            ensure!(agreed == AGREED, "{AGREED} expected, it agreed on {agreed}");
            ensure!(certificates == 2, "two certificates expected, it sent {certificates}");
            Ok(agreed)
        }
    }
}

/// Every handshake was of the kind that is measured.
fn check_handshakes(proxy: &Proxy, resume: bool, sessions: u32, report: &LoadReport) -> Result<()> {
    let expected = match (proxy.peer, resume) {
        (Peer::Direct, _) => (0, 0),
        (_, false) => (sessions, 0),
        (_, true) => (0, sessions),
    };
    let (full, resumed) = (report.full, report.resumed);
    ensure!(
        (full, resumed) == expected,
        "{} full handshakes and {} resumed expected, they were {full} and {resumed}",
        expected.0,
        expected.1
    );
    Ok(())
}

/// Sessions on parallel clients, each with one message to smtp-sink.
pub(crate) fn sessions(
    lab: &Lab,
    proxy: &Proxy,
    resume: bool,
    sessions: u32,
    folder: &Path,
) -> Result<Figures> {
    let (sessions, content) = (proxy.peer.share(sessions), message_of(SHORT));
    let sink = SmtpSink::start(lab, &["-c"], folder)?;
    let clients = clients(proxy.peer, PARALLEL, resume);
    if resume {
        lab.client.within(|| clients.connect_once(proxy.address))?;
        thread::sleep(Duration::from_millis(50));
    }
    let load = Load { to: proxy.address, sessions, content: &content, ..Load::default() };
    let cpu = proxy.cpu()?;
    let report = lab.client.within(|| clients.run(&load))?;
    // The last sessions are still being closed when the clients have read their last 221.
    thread::sleep(Duration::from_millis(50));
    let cpu = proxy.cpu()? - cpu;
    check_handshakes(proxy, resume, sessions, &report)?;
    let messages = sink.counts()?.messages;
    ensure!(
        messages == u64::from(sessions),
        "{sessions} messages sent, smtp-sink counted {messages}"
    );
    Ok(vec![
        ("cpu_us_per_session", cpu * 1e6 / f64::from(sessions)),
        ("sessions_per_s", f64::from(sessions) / report.took.as_secs_f64()),
        ("wall_s", report.took.as_secs_f64()),
        ("cpu_s", cpu),
    ])
}

/// Complete sessions one after another, connect to 221, each with one message of 2 kB.
pub(crate) fn latency(
    lab: &Lab,
    proxy: &Proxy,
    resume: bool,
    counters: &Counters,
    sessions: u32,
) -> Result<Figures> {
    let (sessions, content) = (proxy.peer.share(sessions), message_of(SHORT));
    let before = counters.messages();
    let clients = clients(proxy.peer, 1, resume);
    let load = Load { to: proxy.address, sessions, content: &content, ..Load::default() };
    let report = lab.client.within(|| {
        if resume {
            clients.connect_once(proxy.address)?;
        }
        clients.run(&load)
    })?;
    check_handshakes(proxy, resume, sessions, &report)?;
    let arrived = counters.messages() - before;
    ensure!(arrived == u64::from(sessions), "{sessions} messages sent, the sink counted {arrived}");
    Ok(percentiles(report.times))
}

/// `messages` of 20 MB on each of the parallel sessions.
pub(crate) fn large(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    messages: u32,
) -> Result<Figures> {
    let content = message_of(LARGE);
    let before = counters.messages();
    let bytes = content.len() as f64 * f64::from(messages * STREAMS);
    let clients = clients(proxy.peer, STREAMS as usize, false);
    let sessions = lab.client.within(|| clients.open(proxy.address, STREAMS))?;
    let figures = in_parallel(proxy, sessions, bytes, |session| {
        for _ in 0..messages {
            session.message(&content)?;
        }
        Ok(())
    })?;
    let (sent, arrived) = (u64::from(messages * STREAMS), counters.messages() - before);
    ensure!(arrived == sent, "{sent} messages sent, the sink counted {arrived}");
    Ok(figures)
}

/// Resident memory of `count` sessions that are idle after TLS and EHLO. Measured with a new proxy process: after load a
/// process has free memory in its heap.
pub(crate) fn idle(site: &Site<'_>, peer: Peer, count: u32) -> Result<Figures> {
    let folder = site.folder.join("idle");
    let proxy = Proxy::start(&Site { folder: &folder, ..*site }, peer)?;
    let daemon = proxy.daemon.as_ref().context("the direct path has no memory of its own")?;
    let sink = Sink::start(site.lab)?;
    let before = daemon.memory()?;
    let clients = clients(peer, PARALLEL, false);
    let mut sessions = site.lab.client.within(|| clients.open(proxy.address, count))?;
    thread::sleep(Duration::from_millis(500));
    let after = daemon.memory()?;
    for session in &mut sessions {
        session.command("NOOP", "250").context("a session that was idle")?;
    }
    let open = sink.counters().open();
    // nginx connects at RCPT.
    let expected = if peer == Peer::Nginx { 0 } else { u64::from(count) };
    ensure!(open == expected, "{count} idle sessions made, the sink holds {open}");
    let each = |before: f64, after: f64| (after - before) / f64::from(count) / 1024.0;
    Ok(vec![
        ("rss_kib_per_session", each(before.rss, after.rss)),
        ("pss_kib_per_session", each(before.pss, after.pss)),
        ("rss_before_kib", before.rss / 1024.0),
    ])
}
