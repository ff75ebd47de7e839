//! `gatepost postfix install --dry-run`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::bail;

use crate::app::check::{host, policy_server};
use crate::app::output::{note, print};
use crate::cli::InstallArgs;
use crate::config::{Config, OutboundConfig};
use crate::readiness::{InstalledParts, PolicyServer, install_commands};

/// Only prints. The configuration of Postfix is the operator's, often under the care of another tool, and a mistake in it
/// stops all mail.
pub(super) fn run(args: &InstallArgs) -> anyhow::Result<ExitCode> {
    if !args.dry_run {
        bail!(
            "gatepost does not change the configuration of Postfix; `gatepost postfix install --dry-run` prints the commands, \
             which `| sh` runs"
        );
    }
    let (outbound, policy) = match &args.config {
        Some(file) => parts(file)?,
        None => (Some(String::new()), None),
    };
    let postfix = host::postfix(args.postfix_config.as_deref())?;
    let parts = InstalledParts { outbound: outbound.as_deref(), policy: policy.as_ref() };
    let lines = install_commands(&postfix, parts)?;
    if lines.is_empty() {
        note(
            "Postfix asks the policy service already: nothing is to be changed (`gatepost check DOMAIN --postfix` verifies \
             the line)",
        );
    }
    if !lines.is_empty() && lines.iter().all(|line| line.starts_with('#')) {
        note("no command can change these lists; write what the comments say");
    }
    print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
    Ok(ExitCode::SUCCESS)
}

/// The options of `gatepost postfix map`, and the policy service, of a configuration.
fn parts(file: &Path) -> anyhow::Result<(Option<String>, Option<PolicyServer>)> {
    let config = Config::load(file)?;
    let policy = policy_server(&config);
    let Some(outbound) = &config.outbound else {
        if policy.is_none() {
            bail!(
                "{} has nothing that Postfix could use; add [outbound], for the family of outbound mail, or [postfix] with \
                 policy = \"unix:/var/spool/postfix/private/gatepost\"",
                file.display()
            );
        }
        return Ok((None, policy));
    };
    if outbound.map.to_string_lossy().contains(char::is_whitespace) {
        bail!("a path with white space cannot be in master.cf; change `map` in [outbound]");
    }
    Ok((Some(options(outbound)), policy))
}

/// The options of `gatepost postfix map`.
fn options(outbound: &OutboundConfig) -> String {
    if outbound.map.as_os_str() == OutboundConfig::MAP {
        return String::new();
    }
    format!(" --socket {}", outbound.map.display())
}
