//! `gatepost postfix install --dry-run`.

use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::app::check::host;
use crate::app::output::print;
use crate::cli::InstallArgs;
use crate::config::{Config, OutboundConfig};
use crate::readiness::install_commands;

/// Only prints. The configuration of Postfix is the operator's, often under the care of another tool, and a mistake in it
/// stops all mail.
pub(super) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if !args.dry_run {
        bail!(
            "gatepost does not change the configuration of Postfix; `gatepost postfix install --dry-run` prints the commands, \
             which `| sh` runs"
        );
    }
    let options = match &args.config {
        Some(file) => {
            let config = Config::load(file)?;
            let outbound = config.outbound.with_context(|| {
                format!("{} has no [outbound]; add it, Postfix's questions need it", file.display())
            })?;
            if outbound.map.to_string_lossy().contains(char::is_whitespace) {
                bail!("a path with white space cannot be in master.cf; change `map` in [outbound]");
            }
            options(&outbound)
        }
        None => String::new(),
    };
    let postfix = host::postfix(args.postfix_config.as_deref())?;
    let lines = install_commands(&postfix, &options);
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// The options of `gatepost postfix map`.
fn options(outbound: &OutboundConfig) -> String {
    if outbound.map.as_os_str() == OutboundConfig::MAP {
        return String::new();
    }
    format!(" --socket {}", outbound.map.display())
}
