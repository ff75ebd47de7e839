//! The text form of OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec), which crate `prometheus` does not write.
//!
//! No exemplars, no timestamps. Differences from Prometheus' text format: HELP and TYPE name counters without `_total`, bucket
//! bounds are decimal fractions, quotation marks in help texts are escaped, and `# EOF` at the end reveals truncation.

use std::fmt::Write as _;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

pub(super) fn encode(families: &[MetricFamily]) -> String {
    let mut text = String::new();
    for family in families {
        encode_family(&mut text, family);
    }
    text.push_str("# EOF\n");
    text
}

fn encode_family(text: &mut String, family: &MetricFamily) {
    let kind = family.get_field_type();
    let (name, type_name) = match kind {
        MetricType::COUNTER => (family.name().trim_end_matches("_total"), "counter"),
        MetricType::GAUGE => (family.name(), "gauge"),
        MetricType::HISTOGRAM => (family.name(), "histogram"),
        // Not used here.
        MetricType::SUMMARY | MetricType::UNTYPED => return,
    };
    let help = escaped(family.help());
    // Writing to a string never fails.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {type_name}");
    for metric in family.get_metric() {
        let labels = metric.get_label();
        match kind {
            MetricType::COUNTER => {
                sample(text, name, "_total", labels, None, metric.get_counter().get_value());
            }
            MetricType::GAUGE => {
                sample(text, name, "", labels, None, metric.get_gauge().get_value());
            }
            _ => histogram(text, name, metric),
        }
    }
}

fn histogram(text: &mut String, name: &str, metric: &Metric) {
    let (labels, histogram) = (metric.get_label(), metric.get_histogram());
    for bucket in histogram.get_bucket() {
        let bound = bucket.upper_bound();
        // The infinite bucket is written from the count below.
        if bound.is_finite() {
            let bound = format!("{bound:?}");
            sample(text, name, "_bucket", labels, Some(&bound), bucket.cumulative_count() as f64);
        }
    }
    let count = histogram.get_sample_count() as f64;
    sample(text, name, "_bucket", labels, Some("+Inf"), count);
    sample(text, name, "_count", labels, None, count);
    sample(text, name, "_sum", labels, None, histogram.get_sample_sum());
}

fn sample(
    text: &mut String,
    name: &str,
    suffix: &str,
    labels: &[LabelPair],
    bound: Option<&str>,
    value: f64,
) {
    let _ = write!(text, "{name}{suffix}");
    let pairs = labels.iter().map(|pair| (pair.name(), pair.value()));
    for (n, (label, value)) in pairs.chain(bound.map(|bound| ("le", bound))).enumerate() {
        let before = if n == 0 { '{' } else { ',' };
        let _ = write!(text, "{before}{label}=\"{}\"", escaped(value));
    }
    if !labels.is_empty() || bound.is_some() {
        text.push('}');
    }
    let _ = writeln!(text, " {value}");
}

fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\n', r"\n").replace('"', "\\\"")
}
