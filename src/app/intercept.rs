//! `gatepost intercept check|show|clean`

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::host_addresses::ThisHost;
use super::output::print;
use crate::cli::{InterceptCommand, OutputFormat};
use crate::config::Config;
use crate::intercept::{self, InterceptCheckReport, InterceptFinding, InterceptUpstream};
use crate::readiness::CheckStatus;
use crate::report::columns::{WIDTH, wrapped};

pub(super) async fn intercept(command: InterceptCommand) -> anyhow::Result<ExitCode> {
    let text = match command {
        InterceptCommand::Check { config, format } => return check(&config, format).await,
        InterceptCommand::Show => intercept::show().await?.to_string(),
        InterceptCommand::Clean => {
            intercept::remove_check_leftovers().await;
            let removed = intercept::remove().await?;
            format!("{}\n{}", removed.to_string().trim_end(), super::watch::clean()?)
        }
    };
    print(&format!("{}\n", text.trim_end()))?;
    Ok(ExitCode::SUCCESS)
}

async fn check(file: &Path, format: OutputFormat) -> anyhow::Result<ExitCode> {
    let config = Config::load_for(file, &ThisHost::new())?;
    let Some(settings) = &config.intercept else {
        bail!(
            "{} does not intercept: it needs mode = \"tproxy\" in [listen], and [intercept]",
            file.display()
        );
    };
    let report = intercept::check(settings, upstream(&config)).await?;
    print(&match format {
        OutputFormat::Text => text(&report),
        OutputFormat::Json => json(&report)?,
    })?;
    Ok(if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Columns before the sentences.
const INDENT: usize = 9;

/// Each finding with the commands that help, which are not wrapped so that they can be copied.
fn text(report: &InterceptCheckReport) -> String {
    let mut out = String::new();
    for finding in &report.findings {
        let mut head = finding.outcome.as_str();
        for line in wrapped(&finding.seen, WIDTH - INDENT) {
            let _ = writeln!(out, "{head:INDENT$}{line}");
            head = "";
        }
        for command in &finding.commands {
            let _ = writeln!(out, "{:INDENT$}$ {command}", "");
        }
    }
    out
}

/// Key names are stable.
#[derive(Serialize)]
struct CheckObject<'a> {
    outcome: CheckStatus,
    findings: &'a [InterceptFinding],
}

fn json(report: &InterceptCheckReport) -> anyhow::Result<String> {
    let outcome = report.findings.iter().map(|one| one.outcome).max();
    let outcome = outcome.unwrap_or(CheckStatus::Unknown);
    let object = CheckObject { outcome, findings: &report.findings };
    Ok(serde_json::to_string(&object)? + "\n")
}

fn upstream(config: &Config) -> InterceptUpstream {
    let mut transparent = config.relay.listeners.iter().filter(|listener| listener.transparent);
    if transparent.any(|listener| listener.upstream.addresses.is_empty()) {
        InterceptUpstream::Destinations
    } else {
        InterceptUpstream::Configured
    }
}

/// Checks this host before an interception starts or changes. Returns what should be logged.
///
/// # Errors
/// Intercepted mail would be lost.
pub(super) async fn check_before_start(config: &Config) -> anyhow::Result<Vec<String>> {
    let Some(settings) = &config.intercept else { return Ok(Vec::new()) };
    let report = intercept::check_before_start(settings, upstream(config)).await;
    let report = report.context("cannot check this host")?;
    if report.has_failed() {
        let failed: Vec<String> =
            report.of(CheckStatus::Fail).map(|finding| format!("\n  {finding}")).collect();
        bail!(
            "this host would lose intercepted mail (`gatepost intercept check` shows more):{}",
            failed.concat()
        );
    }
    Ok(report.problems().iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::InterceptCheckName;

    #[test]
    fn lines_are_short_and_commands_whole() {
        let command = "c".repeat(150);
        let finding = |outcome, seen: String, commands| InterceptFinding {
            check: InterceptCheckName::Input,
            outcome,
            seen,
            commands,
        };
        let long = finding(CheckStatus::Pass, "word ".repeat(60), Vec::new());
        let short = finding(CheckStatus::Warn, "a chain".to_owned(), vec![command.clone()]);
        assert_eq!(short.to_string(), format!("a chain; run: {command}"));
        let report = InterceptCheckReport { findings: vec![long, short] };
        let text = text(&report);
        assert!(text.contains(&format!("warn     a chain\n         $ {command}\n")), "{text}");
        let lines = text.lines().filter(|line| !line.contains('$'));
        assert!(lines.into_iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(!report.has_failed());
    }
}
