//! gatepost's configuration in a benchmark: no limits that a measure could reach, and one log line per session, as by default.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::net::Lab;

/// Each proxy's session limit: above the sessions of any measure, and within HAProxy's limit of open files.
pub(crate) const SESSIONS: u32 = 6_000;

/// The command that runs it on the gateway's host, with `more` sections besides.
pub(crate) fn command(
    lab: &Lab,
    (listen, upstream): (SocketAddr, SocketAddr),
    threads: usize,
    folder: &Path,
    more: &str,
) -> Result<Command> {
    let log = folder.join("session.log");
    if let Err(error) = fs::remove_file(&log)
        && error.kind() != io::ErrorKind::NotFound
    {
        bail!("{}: {error}", log.display());
    }
    let file = folder.join("gatepost.toml");
    let text = format!(
        "[listen]\naddresses = [\"{listen}\"]\nthreads = {threads}\n\n\
         [upstream]\naddresses = [\"{upstream}\"]\n\n\
         [limits]\nsessions = {SESSIONS}\nsessions_per_client = {SESSIONS}\ncommands = 1000000\n\n\
         [timeouts]\nstress_above = 100\n\n\
         [log]\nfile = \"{}\"\n\n{more}",
        log.display()
    );
    fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
    let mut command = lab.gateway.command(&[], env!("CARGO_BIN_EXE_gatepost"));
    command.args(["run", "--config"]).arg(file);
    Ok(command)
}
