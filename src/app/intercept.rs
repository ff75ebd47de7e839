//! `gatepost intercept show|clean`

use std::process::ExitCode;

use super::print::print;
use crate::cli::InterceptCommand;
use crate::intercept;

pub(super) async fn intercept(command: InterceptCommand) -> anyhow::Result<ExitCode> {
    let said = match command {
        InterceptCommand::Show => intercept::show().await?.to_string(),
        InterceptCommand::Clean => intercept::remove().await?.to_string(),
    };
    print(&format!("{}\n", said.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}
