//! `gatepost config check FILE`

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

pub(super) fn check(file: &Path) -> anyhow::Result<ExitCode> {
    match Config::load(file) {
        Ok(_) => {
            writeln!(std::io::stdout(), "{}: no mistakes", file.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            writeln!(std::io::stderr(), "{mistakes}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
