//! Times of sessions, and bulk transfers in parallel.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::proxies::Proxy;
use crate::results::Figures;
use crate::smtp_client::Session;

/// Concurrent bulk transfers, one for each of a proxy's two threads.
pub(crate) const STREAMS: u32 = 2;
/// 20 MB as smtp-source's `-l 20971520` has it.
pub(crate) const LARGE: usize = 20 * 1024 * 1024;

/// The percentiles of the times of sessions, in microseconds.
pub(crate) fn percentiles(times: Vec<Duration>) -> Figures {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    times.sort_by(f64::total_cmp);
    vec![
        ("p50_us", percentile(&times, 0.50)),
        ("p99_us", percentile(&times, 0.99)),
        ("mean_us", times.iter().sum::<f64>() / times.len() as f64),
    ]
}

/// The smallest value that at least this share of the sorted values does not exceed.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// Runs `work`, which moves `bytes` in all, on all sessions at once, and measures from the first byte to the last answer.
pub(crate) fn in_parallel(
    proxy: &Proxy,
    mut sessions: Vec<Session>,
    bytes: f64,
    work: impl Fn(&mut Session) -> Result<()> + Sync,
) -> Result<Figures> {
    let work = &work;
    let cpu = proxy.cpu()?;
    let started = Instant::now();
    thread::scope(|scope| {
        let threads: Vec<_> =
            sessions.iter_mut().map(|session| scope.spawn(move || work(session))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_panic| anyhow!("a client thread panicked"))?
        })
    })?;
    let took = started.elapsed().as_secs_f64();
    let cpu = proxy.cpu()? - cpu;
    Ok(vec![
        ("gb_per_s", bytes / took / 1e9),
        ("cpu_s_per_gb", cpu / (bytes / 1e9)),
        ("wall_s", took),
        ("cpu_s", cpu),
    ])
}
