//! Mail by Postfix's own load generators: smtp-source in the client's namespace, smtp-sink in the server's.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::net::Lab;
use crate::process::{Daemon, run};
use crate::proxies::{Peer, Proxy};
use crate::results::Figures;
use crate::session::Session;

/// Concurrent sessions of smtp-source: enough to keep two cores busy without queueing.
pub(crate) const PARALLEL: u32 = 20;
/// smtp-sink refuses to run as root.
const NOBODY: [&str; 3] = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];

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

/// Sends one message and checks the client address at smtp-sink: proof that the proxy is in the path.
pub(crate) fn check_path(lab: &Lab, proxy: &Proxy, folder: &Path) -> Result<()> {
    let expected = match proxy.peer {
        Peer::Direct => lab.client_address(),
        _ => lab.proxied_address(),
    };
    let dump = Dump::new(proxy.peer)?;
    let sink = SmtpSink::start(lab, &["-d", &dump.template()], folder)?;
    let mut source = lab.client.command(&[], "smtp-source");
    source.args(["-m", "1", "-l", "2048"]).arg(proxy.address.to_string());
    run("smtp-source", source, Duration::from_secs(30))?;
    drop(sink);
    let message = dump.only_message()?;
    let address = message.lines().find_map(|line| line.strip_prefix("X-Client-Addr: "));
    let address = address.context("smtp-sink's file has no X-Client-Addr")?.trim();
    let bare = address.strip_prefix("ipv6:").unwrap_or(address);
    let seen: IpAddr = bare.parse().with_context(|| format!("X-Client-Addr: {address}"))?;
    ensure!(seen == expected, "smtp-sink's client should be {expected}, it was {seen}");
    Ok(())
}

/// smtp-sink's counters, as it prints them with `-c`.
struct Counts {
    sessions: u64,
    messages: u64,
}

struct SmtpSink {
    daemon: Daemon,
}

impl SmtpSink {
    /// Starts smtp-sink and returns once it has greeted one session, made directly.
    fn start(lab: &Lab, options: &[&str], folder: &Path) -> Result<Self> {
        let mut command = lab.server.command(&NOBODY, "smtp-sink");
        command.args(options).arg(lab.sink_address().to_string()).arg("4096");
        let mut daemon = Daemon::start("smtp-sink", command, &folder.join("smtp-sink.output"))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            daemon.check_alive()?;
            match lab.client.within(|| Session::connect(lab.sink_address())?.quit()) {
                Ok(()) => return Ok(Self { daemon }),
                Err(error) if Instant::now() > deadline => {
                    return Err(error).context("smtp-sink is not ready after 5 s");
                }
                Err(_not_yet) => thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// The last whole line of counters: `sess=2030 quit=2030 mesg=7010`, ended by CR.
    fn counts(&self) -> Result<Counts> {
        let output = self.daemon.output()?;
        let line = output.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let field = |name: &str| -> Result<u64> {
            let value = line.split_whitespace().find_map(|word| word.strip_prefix(name));
            let value = value.with_context(|| format!("no {name} in smtp-sink's {line:?}"))?;
            Ok(value.parse()?)
        };
        Ok(Counts { sessions: field("sess=")?, messages: field("mesg=")? })
    }
}

/// A folder that smtp-sink, as nobody, can write messages to; removed when dropped.
struct Dump {
    folder: PathBuf,
}

impl Dump {
    fn new(peer: Peer) -> Result<Self> {
        // Not in target/: the user nobody may have no access to it.
        let name = format!("gatepost-bench-{}-{}", std::process::id(), peer.name());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let dump = Self { folder };
        let chown = Command::new("chown")
            .arg("nobody:nogroup")
            .arg(&dump.folder)
            .status()
            .context("chown")?;
        ensure!(chown.success(), "chown nobody:nogroup {}: {chown}", dump.folder.display());
        Ok(dump)
    }

    fn template(&self) -> String {
        self.folder.join("message.").display().to_string()
    }

    fn only_message(&self) -> Result<String> {
        let files: Vec<_> = fs::read_dir(&self.folder)?.collect::<Result<_, _>>()?;
        ensure!(files.len() == 1, "one message sent, smtp-sink wrote {} files", files.len());
        let path = files[0].path();
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }
}

impl Drop for Dump {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("bench: {} is left: {error}", self.folder.display());
        }
    }
}
