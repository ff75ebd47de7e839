//! Postfix's smtp-sink in the server's namespace: it counts sessions and messages, or stores them.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::net::Lab;
use crate::process::Daemon;
use crate::proxies::Peer;
use crate::smtp_client::Session;

/// smtp-sink refuses to run as root.
const NOBODY: [&str; 3] = ["--reuid=nobody", "--regid=nogroup", "--clear-groups"];

/// Checks the client address at smtp-sink of the one message that `send` sends: proof that the proxy is in the path.
pub(crate) fn check_path(
    lab: &Lab,
    peer: Peer,
    folder: &Path,
    send: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let expected = match peer {
        Peer::Direct => lab.client_address(),
        _ => lab.proxied_address(),
    };
    let dump = Dump::new(peer)?;
    let sink = SmtpSink::start(lab, &["-d", &dump.template()], folder)?;
    send()?;
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
pub(crate) struct Counts {
    pub(crate) sessions: u64,
    pub(crate) messages: u64,
}

pub(crate) struct SmtpSink {
    daemon: Daemon,
}

impl SmtpSink {
    /// Starts smtp-sink and returns once it has greeted one session, made directly.
    pub(crate) fn start(lab: &Lab, options: &[&str], folder: &Path) -> Result<Self> {
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
    pub(crate) fn counts(&self) -> Result<Counts> {
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
