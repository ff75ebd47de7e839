//! `gatepost intercept show|clean`

use std::process::ExitCode;

use super::output::print;
use crate::cli::InterceptCommand;
use crate::intercept;

pub(super) async fn intercept(command: InterceptCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        InterceptCommand::Show => intercept::show().await?.to_string(),
        InterceptCommand::Clean => intercept::remove().await?.to_string(),
    };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}
