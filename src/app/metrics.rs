//! `gatepost metrics list`

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::print::print;
use crate::cli::ListFormat;
use crate::metrics::{MetricDescription, MetricLabel, catalogue};
use crate::report::columns::{WIDTH, wrapped};

/// Columns of a label's name, with what stands around it.
const LABEL: usize = 14;

pub(super) fn list(part: Option<&str>, format: ListFormat) -> anyhow::Result<ExitCode> {
    let mut families = catalogue()?;
    let part = part.unwrap_or_default().to_ascii_lowercase();
    families.retain(|family| family.name.contains(&part));
    if families.is_empty() {
        bail!("no metric has {part:?} in its name; `gatepost metrics list` prints all of them");
    }
    let printed = match format {
        ListFormat::Text => families.iter().map(block).collect::<Vec<_>>().join("\n"),
        ListFormat::Json => serde_json::to_string_pretty(&families)? + "\n",
        ListFormat::Markdown => table(&families),
    };
    print(&printed)?;
    Ok(ExitCode::SUCCESS)
}

/// One family, on lines of their own.
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
        "rule" => "the names of the policy rules in force".to_owned(),
        "version" => "the gateway's".to_owned(),
        _ => label.values.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_like_this() {
        let families = catalogue().unwrap();
        let shown = ["gatepost_door_refused_total", "gatepost_policy_verdicts_total"];
        let shown = families.iter().filter(|family| shown.contains(&family.name.as_str()));
        insta::assert_snapshot!(shown.map(block).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn no_line_is_too_wide_and_no_cell_ends_early() {
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
