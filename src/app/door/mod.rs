//! `gatepost door [FAMILY open|close|auto]`, and the controller of a running gateway's doors.

mod controller;
mod inbound_evidence;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::io::AsyncBufReadExt as _;

pub(super) use self::controller::{DoorController, DoorHandle, EvidenceSources, WatchedEvidence};
pub(super) use self::inbound_evidence::SharedEvidence;
use super::control_client;
use super::output::print;
use crate::cli::{DoorArgs, DoorMode, OutputFormat};
use crate::control::{self, ControlRequest, DoorChange};
use crate::policy::door::{DoorReport, OperatorMode};
use crate::report;

pub(super) async fn door(args: DoorArgs) -> anyhow::Result<ExitCode> {
    let socket = control_client::socket(args.socket, args.config.as_deref())?;
    let mode = args.mode.map(|mode| match mode {
        DoorMode::Open => OperatorMode::Open,
        DoorMode::Close => OperatorMode::Close,
        DoorMode::Auto => OperatorMode::Auto,
    });
    let change = args.family.zip(mode).map(|(family, mode)| DoorChange { family, mode });
    let line = ask(&socket, change).await?;
    let text = match args.format {
        OutputFormat::Json => line,
        OutputFormat::Text => report::door::doors(&parse(&line)?),
    };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

/// The doors of the gateway at `socket`.
pub(super) async fn doors(socket: &Path) -> anyhow::Result<Vec<DoorReport>> {
    parse(&ask(socket, None).await?)
}

async fn ask(socket: &Path, change: Option<DoorChange>) -> anyhow::Result<String> {
    let mut response = control::request(socket, &ControlRequest::Door { change }).await?;
    let mut line = String::new();
    response.read_line(&mut line).await.context("the gateway closed the connection")?;
    Ok(line)
}

fn parse(line: &str) -> anyhow::Result<Vec<DoorReport>> {
    serde_json::from_str(line).context(control_client::UNREADABLE)
}
