//! The list of all metric families, with their types, labels and label values.

use std::collections::{BTreeMap, BTreeSet};

use prometheus::Registry;
use prometheus::proto::{MetricFamily, MetricType};
use serde::Serialize;

use super::domain_check::DomainFamilies;
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
    /// Sorted; empty for labels whose values come from the configuration, the build or a checked domain.
    pub values: Vec<String>,
}

/// Labels whose values come from the configuration, the build or a checked domain.
const OPEN: [&str; 8] =
    ["address", "certificate", "domain", "exchange", "listener", "name", "rule", "version"];

/// All families, by name, and those of a checked domain.
///
/// # Errors
/// As [`Metrics::new`].
pub fn catalogue() -> Result<Vec<MetricDescription>, MetricsError> {
    let metrics = Metrics::new()?;
    metrics.verdicts.create_all()?;
    metrics.set_certificates(&[(String::new(), Timestamp::default())]);
    metrics.set_listeners(&["default".into()])?;
    let of_domains = Registry::new();
    DomainFamilies::register(&of_domains)?.create_all();
    let families = [metrics.registry.gather(), of_domains.gather()].concat();
    let mut families: Vec<MetricDescription> = families.iter().map(description).collect();
    families.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(families)
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
