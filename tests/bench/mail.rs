//! Mail by Postfix's own load generators: smtp-source in the client's namespace, smtp-sink in the server's.

use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::net::Lab;
use crate::process::run;
use crate::proxies::Proxy;
use crate::results::Figures;
use crate::smtp_sink::{SmtpSink, check_path};

/// Concurrent sessions of smtp-source: enough to keep two cores busy without queueing.
pub(crate) const PARALLEL: u32 = 20;
/// Whether smtp-source opens a session for each message or sends all of them over `PARALLEL` sessions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batch {
    OneMessageEach,
    ManyMessagesEach,
}

/// Sends `messages` of 2 kB and checks that smtp-sink received every one.
pub(crate) fn batch(
    lab: &Lab,
    proxy: &Proxy,
    batch: Batch,
    messages: u32,
    folder: &Path,
) -> Result<Figures> {
    let sink = SmtpSink::start(lab, &["-c"], folder)?;
    let mut source = lab.client.command(&[], "smtp-source");
    if batch == Batch::ManyMessagesEach {
        source.arg("-d");
    }
    source
        .args(["-l", "2048", "-s", &PARALLEL.to_string(), "-m", &messages.to_string()])
        .arg(proxy.address.to_string());
    let cpu = proxy.cpu()?;
    let took = run("smtp-source", source, Duration::from_secs(120))?.as_secs_f64();
    // The last sessions are still being closed when smtp-source has read its last 221.
    thread::sleep(Duration::from_millis(50));
    let cpu = proxy.cpu()? - cpu;
    let counts = sink.counts()?;
    ensure!(
        counts.messages == u64::from(messages),
        "{messages} messages sent, smtp-sink counted {}",
        counts.messages
    );
    // One more than smtp-source's is the session that waited for smtp-sink to be ready.
    let sessions = if batch == Batch::OneMessageEach { messages } else { PARALLEL };
    ensure!(
        counts.sessions == u64::from(sessions) + 1,
        "{sessions} sessions made, smtp-sink counted {}",
        counts.sessions - 1
    );
    Ok(vec![
        ("cpu_s_per_10000_messages", cpu * 10_000.0 / f64::from(messages)),
        ("messages_per_s", f64::from(messages) / took),
        ("sessions_per_s", f64::from(sessions) / took),
        ("wall_s", took),
        ("cpu_s", cpu),
    ])
}

/// Sends one message and checks that the proxy is in its path.
pub(crate) fn check(lab: &Lab, proxy: &Proxy, folder: &Path) -> Result<()> {
    check_path(lab, proxy.peer, folder, || {
        let mut source = lab.client.command(&[], "smtp-source");
        source.args(["-m", "1", "-l", "2048"]).arg(proxy.address.to_string());
        run("smtp-source", source, Duration::from_secs(30)).map(drop)
    })
}
