//! `gatepost config check FILE`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::output::print;
use crate::config::Config;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    match Config::load(file) {
        Ok(config) => {
            print(&format!("{}: OK\n", file.display()))?;
            for warning in config.warnings() {
                writeln!(std::io::stderr(), "{}: {warning}", file.display())?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(errors) => {
            writeln!(std::io::stderr(), "{errors}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}
