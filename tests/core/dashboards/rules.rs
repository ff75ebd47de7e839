//! Recording rules and alerts: checked and tested by promtool, with complete texts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::board::FOLDER;

/// One rule.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// The alert, or the recorded series.
    pub(super) name: String,
    pub(super) expr: String,
    /// Labels and annotations of alerts.
    pub(super) alert: Option<BTreeMap<String, String>>,
}

pub(super) fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every recording rule and every alert.
pub(super) fn rules() -> Vec<Rule> {
    let files = ["recording.yml", "alerts.yml"];
    let files = files.map(|name| yaml(&Path::new(FOLDER).join("prometheus").join(name)));
    let groups = files.iter().flat_map(|file| file["groups"].as_array().unwrap());
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.map(rule).collect()
}

fn rule(rule: &Value) -> Rule {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{rule}")).to_owned();
    let expr = text(&rule["expr"]);
    if let Some(name) = rule["record"].as_str() {
        return Rule { name: name.to_owned(), expr, alert: None };
    }
    let texts =
        ["labels", "annotations"].into_iter().flat_map(|part| rule[part].as_object().unwrap());
    let texts = texts.map(|(name, value)| (name.clone(), text(value))).collect();
    Rule { name: text(&rule["alert"]), expr, alert: Some(texts) }
}
