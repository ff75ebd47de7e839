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
