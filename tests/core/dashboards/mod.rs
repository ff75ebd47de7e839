//! The dashboards and rules of `dashboards/`: generated from their sources, and complete. `make dashboards` generates the
//! dashboards again. `lab/dashboards` evaluates their expressions in a real Prometheus.

mod board;
mod generate;
mod panel;
mod provisioning;
mod rule_checks;
mod rules;
mod selectors;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::Command;

use board::{Board, boards};
use rules::Rule;
use serde_json::Value;

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");

/// Run it after a change in `dashboards/source`.
#[test]
#[ignore = "writes dashboards/*.json"]
fn dashboards_are_written() {
    for (file, text) in generate::all() {
        fs::write(file, text).unwrap();
    }
}

#[test]
fn dashboards_match_their_sources() {
    let generated = generate::all();
    for (file, text) in &generated {
        let stored = fs::read_to_string(file).unwrap_or_default();
        assert!(
            stored == *text,
            "{} differs from its source; run `make dashboards`",
            file.display()
        );
    }
    assert_eq!(boards().len(), generated.len(), "a dashboard without a source");
}

#[test]
fn every_dashboard_can_be_imported_and_links_to_the_others() {
    let boards = boards();
    let uids: BTreeSet<&str> =
        boards.iter().map(|board| board.json["uid"].as_str().unwrap()).collect();
    let expected = ["gateway", "overview", "reachability", "traffic"];
    assert_eq!(
        uids,
        expected.map(|name| format!("gatepost-{name}")).iter().map(String::as_str).collect()
    );
    for Board { name, json, .. } in &boards {
        // Grafana assigns an ID on import.
        assert_eq!(json["id"], Value::Null, "{name}");
        assert!(json["schemaVersion"].as_u64().unwrap() >= 39, "{name}");
        let variables: Vec<&str> = json["templating"]["list"]
            .as_array()
            .unwrap()
            .iter()
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        assert_eq!(variables, ["datasource", "job", "instance"], "{name}");
        assert_eq!(json["templating"]["list"][0]["query"], "prometheus", "{name}");
        let tag = &json["links"][0]["tags"][0];
        assert!(json["tags"].as_array().unwrap().contains(tag), "{name}: links to {tag}");
    }
}

#[test]
fn every_panel_has_a_title_a_description_and_a_unit() {
    for board in boards() {
        let mut ids = BTreeSet::new();
        let mut titles = BTreeSet::new();
        for panel in board.all_panels() {
            let title = panel["title"].as_str().unwrap();
            let name = format!("{}, {title}", board.name);
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{name}: duplicate id");
            assert!(!title.is_empty() && title.len() <= 60, "{name}");
            if panel["type"] == "row" {
                continue;
            }
            let row = board.row_of(panel);
            assert!(titles.insert((row, title)), "{name}: duplicate title in its row");
            let description = panel["description"].as_str().unwrap();
            assert!(description.len() > 20 && description.ends_with('.'), "{name}: {description}");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap();
            assert!(UNITS.contains(&unit), "{name}: {unit}");
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty(), "{name}: no query");
            for part in targets.iter().chain([panel]) {
                assert_eq!(part["datasource"]["uid"], "${datasource}", "{name}");
            }
            for target in targets {
                assert!(!target["legendFormat"].as_str().unwrap().is_empty(), "{name}");
                let expr = target["expr"].as_str().unwrap();
                let fixed = expr.contains('[') && !expr.contains("[$__r");
                assert!(!fixed, "{name}: a fixed window in {expr}");
            }
        }
    }
}

/// Grafana units in use.
const UNITS: [&str; 8] =
    ["none", "s", "percentunit", "bytes", "Bps", "suffix:/min", "dateTimeFromNow", "short"];

#[test]
fn panels_fill_the_grid_without_overlap() {
    for board in boards() {
        let mut taken: BTreeMap<(u64, u64), &str> = BTreeMap::new();
        for panel in board.all_panels() {
            let title = panel["title"].as_str().unwrap();
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|n| panel["gridPos"][n].as_u64().unwrap());
            assert!(w > 0 && h > 0 && x + w <= 24, "{}, {title}: {}", board.name, panel["gridPos"]);
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                let other = taken.insert(place, title);
                assert_eq!(
                    other, None,
                    "{}, {title} overlaps another panel at {place:?}",
                    board.name
                );
            }
        }
        // An empty place would look like a panel that failed to load.
        let lines = taken.keys().map(|(_, y)| y).max().unwrap() + 1;
        assert_eq!(taken.len() as u64, lines * 24, "{} has an empty place", board.name);
    }
}

/// Series that Prometheus itself writes; those of recording rules have a colon.
const RULE_INPUTS: [&str; 1] = ["up"];

/// Every metric in a dashboard exists, and every metric of the gateway is in a dashboard.
#[test]
fn dashboards_and_metrics_match() {
    let listed = Command::new(GATEPOST).args(["metrics", "list", "--format", "json"]).output();
    let listed: Vec<Value> = serde_json::from_slice(&listed.unwrap().stdout).unwrap();
    let names = listed.iter().map(|family| (family["name"].as_str().unwrap(), false));
    let mut families: BTreeMap<&str, bool> = names.collect();
    for board in boards() {
        for (name, expr) in board.expressions() {
            for selector in selectors::selectors(&expr) {
                let metric = selector.metric.trim_end_matches("_bucket");
                let shown = families.get_mut(metric);
                *shown.unwrap_or_else(|| panic!("{name}: unknown metric {metric}")) = true;
            }
        }
    }
    for Rule { name, expr, .. } in rules::rules() {
        for selector in selectors::selectors(&expr) {
            let metric = selector.metric.trim_end_matches("_bucket");
            let is_known = families.contains_key(metric)
                || RULE_INPUTS.contains(&metric)
                || metric.contains(':');
            assert!(is_known, "{name}: unknown metric {metric}");
        }
    }
    // The size of the address space says nothing about memory use.
    families.remove("process_virtual_memory_bytes");
    let missing: Vec<&str> = families.iter().filter(|(_, shown)| !**shown).map(|f| *f.0).collect();
    assert_eq!(missing, [""; 0], "without a panel");
}
