//! `gatepost metrics list`.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::output::print;
use crate::cli::ListFormat;
use crate::metrics::{MetricDescription, MetricLabel, catalogue};
use crate::report::columns::{WIDTH, wrapped};

/// Width of the label column.
const LABEL: usize = 14;

pub(super) fn list(part: Option<&str>, format: ListFormat) -> anyhow::Result<ExitCode> {
    let mut families = catalogue()?;
    let part = part.unwrap_or_default().to_ascii_lowercase();
    families.retain(|family| family.name.contains(&part));
    if families.is_empty() {
        bail!("no metric name contains {part:?}; `gatepost metrics list` prints all");
    }
    let printed = match format {
        ListFormat::Text => families.iter().map(block).collect::<Vec<_>>().join("\n"),
        ListFormat::Json => serde_json::to_string_pretty(&families)? + "\n",
        ListFormat::Markdown => table(&families),
    };
    print(&printed)?;
    Ok(ExitCode::SUCCESS)
}

/// One family in several lines.
fn block(family: &MetricDescription) -> String {
    let mut block = format!("{} ({})\n", family.name, family.kind);
    for line in wrapped(&family.help, WIDTH - 2) {
        let _ = writeln!(block, "  {line}");
    }
    for label in &family.labels {
        let mut name = label.name.as_str();
        for line in wrapped(&values(label), WIDTH - LABEL - 3) {
            let _ = writeln!(block, "  {name:LABEL$} {line}");
            name = "";
        }
    }
    block
}

fn table(families: &[MetricDescription]) -> String {
    let mut table = String::from("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for MetricDescription { name, kind, labels, help } in families {
        let labels = labels.iter().map(|label| format!("`{}`", label.name));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {help} |");
    }
    table
}

fn values(label: &MetricLabel) -> String {
    match label.name.as_str() {
        "rule" => "the names of the active policy rules".to_owned(),
        "certificate" => "the number of the certificate in the configuration, from 1".to_owned(),
        "domain" => "the checked domain".to_owned(),
        "exchange" => "the name of a mail server of the domain".to_owned(),
        "address" => "an address of a mail server, or of a sender".to_owned(),
        "name" => "the first name in the certificate".to_owned(),
        "version" => "the version of the gateway".to_owned(),
        _ => label.values.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_as_text() {
        let families = catalogue().unwrap();
        let shown = ["gatepost_door_refused_total", "gatepost_policy_verdicts_total"];
        let shown = families.iter().filter(|family| shown.contains(&family.name.as_str()));
        insta::assert_snapshot!(shown.map(block).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn lines_fit_and_help_cannot_break_the_table() {
        let families = catalogue().unwrap();
        for family in &families {
            let block = block(family);
            assert!(block.lines().all(|line| line.chars().count() <= WIDTH), "{block}");
            assert!(!family.help.is_empty() && family.help.ends_with('.'), "{}", family.name);
            assert!(!family.help.contains(['|', '\n']), "{}", family.name);
        }
        assert_eq!(table(&families).lines().count(), families.len() + 2);
    }
}
