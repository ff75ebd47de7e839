//! One panel: its source and its JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::generate::{CHOSEN, datasource, with_matcher};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Panel {
    title: String,
    description: String,
    #[serde(default)]
    kind: Kind,
    /// Columns of Grafana's grid of 24.
    pub(super) width: u32,
    /// If it differs from its row's height.
    pub(super) height: Option<u32>,
    /// A Grafana unit.
    unit: String,
    max: Option<f64>,
    /// Text of an empty panel.
    none: Option<String>,
    #[serde(default)]
    stacked: bool,
    #[serde(default)]
    bars: bool,
    #[serde(default)]
    colours: Palette,
    values: Option<Values>,
    /// Colours of a single value, each with its lower bound.
    #[serde(default)]
    steps: Vec<(String, f64)>,
    /// Column titles of a table, by label.
    #[serde(default)]
    columns: BTreeMap<String, String>,
    expr: Option<String>,
    legend: Option<String>,
    /// Instead of `expr` and `legend`.
    #[serde(default)]
    query: Vec<Query>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    expr: String,
    legend: String,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    #[default]
    Timeseries,
    Stat,
    StateTimeline,
    Bargauge,
    Table,
}

/// Fixed colours for series.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Palette {
    /// Grafana's default.
    #[default]
    Classic,
    Family,
    Result,
    State,
    Door,
}

/// Texts for values.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Values {
    Door,
    Age,
    Capture,
    Redis,
    Check,
}

/// Colours by pattern; the last match applies.
type Colours = &'static [(&'static str, &'static str)];

/// IPv6 is blue and IPv4 orange; outbound and refused series are lighter.
const FAMILIES: Colours = &[
    ("ipv6", "blue"),
    ("ipv4", "orange"),
    ("ipv6 (out|at the SYN|syn|refused)", "super-light-blue"),
    ("ipv4 (out|at the SYN|syn|refused)", "super-light-orange"),
    ("limit", "red"),
];
const RESULTS: Colours = &[("applied", "green"), ("failed", "red")];
const STATES: Colours = &[("up", "green"), ("down", "red")];
const DOORS: Colours =
    &[("open", "green"), ("opening", "yellow"), ("closing", "orange"), ("closed", "red")];

/// Values with their texts and colours.
type ValueTexts = &'static [(i8, &'static str, &'static str)];

const DOOR: ValueTexts = &[
    (0, "no door", "text"),
    (1, "open", "green"),
    (2, "opening", "yellow"),
    (3, "closing", "orange"),
    (4, "CLOSED", "red"),
];
const AGE: ValueTexts = &[(-1, "never", "orange")];
const CAPTURE: ValueTexts = &[(0, "off", "text"), (1, "on", "green")];
const CHECK: ValueTexts =
    &[(-1, "unknown", "text"), (0, "NOT READY", "red"), (1, "ready", "green")];
const REDIS: ValueTexts = &[(0, "down", "text"), (1, "up", "green")];

impl Panel {
    pub(super) fn json(&self, id: usize, place: &Value) -> Value {
        let kind = match self.kind {
            Kind::Timeseries => "timeseries",
            Kind::Stat => "stat",
            Kind::StateTimeline => "state-timeline",
            Kind::Bargauge => "bargauge",
            Kind::Table => "table",
        };
        json!({
            "datasource": datasource(),
            "description": self.description,
            "fieldConfig": { "defaults": self.defaults(), "overrides": self.overrides() },
            "gridPos": place,
            "id": id,
            "options": self.options(),
            "targets": self.targets(),
            "title": self.title,
            "transformations": self.transformations(),
            "type": kind,
        })
    }

    fn queries(&self) -> Vec<Query> {
        let one = self.expr.iter().map(|expr| Query {
            expr: expr.clone(),
            legend: self.legend.clone().unwrap_or_else(|| self.title.clone()),
        });
        one.chain(self.query.iter().cloned()).collect()
    }

    fn targets(&self) -> Vec<Value> {
        // An instant query yields the current value or the sum over the time range, a range query the series.
        let is_instant = match self.kind {
            Kind::Timeseries | Kind::StateTimeline => false,
            Kind::Stat | Kind::Bargauge | Kind::Table => true,
        };
        let format = if self.kind == Kind::Table { "table" } else { "time_series" };
        let target = |(query, id): (Query, char)| {
            json!({
                "datasource": datasource(),
                "editorMode": "code",
                "expr": with_matcher(&query.expr, CHOSEN),
                "format": format,
                "instant": is_instant,
                "legendFormat": query.legend,
                "range": !is_instant,
                "refId": id.to_string(),
            })
        };
        self.queries().into_iter().zip('A'..='Z').map(target).collect()
    }

    fn defaults(&self) -> Value {
        let mut steps: Vec<Value> = self
            .steps
            .iter()
            .map(|(colour, from)| json!({ "color": colour, "value": from }))
            .collect();
        match steps.first_mut() {
            // The first colour also covers all lower values.
            Some(first) => first["value"] = Value::Null,
            None => steps.push(json!({ "color": "text", "value": null })),
        }
        let by_value = !self.steps.is_empty() || self.values.is_some();
        let mode = if by_value { "thresholds" } else { "palette-classic" };
        let mut defaults = json!({
            "color": { "mode": mode },
            "custom": self.custom(),
            "mappings": self.mappings(),
            "thresholds": { "mode": "absolute", "steps": steps },
            "unit": self.unit,
        });
        if self.values.is_none() && self.kind != Kind::Table {
            defaults["min"] = json!(0);
        }
        if let Some(max) = self.max {
            defaults["max"] = json!(max);
        }
        if let Some(none) = &self.none {
            defaults["noValue"] = json!(none);
        }
        defaults
    }

    fn custom(&self) -> Value {
        match self.kind {
            Kind::Timeseries => {
                let fill = if self.bars || self.stacked { 40 } else { 10 };
                let stacking = if self.stacked || self.bars { "normal" } else { "none" };
                json!({
                    "drawStyle": if self.bars { "bars" } else { "line" },
                    "fillOpacity": fill,
                    "lineInterpolation": "linear",
                    "lineWidth": 1,
                    // A single value between two gaps is visible only as a point.
                    "showPoints": "auto",
                    "pointSize": 4,
                    "spanNulls": false,
                    "stacking": { "group": "A", "mode": stacking },
                })
            }
            Kind::StateTimeline => json!({ "fillOpacity": 80, "lineWidth": 0 }),
            Kind::Table => json!({ "align": "auto", "cellOptions": { "type": "auto" } }),
            Kind::Stat | Kind::Bargauge => json!({}),
        }
    }

    fn mappings(&self) -> Value {
        let words = match self.values {
            None => return json!([]),
            Some(Values::Door) => DOOR,
            Some(Values::Age) => AGE,
            Some(Values::Capture) => CAPTURE,
            Some(Values::Redis) => REDIS,
            Some(Values::Check) => CHECK,
        };
        let options: BTreeMap<String, Value> = words
            .iter()
            .zip(0..)
            .map(|(&(number, text, colour), index)| {
                let word = json!({ "color": colour, "index": index, "text": text });
                (number.to_string(), word)
            })
            .collect();
        json!([{ "options": options, "type": "value" }])
    }

    fn overrides(&self) -> Vec<Value> {
        let colours = match self.colours {
            Palette::Classic => &[],
            Palette::Family => FAMILIES,
            Palette::Result => RESULTS,
            Palette::State => STATES,
            Palette::Door => DOORS,
        };
        let whole_word = |pattern: &str| format!(r"/\b({pattern})\b/");
        colours
            .iter()
            .map(|(pattern, colour)| {
                json!({
                    "matcher": { "id": "byRegexp", "options": whole_word(pattern) },
                    "properties": [{
                        "id": "color", "value": { "fixedColor": colour, "mode": "fixed" },
                    }],
                })
            })
            .collect()
    }

    fn options(&self) -> Value {
        let last = json!({ "calcs": ["lastNotNull"], "fields": "", "values": false });
        match self.kind {
            Kind::Timeseries => json!({
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "hideZeros": true, "mode": "multi", "sort": "desc" },
            }),
            Kind::Stat => json!({
                "colorMode": "background", "graphMode": "none", "justifyMode": "auto",
                "orientation": "auto", "reduceOptions": last, "textMode": self.text_mode(),
                "wideLayout": true,
                "percentChangeColorMode": "standard", "showPercentChange": false,
            }),
            Kind::StateTimeline => json!({
                "alignValue": "left", "mergeValues": true, "rowHeight": 0.8, "showValue": "auto",
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
                "tooltip": { "mode": "single", "sort": "none" },
            }),
            Kind::Bargauge => json!({
                "displayMode": "basic", "minVizHeight": 16, "orientation": "horizontal",
                "reduceOptions": last, "showUnfilled": true, "sizing": "manual", "valueMode": "text", "maxVizHeight": 32, "minVizWidth": 8,
                "namePlacement": "left",
                "legend": { "calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": false },
            }),
            Kind::Table => json!({ "frameIndex": 0, "cellHeight": "sm", "showHeader": true }),
        }
    }

    /// Several values need names.
    const fn text_mode(&self) -> &'static str {
        if self.legend.is_some() { "value_and_name" } else { "value" }
    }

    /// Tables show only the named columns, under their titles.
    fn transformations(&self) -> Value {
        if self.kind != Kind::Table {
            return json!([]);
        }
        let hidden = ["Time", "__name__", "job"].map(|column| (column, true));
        let hidden: BTreeMap<&str, bool> = hidden.into();
        json!([{
            "id": "organize",
            "options": { "excludeByName": hidden, "renameByName": self.columns },
        }])
    }
}
