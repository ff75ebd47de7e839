//! Debian's Prometheus on the host of a lab gateway, with the rules of `dashboards/prometheus`, and its HTTP API.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::time::SystemTime;

use serde_json::Value;

use super::board::FOLDER;
use super::recorded::RECORDED;
use crate::support::{Host, Lab, METRICS, Process, require_program, until};

/// Loopback in the gateway's network namespace.
const AT: &str = "127.0.0.1:9090";

/// Seconds between two values.
const STEP: f64 = 0.5;

pub(crate) struct Prometheus<'lab> {
    host: &'lab Host,
    started: f64,
    _process: Process,
}

/// The values of one series over time.
pub(crate) struct Series {
    pub(crate) values: Vec<f64>,
}

impl<'lab> Prometheus<'lab> {
    /// Starts it and waits for the first scrape.
    pub(super) fn start(lab: &'lab Lab) -> Self {
        let rules = Path::new(FOLDER).join("prometheus");
        let configuration = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s }}\n\
             rule_files: [{0}/recording.yml, {0}/alerts.yml]\n\
             scrape_configs:\n\
             - {{ job_name: gatepost, static_configs: [{{ targets: ['{METRICS}'] }}] }}\n\
             - {{ job_name: recorded, static_configs: [{{ targets: ['{RECORDED}'] }}] }}\n",
            rules.display()
        );
        let prometheus = Self::start_with(lab, &lab.folder("prometheus"), &configuration);
        prometheus.wait_for("sum(up) == 2");
        prometheus
    }

    /// With `prometheus.yml` in a folder, which also gets its data.
    pub(crate) fn start_with(lab: &'lab Lab, folder: &Path, configuration: &str) -> Self {
        require_program("prometheus", "prometheus");
        let file = folder.join("prometheus.yml");
        fs::write(&file, configuration).unwrap();
        let process = lab.gateway.spawn([
            "prometheus",
            "--log.level=warn",
            &format!("--web.listen-address={AT}"),
            &format!("--config.file={}", file.display()),
            &format!("--storage.tsdb.path={}", folder.join("data").display()),
        ]);
        lab.gateway.wait_for_listener(AT.parse().unwrap());
        Self { host: &lab.gateway, started: now(), _process: process }
    }

    /// Waits until an expression has a result.
    #[track_caller]
    pub(crate) fn wait_for(&self, expr: &str) {
        until(format_args!("{expr} in Prometheus"), || {
            let result = self.request("query", &[("query", expr)]);
            let found = result.ok()?;
            found["result"].as_array().is_some_and(|series| !series.is_empty()).then_some(())
        });
    }

    /// The labels of each series that an expression has now, in JSON.
    pub(crate) fn labels(&self, expr: &str) -> Vec<Value> {
        let data = self.request("query", &[("query", expr)]).unwrap();
        let series = data["result"].as_array().unwrap();
        series.iter().map(|series| series["metric"].clone()).collect()
    }

    /// The expression's series since the start; [`Err`] has Prometheus' error.
    pub(crate) fn over_time(&self, expr: &str) -> Result<Vec<Series>, String> {
        // Steps count from the start and the last one must be now; Prometheus rounds to milliseconds.
        let now = now();
        let steps = ((now - self.started) / STEP).ceil();
        let (start, end) = ((now - steps * STEP).to_string(), (now + 0.01).to_string());
        let step = STEP.to_string();
        let parameters = [("query", expr), ("start", &start), ("end", &end), ("step", &step)];
        let data = self.request("query_range", &parameters)?;
        let value = |sample: &Value| sample[1].as_str().unwrap().parse().unwrap();
        let series = data["result"].as_array().unwrap().iter().map(|series| Series {
            values: series["values"].as_array().unwrap().iter().map(value).collect(),
        });
        Ok(series.collect())
    }

    /// Every rule with its last evaluation.
    pub(crate) fn rules(&self) -> Vec<Value> {
        let data = self.request("rules", &[]).unwrap();
        let groups = data["groups"].as_array().unwrap();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    fn request(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value, String> {
        let at: SocketAddr = AT.parse().unwrap();
        let parameters =
            parameters.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
        let query = parameters.collect::<Vec<_>>().join("&");
        let mut stream = self.host.connect(at).unwrap();
        // HTTP/1.0: the response is not chunked.
        write!(stream, "GET /api/v1/{path}?{query} HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").ok_or_else(|| answer.clone())?;
        let body: Value = serde_json::from_str(body).map_err(|e| format!("{e}: {answer}"))?;
        match body["error"].as_str() {
            Some(error) => Err(error.to_owned()),
            None => Ok(body["data"].clone()),
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Percent-encoded for a URL.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
