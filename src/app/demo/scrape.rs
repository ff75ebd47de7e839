//! Reads the gateway's own `/metrics` over HTTP, as Prometheus does, so that the demo checks what is really served.
//!
//! Layer 5. Prometheus text format 0.0.4, as much of it as counters without escapes need.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of one answer; the product's own bound on series keeps it far below.
const MAX_ANSWER: u64 = 8 << 20;

/// All samples of one scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<Sample>);

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl Samples {
    /// The sum over every series of `name` that carries all of `labels`; `None` when there is no such series.
    pub(super) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matching = self.0.iter().filter(|sample| {
            let has = |&(name, value): &(&str, &str)| {
                let mut own = sample.labels.iter();
                own.any(|(n, v)| n == name && v == value)
            };
            sample.name == name && labels.iter().all(has)
        });
        matching.map(|sample| sample.value).reduce(|a, b| a + b)
    }

    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let lines = text.lines();
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| {
            Sample::parse(line).with_context(|| format!("/metrics holds the line {line:?}"))
        });
        samples.collect::<anyhow::Result<_>>().map(Self)
    }
}

impl Sample {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let value = value.parse().ok()?;
        let Some((name, labels)) = series.split_once('{') else {
            let (name, labels) = (series.to_owned(), Vec::new());
            return Some(Self { name, labels, value });
        };
        let labels = labels.strip_suffix('}')?.trim_end_matches(',');
        let labels = labels.split("\",").map(|label| {
            let (name, value) = label.split_once("=\"")?;
            let value = value.strip_suffix('"').unwrap_or(value);
            Some((name.to_owned(), value.to_owned()))
        });
        Some(Self { name: name.to_owned(), labels: labels.collect::<Option<_>>()?, value })
    }
}

/// One GET of `/metrics`.
pub(super) async fn scrape(address: SocketAddr) -> anyhow::Result<Samples> {
    let answer = tokio::time::timeout(PATIENCE, get(address))
        .await
        .with_context(|| format!("http://{address}/metrics does not answer"))?
        .with_context(|| format!("http://{address}/metrics cannot be read"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| anyhow!("http://{address}/metrics gave no HTTP answer"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "http://{address}/metrics answered {status}, not 200");
    Samples::parse(body)
}

async fn get(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    // HTTP/1.0: no chunks, and the end of the answer is the end of the connection.
    let request = format!("GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_what_carries_the_labels() {
        let text = "# HELP a_total Things.\n# TYPE a_total counter\n\
                    a_total{family=\"ipv4\",outcome=\"quit\"} 3\n\
                    a_total{family=\"ipv6\",outcome=\"quit\"} 4\n\
                    a_total{family=\"ipv6\",outcome=\"protocol\"} 1\n\
                    b 1.5e3\n";
        let samples = Samples::parse(text).unwrap();
        assert_eq!(samples.sum("a_total", &[("family", "ipv6")]), Some(5.0));
        assert_eq!(samples.sum("a_total", &[]), Some(8.0));
        assert_eq!(samples.sum("a_total", &[("family", "ipv6"), ("outcome", "quit")]), Some(4.0));
        assert_eq!(samples.sum("b", &[]), Some(1500.0));
        assert_eq!(samples.sum("a_total", &[("family", "ipx")]), None);
        assert_eq!(samples.sum("c", &[]), None);
    }

    #[test]
    fn what_is_no_sample_is_named() {
        let err = Samples::parse("a_total{family=\"ipv4\" 3\n").unwrap_err();
        assert_eq!(err.to_string(), r#"/metrics holds the line "a_total{family=\"ipv4\" 3""#);
    }
}
