//! The least that a policy server does: it waits for the end of a request, an empty line, and answers `DUNNO`.

use std::io::{self, Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, ExitCode};
use std::thread;

use anyhow::Result;

use crate::client::{Connection, PolicyAddress};

/// Makes this program the server, at the address that follows.
const FLAG: &str = "--floor";

/// The server's address, if this process is one.
pub(crate) fn address() -> Option<PolicyAddress> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, flag, address] = arguments.as_slice() else { return None };
    let address = match address.strip_prefix("unix:") {
        Some(path) => PolicyAddress::Unix(path.into()),
        None => PolicyAddress::Tcp(address.strip_prefix("inet:")?.parse().ok()?),
    };
    (flag == FLAG).then_some(address)
}

/// Starts such a process.
pub(crate) fn command(address: &PolicyAddress) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(FLAG).arg(address.to_string());
    Ok(command)
}

/// Without end, with a thread for each connection.
pub(crate) fn serve(address: &PolicyAddress) -> Result<ExitCode> {
    match address {
        PolicyAddress::Unix(path) => {
            for stream in UnixListener::bind(path)?.incoming() {
                let stream = stream?;
                thread::spawn(move || answer(Box::new(stream)));
            }
        }
        PolicyAddress::Tcp(address) => {
            for stream in TcpListener::bind(address)?.incoming() {
                let stream = stream?;
                stream.set_nodelay(true)?;
                thread::spawn(move || answer(Box::new(stream)));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn answer(mut stream: Box<dyn Connection>) -> io::Result<()> {
    let mut received = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(());
        }
        received.extend_from_slice(chunk.get(..count).unwrap_or_default());
        // A client waits for each answer.
        if received.ends_with(b"\n\n") {
            received.clear();
            stream.write_all(b"action=DUNNO\n\n")?;
        }
    }
}
