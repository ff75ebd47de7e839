//! `gatepost config check FILE`

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::config::Config;

pub(super) fn check(file: &Path) -> anyhow::Result<ExitCode> {
    match Config::load(file) {
        Ok(config) => {
            writeln!(std::io::stdout(), "{}: no mistakes", file.display())?;
            for warning in config.warnings() {
                writeln!(std::io::stderr(), "{}: {warning}", file.display())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(mistakes) => {
            writeln!(std::io::stderr(), "{mistakes}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
