//! `gatepost config check FILE`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use super::host_addresses::ThisHost;
use super::host_checks;
use super::output::print;
use super::upstream_names;
use crate::config::Config;

pub(super) fn run(file: &Path) -> anyhow::Result<ExitCode> {
    match Config::load_for(file, &ThisHost::new()) {
        Ok(config) => {
            let names = upstream_names::check(&config)?;
            let mut errors = host_checks::errors(&config);
            errors.extend(names.errors);
            if errors.is_empty() {
                print(&format!("{}{}: OK\n", not_applied(&config), file.display()))?;
            }
            let warnings =
                config.warnings().into_iter().chain(host_checks::warnings(&config, file));
            let warnings = warnings.chain(names.warnings);
            for line in errors.iter().cloned().chain(warnings) {
                writeln!(std::io::stderr(), "{}: {line}", file.display())?;
            }
            Ok(if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Err(errors) => {
            writeln!(std::io::stderr(), "{errors}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// What sessions under TLS escape, as lines; empty if nothing does.
fn not_applied(config: &Config) -> String {
    let phrases = config.not_applied_under_tls();
    if phrases.is_empty() {
        return String::new();
    }
    let lines = phrases.iter().map(|phrase| format!("  {phrase}\n"));
    let heading = format!("{}. Not applied to sessions under TLS:\n", config.passthrough_heading());
    std::iter::once(heading).chain(lines).collect()
}
