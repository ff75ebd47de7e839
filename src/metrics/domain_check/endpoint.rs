//! The route `/probe`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::time::Instant;

use super::checks::{DomainChecks, ScrapeLimits};
use crate::metrics::ExpositionFormat;
use crate::metrics::http::ConnectionEnd;
use crate::policy::facts::DomainName;

/// Prometheus' own time limit, in seconds.
const SCRAPE_TIMEOUT: &str = "X-Prometheus-Scrape-Timeout-Seconds";
/// For the answer, after the wait for a result.
const SENDING: Duration = Duration::from_secs(10);

/// `/probe` for the domains of `checks`.
pub fn probe(checks: Arc<DomainChecks>) -> Router {
    Router::new().route("/probe", get(show_domain).with_state(checks))
}

async fn show_domain(
    State(checks): State<Arc<DomainChecks>>,
    Extension(end): Extension<ConnectionEnd>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let list = checks.list();
    if !checks.checks_any() {
        let text = format!("no domain may be checked here; list those that may in {list}\n");
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let domain = match target(query.as_deref().unwrap_or_default()) {
        Ok(domain) => domain,
        Err(problem) => {
            let text = format!("{problem}; write /probe?target=DOMAIN, such as example.org\n");
            return (StatusCode::BAD_REQUEST, text).into_response();
        }
    };
    if !checks.is_listed(&domain) {
        let text = format!("this domain may not be checked here; add it to {list}\n");
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    let limits = ScrapeLimits::new(scrape_timeout(&headers));
    end.extend_to(Instant::now() + limits.wait + SENDING);
    let checked = match checks.result(&domain, limits).await {
        Ok(checked) => checked,
        Err(failure) => {
            return (StatusCode::SERVICE_UNAVAILABLE, format!("{failure}\n")).into_response();
        }
    };
    let format = ExpositionFormat::of_request(&headers);
    match checked.encode(format) {
        Ok(text) => {
            let headers = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
            (headers, text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn scrape_timeout(headers: &HeaderMap) -> Option<Duration> {
    let seconds: f64 = headers.get(SCRAPE_TIMEOUT)?.to_str().ok()?.trim().parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok().filter(|limit| !limit.is_zero())
}

/// The domain in a query string.
fn target(query: &str) -> Result<DomainName, &'static str> {
    let pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut targets = pairs.filter(|(name, _)| *name == "target").map(|(_, value)| value);
    let target = targets.next().filter(|target| !target.is_empty()).ok_or("`target` is missing")?;
    if targets.next().is_some() {
        return Err("there is more than one `target`");
    }
    let text = percent_decoded(target).ok_or("`target` is not a domain")?;
    DomainName::parse(&text).ok_or("`target` is not a domain")
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        // The parser would accept a sign.
        let is_number = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_number)?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::metrics::domain_check::{CheckFuture, DomainCheckSettings};
    use crate::metrics::http;
    use crate::readiness::CheckReport;

    /// With the limit of each check.
    async fn serve(domains: &[&str]) -> (SocketAddr, Arc<Mutex<Vec<Duration>>>) {
        let limits = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&limits);
        let run = move |_, limit| {
            seen.lock().unwrap().push(limit);
            Box::pin(async { Ok(CheckReport::default()) }) as CheckFuture
        };
        let domains = domains.iter().map(|name| DomainName::parse(name).unwrap()).collect();
        let settings = DomainCheckSettings { domains, ..DomainCheckSettings::default() };
        let list = "`probe_domains` in [metrics]";
        let checks = Arc::new(DomainChecks::new(settings, list, Box::new(run)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(http::serve(listener, (probe(checks), "/probe"), std::future::pending()));
        (address, limits)
    }

    /// Status code, head and body.
    async fn get(address: SocketAddr, path: &str, header: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: gatepost\r\n{header}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    #[tokio::test]
    async fn only_listed_domains_are_checked() {
        let (address, limits) = serve(&["ready.example", "xn--bcher-kva.example"]).await;
        let mut responses = String::new();
        for path in [
            "/probe",
            "/probe?target=",
            "/probe?module=http_2xx",
            "/probe?target=ready.example&target=ready.example",
            "/probe?target=2001:db8::1",
            "/probe?target=http%3A%2F%2Fready.example",
            "/probe?target=%E",
            "/probe?target=%+fready.example",
            "/probe?target=%ff",
            "/probe?target=other.example",
            "/probe?target=www.ready.example",
            "/metrics",
        ] {
            let (status, _, body) = get(address, path, "").await;
            responses.push_str(&format!("{path}: {status} {body}"));
        }
        insta::assert_snapshot!(responses);
        assert!(limits.lock().unwrap().is_empty());
        for path in [
            "/probe?target=ready.example",
            "/probe?target=Ready.EXAMPLE.",
            "/probe?module=smtp&target=ready%2Eexample",
            "/probe?target=B%C3%BCcher.example",
        ] {
            let (status, _, body) = get(address, path, "").await;
            assert_eq!(status, 200, "{path}: {body}");
            let domain = if path.contains("cher") { "xn--bcher-kva" } else { "ready" };
            let ready = format!("\ngatepost_check_ready{{domain=\"{domain}.example\"}} -1\n");
            assert!(body.contains(&ready), "{path}: {body}");
        }
        // Two domains.
        assert_eq!(limits.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn without_a_list_nothing_is_checked() {
        let (address, limits) = serve(&[]).await;
        let (status, _, body) = get(address, "/probe?target=ready.example", "").await;
        assert_eq!(
            (status, body.as_str()),
            (
                404,
                "no domain may be checked here; list those that may in `probe_domains` in [metrics]\n"
            )
        );
        assert!(limits.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn the_format_and_the_time_limit_are_the_scrapers() {
        let (address, limits) = serve(&["a.example", "b.example", "c.example"]).await;
        let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        let timeout = "X-Prometheus-Scrape-Timeout-Seconds: 10\r\n";
        let (_, head, body) =
            get(address, "/probe?target=a.example", &format!("{accept}{timeout}")).await;
        assert!(head.contains("content-type: application/openmetrics-text"), "{head}");
        assert!(body.ends_with("# EOF\n"), "{body}");
        let (_, head, _) = get(address, "/probe?target=b.example", "").await;
        assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
        let wrong = "X-Prometheus-Scrape-Timeout-Seconds: -inf\r\n";
        assert_eq!(get(address, "/probe?target=c.example", wrong).await.0, 200);
        // Less the wait for its turn.
        let tenths = |limit: &Duration| (limit.as_secs_f64() * 10.0).round();
        let limits: Vec<f64> = limits.lock().unwrap().iter().map(tenths).collect();
        assert_eq!(limits, [95.0, 300.0, 300.0]);
    }
}
