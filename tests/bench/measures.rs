//! Measures that smtp-source lacks, with our own client and sink: time per session, large messages, opaque bytes and the memory
//! of idle sessions.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::bulk::{self, Direction};
use crate::net::Lab;
use crate::proxies::{Peer, Proxy};
use crate::results::Figures;
use crate::sink::{Counters, Sink};
use crate::smtp_client::{Session, message_of};
use crate::timing::{LARGE, STREAMS, in_parallel, percentiles};

/// Complete sessions one after another, connect to 221, each with one message of 2 kB.
pub(crate) fn latency(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    sessions: u32,
) -> Result<Figures> {
    let content = message_of(2048);
    let before = counters.messages();
    let times = lab.client.within(|| {
        let mut times = Vec::new();
        for _ in 0..sessions {
            let started = Instant::now();
            let mut session = Session::connect(proxy.address)?;
            session.hello()?;
            session.message(&content)?;
            session.quit()?;
            times.push(started.elapsed());
        }
        Ok(times)
    })?;
    let arrived = counters.messages() - before;
    ensure!(arrived == u64::from(sessions), "{sessions} messages sent, the sink counted {arrived}");
    Ok(percentiles(times))
}

/// `messages` of 20 MB on each of the parallel sessions.
pub(crate) fn large(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    messages: u32,
) -> Result<Figures> {
    send_large(lab, proxy, counters, messages, &message_of(LARGE))
}

/// The same with messages that have a DKIM signature.
pub(crate) fn large_signed(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    messages: u32,
) -> Result<Figures> {
    const SIGNATURE: &str = "DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=bench.example; s=mail;\r\n\
        \th=from:subject; bh=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=; b=AAAA\r\n";
    let content = [SIGNATURE.as_bytes(), &message_of(LARGE)].concat();
    send_large(lab, proxy, counters, messages, &content)
}

fn send_large(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    messages: u32,
    content: &[u8],
) -> Result<Figures> {
    let before = counters.messages();
    let bytes = content.len() as f64 * f64::from(messages * STREAMS);
    let figures = bulk(lab, proxy, bytes, |session| {
        for _ in 0..messages {
            session.message(content)?;
        }
        Ok(())
    })?;
    let (sent, arrived) = (u64::from(messages * STREAMS), counters.messages() - before);
    ensure!(arrived == sent, "{sent} messages sent, the sink counted {arrived}");
    Ok(figures)
}

/// `length` opaque bytes in all, one way, after STARTTLS.
pub(crate) fn opaque(
    lab: &Lab,
    proxy: &Proxy,
    direction: Direction,
    length: u64,
) -> Result<Figures> {
    let each = length / u64::from(STREAMS);
    let bytes = (each * u64::from(STREAMS)) as f64;
    bulk(lab, proxy, bytes, |session| {
        session.command("STARTTLS", "220")?;
        bulk::transfer(session.socket(), direction, each)
    })
}

/// Bytes that HAProxy has spliced so far; the others have no such counter.
fn spliced(proxy: &Proxy) -> Result<Option<u64>> {
    match proxy.peer {
        Peer::Haproxy | Peer::HaproxySplicing => proxy.spliced().map(Some),
        Peer::Direct | Peer::Nginx | Peer::Gatepost | Peer::GatepostVerifying => Ok(None),
    }
}

/// Opens the sessions, then runs `work` on all of them at once.
fn bulk(
    lab: &Lab,
    proxy: &Proxy,
    bytes: f64,
    work: impl Fn(&mut Session) -> Result<()> + Sync,
) -> Result<Figures> {
    let sessions = lab.client.within(|| {
        let mut sessions = Vec::new();
        for _ in 0..STREAMS {
            let mut session = Session::connect(proxy.address)?;
            session.hello()?;
            sessions.push(session);
        }
        Ok(sessions)
    })?;
    let spliced_before = spliced(proxy)?;
    let mut figures = in_parallel(proxy, sessions, bytes, work)?;
    if let (Some(before), Some(after)) = (spliced_before, spliced(proxy)?) {
        let share = (after - before) as f64 / bytes;
        let must_splice = proxy.peer == Peer::HaproxySplicing;
        ensure!(share > 0.0 || !must_splice, "HAProxy spliced nothing, although required");
        figures.push(("spliced_percent", share * 100.0));
    }
    Ok(figures)
}

/// Resident memory of `count` sessions that are idle after EHLO. Measured with a new proxy process: after load a process has
/// free memory in its heap.
pub(crate) fn idle(
    lab: &Arc<Lab>,
    peer: Peer,
    threads: usize,
    count: u32,
    folder: &Path,
) -> Result<Figures> {
    let proxy = Proxy::start(lab, peer, threads, &folder.join("idle"))?;
    let daemon = proxy.daemon.as_ref().context("the direct path has no memory of its own")?;
    let sink = Sink::start(lab)?;
    let before = daemon.memory()?;
    let mut sessions = lab.client.within(|| {
        let mut sessions = Vec::new();
        for number in 0..count {
            let mut session = Session::connect(proxy.address)
                .with_context(|| format!("session {number} of {count}"))?;
            session.hello()?;
            sessions.push(session);
        }
        Ok(sessions)
    })?;
    thread::sleep(Duration::from_millis(500));
    let after = daemon.memory()?;
    for session in &mut sessions {
        session.command("NOOP", "250").context("a session that was idle")?;
    }
    let open = sink.counters().open();
    ensure!(open == u64::from(count), "{count} idle sessions made, the sink holds {open}");
    let each = |before: f64, after: f64| (after - before) / f64::from(count) / 1024.0;
    Ok(vec![
        ("rss_kib_per_session", each(before.rss, after.rss)),
        ("pss_kib_per_session", each(before.pss, after.pss)),
        ("rss_before_kib", before.rss / 1024.0),
    ])
}
