//! `gatepost intercept show|clean`

use std::io::Write as _;
use std::process::ExitCode;

use crate::cli::InterceptCommand;
use crate::intercept;

pub(super) async fn intercept(command: InterceptCommand) -> anyhow::Result<ExitCode> {
    let said = match command {
        InterceptCommand::Show => intercept::show().await?.to_string(),
        InterceptCommand::Clean => intercept::remove().await?.to_string(),
    };
    writeln!(std::io::stdout(), "{}", said.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
