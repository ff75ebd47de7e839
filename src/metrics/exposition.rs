//! The exposition formats and their negotiation.

use axum::http::{HeaderMap, header};
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;

use super::{Metrics, openmetrics};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpositionFormat {
    /// Prometheus' text format 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl ExpositionFormat {
    /// The format preferred by an `Accept` header (RFC 9110 §12.5.1): OpenMetrics if it is listed with at least the weight of
    /// plain text.
    pub fn preferred(accept: &str) -> Self {
        let weight_of = |wanted: &[&str]| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let media = parts.next()?.to_ascii_lowercase();
                let (mut weight, mut version) = (1.0, "1.0.0");
                for (name, value) in parts.filter_map(|part| part.split_once('=')) {
                    match name.trim().to_ascii_lowercase().as_str() {
                        "q" => weight = value.trim().parse().unwrap_or(0.0),
                        "version" => version = value.trim().trim_matches('"'),
                        _ => {}
                    }
                }
                let known = media != "application/openmetrics-text" || version == "1.0.0";
                (known && wanted.contains(&media.as_str())).then_some(weight)
            });
            ranges.fold(0.0, f64::max)
        };
        let openmetrics = weight_of(&["application/openmetrics-text"]);
        if openmetrics > 0.0 && openmetrics >= weight_of(&["text/plain"]) {
            Self::OpenMetrics
        } else {
            Self::Text
        }
    }

    /// The format preferred by the headers of a request.
    pub(super) fn of_request(headers: &HeaderMap) -> Self {
        let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
        Self::preferred(&accept.collect::<Vec<_>>().join(","))
    }

    /// The value of `Content-Type`.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl Metrics {
    /// All series as text.
    pub fn encode(&self, format: ExpositionFormat) -> String {
        encode(&self.registry.gather(), format)
    }
}

pub(super) fn encode(families: &[MetricFamily], format: ExpositionFormat) -> String {
    match format {
        ExpositionFormat::OpenMetrics => openmetrics::encode(families),
        ExpositionFormat::Text => {
            let mut text = String::new();
            if let Err(e) = TextEncoder::new().encode_utf8(families, &mut text) {
                // The encoder's only error is a family without series, and `gather` leaves those out.
                text.push_str(&format!("# incomplete: {e}\n"));
            }
            text
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_preferred_if_listed() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus, ExpositionFormat::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"", ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text", ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text;q=0.5, text/plain;q=0.5", ExpositionFormat::OpenMetrics),
            ("application/openmetrics-text;q=0.4, text/plain;q=0.5", ExpositionFormat::Text),
            ("application/openmetrics-text;q=0, text/plain", ExpositionFormat::Text),
            ("application/openmetrics-text; q=much", ExpositionFormat::Text),
            ("application/openmetrics-text;version=0.0.1", ExpositionFormat::Text),
            ("text/html, */*;q=0.8", ExpositionFormat::Text),
            ("*/*", ExpositionFormat::Text),
            ("", ExpositionFormat::Text),
            (";;=,,q=1", ExpositionFormat::Text),
        ] {
            assert_eq!(ExpositionFormat::preferred(accept), expected, "{accept}");
        }
    }
}
