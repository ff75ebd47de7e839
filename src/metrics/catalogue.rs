//! The list of all metric families, with their types, labels and label values.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::proto::{MetricFamily, MetricType};
use serde::Serialize;

use super::{Metrics, MetricsError};
use crate::time::Timestamp;

/// A metric family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricDescription {
    /// The series of a histogram add `_bucket`, `_count` and `_sum`.
    pub name: String,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Sorted by name.
    pub labels: Vec<MetricLabel>,
    pub help: String,
}

/// A label and all its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MetricLabel {
    pub name: String,
    /// Sorted; empty for labels whose values come from the configuration or the build.
    pub values: Vec<String>,
}

/// Labels whose values come from the configuration or the build.
const OPEN: [&str; 5] = ["certificate", "listener", "name", "rule", "version"];

/// All families, by name.
///
/// # Errors
/// As [`Metrics::new`].
pub fn catalogue() -> Result<Vec<MetricDescription>, MetricsError> {
    let metrics = Metrics::new()?;
    metrics.verdicts.create_all()?;
    metrics.set_certificates(&[(String::new(), Timestamp::default())]);
    metrics.set_listeners(&["default".into()])?;
    let families = metrics.registry.gather();
    Ok(families.iter().map(description).collect())
}

fn description(family: &MetricFamily) -> MetricDescription {
    let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
        labels.entry(pair.name()).or_default().insert(pair.value());
    }
    let label = |(name, values): (&str, BTreeSet<&str>)| {
        let values = values.into_iter().filter(|_| !OPEN.contains(&name)).map(str::to_owned);
        MetricLabel { name: name.to_owned(), values: values.collect() }
    };
    MetricDescription {
        name: family.name().to_owned(),
        kind: match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            _ => "gauge",
        },
        labels: labels.into_iter().map(label).collect(),
        help: family.help().to_owned(),
    }
}
