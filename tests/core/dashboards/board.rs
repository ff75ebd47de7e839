//! A dashboard as stored in the repository.

use std::fs;

use serde_json::Value;

pub(crate) const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards");

pub(crate) struct Board {
    /// Its file name without `.json`.
    pub(crate) name: String,
    pub(crate) json: Value,
}

pub(crate) fn boards() -> Vec<Board> {
    let mut boards: Vec<Board> = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| Board {
            name: path.file_stem().unwrap().to_str().unwrap().to_owned(),
            json: serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap(),
        })
        .collect();
    boards.sort_by(|one, other| one.name.cmp(&other.name));
    boards
}

impl Board {
    /// Includes rows.
    pub(crate) fn all_panels(&self) -> impl Iterator<Item = &Value> {
        self.json["panels"].as_array().unwrap().iter()
    }

    /// The title of the row that contains a panel.
    pub(crate) fn row_of(&self, panel: &Value) -> &str {
        let y = |panel: &Value| panel["gridPos"]["y"].as_u64().unwrap();
        let rows = self.all_panels().filter(|other| other["type"] == "row" && y(other) < y(panel));
        rows.last().unwrap()["title"].as_str().unwrap()
    }

    /// Every expression of the panels and annotations, with a name.
    pub(crate) fn expressions(&self) -> Vec<(String, String)> {
        let mut expressions = Vec::new();
        for annotation in self.json["annotations"]["list"].as_array().unwrap() {
            let name = annotation["name"].as_str().unwrap();
            let expr = annotation["expr"].as_str().unwrap();
            expressions.push((format!("{}, marks: {name}", self.name), expr.to_owned()));
        }
        for panel in self.all_panels().filter(|panel| panel["type"] != "row") {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().unwrap() {
                let id = target["refId"].as_str().unwrap();
                let name = format!("{}, {}, {title}, {id}", self.name, self.row_of(panel));
                expressions.push((name, target["expr"].as_str().unwrap().to_owned()));
            }
        }
        expressions
    }
}
