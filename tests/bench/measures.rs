//! Measures that smtp-source lacks, with our own client and sink: time per session, large messages, opaque bytes and the memory
//! of idle sessions.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::net::Lab;
use crate::proxies::{Peer, Proxy};
use crate::results::Figures;
use crate::session::{Direction, Session, message_of};
use crate::sink::{Counters, Sink};

/// Concurrent bulk transfers, one for each of a proxy's two threads.
pub(crate) const STREAMS: u32 = 2;
/// 20 MB as smtp-source's `-l 20971520` has it.
const LARGE: usize = 20 * 1024 * 1024;

/// Complete sessions one after another, connect to 221, each with one message of 2 kB.
pub(crate) fn latency(
    lab: &Lab,
    proxy: &Proxy,
    counters: &Counters,
    sessions: u32,
) -> Result<Figures> {
    let content = message_of(2048);
    let before = counters.messages();
    let mut times = lab.client.within(|| {
        let mut times = Vec::new();
        for _ in 0..sessions {
            let started = Instant::now();
            let mut session = Session::connect(proxy.address)?;
            session.hello()?;
            session.message(&content)?;
            session.quit()?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    })?;
    let arrived = counters.messages() - before;
    ensure!(arrived == u64::from(sessions), "{sessions} messages sent, the sink counted {arrived}");
    times.sort_by(f64::total_cmp);
    Ok(vec![
        ("p50_us", percentile(&times, 0.50)),
        ("p99_us", percentile(&times, 0.99)),
        ("mean_us", times.iter().sum::<f64>() / f64::from(sessions)),
    ])
}

/// The smallest value that at least this share of the sorted values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
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
    let figures = bulk(lab, proxy, bytes, |session| {
        for _ in 0..messages {
            session.message(&content)?;
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
        session.transfer(direction, each)
    })
}

/// Bytes that HAProxy has spliced so far; the others have no such counter.
fn spliced(proxy: &Proxy) -> Result<Option<u64>> {
    match proxy.peer {
        Peer::Haproxy | Peer::HaproxySplicing => proxy.spliced().map(Some),
        Peer::Direct | Peer::Nginx | Peer::Gatepost => Ok(None),
    }
}

/// Opens the sessions, then runs `work` on all of them at once and measures from the first byte to the last answer.
fn bulk(
    lab: &Lab,
    proxy: &Proxy,
    bytes: f64,
    work: impl Fn(&mut Session) -> Result<()> + Sync,
) -> Result<Figures> {
    let mut sessions = lab.client.within(|| {
        let mut sessions = Vec::new();
        for _ in 0..STREAMS {
            let mut session = Session::connect(proxy.address)?;
            session.hello()?;
            sessions.push(session);
        }
        Ok(sessions)
    })?;
    let spliced_before = spliced(proxy)?;
    let cpu = proxy.cpu()?;
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> =
            sessions.iter_mut().map(|session| scope.spawn(|| work(session))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_panic| anyhow!("a client thread panicked"))?
        })
    })?;
    let took = started.elapsed().as_secs_f64();
    let cpu = proxy.cpu()? - cpu;
    let mut figures = vec![
        ("gb_per_s", bytes / took / 1e9),
        ("cpu_s_per_gb", cpu / (bytes / 1e9)),
        ("wall_s", took),
        ("cpu_s", cpu),
    ];
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
