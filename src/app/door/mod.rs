//! `gatepost door [FAMILY open|close|auto]`, and who keeps the doors of a running gateway.

mod heard;
mod keeper;
mod probes;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use tokio::io::AsyncBufReadExt as _;

pub(super) use self::heard::Heard;
pub(super) use self::keeper::{Keeper, Parts, Surroundings};
pub(super) use self::probes::ProbeResult;
use super::print::print;
use crate::cli::{DoorArgs, DoorMode, OutputFormat};
use crate::config::Config;
use crate::control::{self, ControlRequest, DoorChange};
use crate::policy::door::{DoorReport, OperatorMode};
use crate::report;

pub(super) async fn door(wanted: DoorArgs) -> anyhow::Result<ExitCode> {
    let socket = match (&wanted.socket, &wanted.config) {
        (Some(socket), _) => socket.clone(),
        (None, Some(config)) => Config::load(config)?.control.socket,
        (None, None) => PathBuf::from(control::DEFAULT_SOCKET),
    };
    let mode = wanted.mode.map(|mode| match mode {
        DoorMode::Open => OperatorMode::Open,
        DoorMode::Close => OperatorMode::Close,
        DoorMode::Auto => OperatorMode::Auto,
    });
    let turn = wanted.family.zip(mode).map(|(family, mode)| DoorChange { family, mode });
    let mut answer = control::request(&socket, &ControlRequest::Door { change: turn }).await?;
    let mut line = String::new();
    answer.read_line(&mut line).await.context("the gateway hung up")?;
    let said = match wanted.format {
        OutputFormat::Json => line,
        OutputFormat::Text => {
            let told: Vec<DoorReport> = serde_json::from_str(&line)
                .context("the gateway's answer cannot be read: is it of this version?")?;
            report::door::doors(&told)
        }
    };
    print(&format!("{}\n", said.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}
