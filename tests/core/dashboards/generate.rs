//! Generates Grafana's JSON from `dashboards/source/*.toml`. The source defines the content of a dashboard; positions,
//! colours, options and variables are the same for all of them and defined here.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use super::board::FOLDER;
use super::panel::Panel;
use super::selectors::names;

/// The schema of Grafana 11.0.
const SCHEMA: u32 = 39;
/// Columns of Grafana's grid.
const COLUMNS: u32 = 24;
/// The tag by which the dashboards link to each other.
const TAG: &str = "gatepost";
/// Added to every metric: the gateways selected above the panels.
pub(super) const CHOSEN: &str = r#"job=~"$job", instance=~"$instance""#;

/// A file of `dashboards/source`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    /// Never changes: links and bookmarks contain it.
    uid: String,
    title: String,
    description: String,
    row: Vec<Row>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    /// Height of its panels, in Grafana's units of about 30 pixels.
    height: u32,
    panel: Vec<Panel>,
}

/// The path and the text of every dashboard.
pub(super) fn all() -> Vec<(PathBuf, String)> {
    let mut sources: Vec<PathBuf> = fs::read_dir(Path::new(FOLDER).join("source"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .collect();
    sources.sort();
    sources
        .iter()
        .map(|path| {
            let source = toml::from_str::<Source>(&fs::read_to_string(path).unwrap());
            let source = source.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name = path.with_extension("json").file_name().unwrap().to_owned();
            let text = serde_json::to_string_pretty(&dashboard(&source)).unwrap();
            (Path::new(FOLDER).join(name), format!("{text}\n"))
        })
        .collect()
}

fn dashboard(source: &Source) -> Value {
    json!({
        "annotations": { "list": annotations() },
        "description": source.description,
        "editable": true,
        "graphTooltip": 1,
        "id": null,
        "links": [{
            "asDropdown": false, "icon": "external link", "includeVars": true, "keepTime": true,
            "tags": [TAG], "targetBlank": false, "title": "", "tooltip": "", "type": "dashboards", "url": "",
        }],
        "panels": panels(&source.row),
        "refresh": "30s",
        "schemaVersion": SCHEMA,
        "tags": [TAG],
        "templating": { "list": variables() },
        "time": { "from": "now-6h", "to": "now" },
        "timepicker": {},
        "timezone": "browser",
        "title": source.title,
        "uid": source.uid,
        "version": 1,
    })
}

pub(super) fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables() -> Value {
    let of = |name: &str, label: &str, query: &str| {
        json!({
            "allValue": ".*",
            "current": { "selected": true, "text": ["All"], "value": ["$__all"] },
            "datasource": datasource(),
            "definition": query,
            "includeAll": true,
            "label": label,
            "multi": true,
            "name": name,
            "query": { "query": query, "refId": name },
            // Refresh on time range change.
            "refresh": 2,
            "sort": 1,
            "type": "query",
        })
    };
    json!([
        {
            "current": {}, "label": "Data source", "name": "datasource", "query": "prometheus",
            "refresh": 1, "type": "datasource",
        },
        of("job", "Job", "label_values(gatepost_build_info, job)"),
        of("instance", "Gateway", r#"label_values(gatepost_build_info{job=~"$job"}, instance)"#),
    ])
}

/// Marks of gateway events on every panel.
fn annotations() -> Value {
    let of = |name: &str, colour: &str, title: &str, expr: &str| {
        json!({
            "datasource": datasource(),
            "enable": true,
            "expr": with_matcher(expr, CHOSEN),
            "hide": false,
            "iconColor": colour,
            "name": name,
            "step": "30s",
            "tagKeys": "instance",
            "titleFormat": title,
            "useValueForTime": false,
        })
    };
    json!([
        of(
            "Doors",
            "purple",
            "door of {{family}}: {{state}}",
            "sum by (instance, family, state) (increase(gatepost_door_changes_total[$__rate_interval])) > 0",
        ),
        of(
            "Reloads",
            "yellow",
            "configuration {{result}}",
            "sum by (instance, result) (increase(gatepost_config_reloads_total[$__rate_interval])) > 0",
        ),
        of(
            "Starts",
            "blue",
            "started, version {{version}}",
            "sum by (instance, version) (gatepost_build_info \
             * on (job, instance) group_left () (changes(process_start_time_seconds[$__rate_interval]) > 0))",
        ),
    ])
}

/// Rows from top to bottom, and the panels of each from left to right.
fn panels(rows: &[Row]) -> Vec<Value> {
    let mut panels = Vec::new();
    let mut y = 0;
    for row in rows {
        let id = panels.len() + 1;
        panels.push(json!({
            "collapsed": false, "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": y },
            "id": id, "panels": [], "title": row.title, "type": "row",
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in &row.panel {
            if x + panel.width > COLUMNS {
                (x, y, height) = (0, y + height, 0);
            }
            let own = panel.height.unwrap_or(row.height);
            let place = json!({ "h": own, "w": panel.width, "x": x, "y": y });
            panels.push(panel.json(panels.len() + 1, &place));
            x += panel.width;
            height = height.max(own);
        }
        y += height;
    }
    panels
}

/// Metrics of checked domains, whose job and instance are none of a gateway.
const OF_DOMAINS: &str = "gatepost_check_";

/// The expression with a further matcher in every selector.
pub(super) fn with_matcher(expr: &str, further: &str) -> String {
    let mut text = String::new();
    let mut copied = 0;
    for (_, end) in names(expr).into_iter().filter(|(at, _)| !expr[*at..].starts_with(OF_DOMAINS)) {
        text.push_str(&expr[copied..end]);
        (text, copied) = match expr[end..].strip_prefix('{') {
            Some(_) => (text + "{" + further + ", ", end + 1),
            None => (text + "{" + further + "}", end),
        };
    }
    text + &expr[copied..]
}

#[test]
fn a_matcher_is_added_to_each_selector() {
    let chosen = with_matcher("rate(up[1m]) + gatepost_b{c=\"d\"}", "a=\"b\"");
    assert_eq!(chosen, "rate(up{a=\"b\"}[1m]) + gatepost_b{a=\"b\", c=\"d\"}");
    assert_eq!(with_matcher("gatepost_check_ready == 0", "a=\"b\""), "gatepost_check_ready == 0");
}
