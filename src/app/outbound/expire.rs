//! `gatepost postfix expire`: returns messages that are refused over IPv6 again and again to their senders.
//!
//! Only root may do that in Postfix (postsuper(1)), and a gateway is not root.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, bail};
use tokio::io::AsyncReadExt as _;

use crate::app::control_client;
use crate::app::output::{note, print};
use crate::cli::ExpireArgs;
use crate::control::{self, ControlRequest};
use crate::humanize::counted;

pub(in crate::app) async fn expire(args: ExpireArgs) -> anyhow::Result<ExitCode> {
    let socket = control_client::socket(args.socket, args.config.as_deref())?;
    let mut response = control::request(&socket, &ControlRequest::MessagesToReturn).await?;
    let mut line = String::new();
    let read = response.read_to_string(&mut line).await;
    read.context("the gateway closed the connection")?;
    let due: Vec<String> = serde_json::from_str(&line).context(control_client::UNREADABLE)?;
    if args.dry_run || due.is_empty() {
        let list: String = due.iter().map(|queue_id| format!("{queue_id}\n")).collect();
        print(&format!("{list}{} to return\n", counted(due.len() as u64, "message")))?;
        return Ok(ExitCode::SUCCESS);
    }
    let directory = args.config_directory.as_deref();
    postfix_command("postsuper", directory, &["-e", "-"], &due)?;
    // A message is returned at its next attempt, which Postfix also makes by itself, later.
    for queue_id in &due {
        if let Err(error) = postfix_command("postqueue", directory, &["-i", queue_id], &[]) {
            note(&format!("{queue_id} is returned at Postfix's own next attempt: {error:#}"));
        }
    }
    print(&format!("{} returned\n", counted(due.len() as u64, "message")))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs a command of Postfix with lines as its input.
fn postfix_command(
    program: &str,
    directory: Option<&Path>,
    arguments: &[&str],
    input: &[String],
) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    if let Some(directory) = directory {
        command.arg("-c").arg(directory);
    }
    let child = command.args(arguments).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run {program}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    for line in input {
        writeln!(stdin, "{line}").with_context(|| format!("cannot write to {program}"))?;
    }
    drop(stdin);
    let output = child.wait_with_output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let reason = text.lines().next_back().unwrap_or("it failed without a reason");
        bail!(
            "{program}: {reason}; run this command as root, and name Postfix's directory by --config-directory"
        );
    }
    Ok(())
}
