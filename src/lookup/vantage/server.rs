//! The vantage's side: checks requests and runs the probes.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::future::join_all;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::protocol::{
    MAX_CLOCK_SKEW, MAX_REQUEST, PATH, ProbeRequest, ProbeResponse, ProbedAddress, SIGNATURE,
    VantageResult,
};
use super::signature::{Role, SharedKey};
use crate::addr::{Family, is_global};
use crate::lookup::clock::now;
use crate::lookup::service::LookupService;
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, MAX_EXCHANGES, Reason};

/// Addresses probed for one request.
const MAX_ADDRESSES: usize = 20;
/// Nonces kept; the rate limit keeps the number below it.
const MAX_NONCES: u64 = 1_000_000;
const MAX_CONNECTIONS: usize = 64;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct VantageServerSettings {
    pub key: SharedKey,
    /// The only domains that are probed.
    pub domains: BTreeSet<DomainName>,
    pub requests_per_minute: NonZeroU32,
    /// Probe only global addresses; false in tests.
    pub only_global: bool,
}

/// Answers requests; clones share everything.
#[derive(Clone)]
pub struct VantageServer(Arc<ServerState>);

struct ServerState {
    settings: VantageServerSettings,
    service: LookupService,
    rate: DefaultDirectRateLimiter,
    /// Nonces of the requests whose time is still acceptable.
    nonces: Cache<String, ()>,
}

impl VantageServer {
    /// Probes by `service`, which should cache answers only briefly: each request is about the present.
    pub fn new(settings: VantageServerSettings, service: LookupService) -> Self {
        let rate = RateLimiter::direct(Quota::per_minute(settings.requests_per_minute));
        let nonces = Cache::builder().eviction_policy(EvictionPolicy::lru());
        let nonces = nonces.max_capacity(MAX_NONCES).time_to_live(MAX_CLOCK_SKEW * 2).build();
        Self(Arc::new(ServerState { settings, service, rate, nonces }))
    }
}

/// Serves `listener` until the future is dropped.
pub async fn serve(listener: TcpListener, server: VantageServer) -> Infallible {
    let router = Router::new()
        .route(PATH, post(respond).with_state(server))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not found; the path is /probe"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use POST")
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone()))),
            // Out of descriptors, or the peer has gone: both are temporary.
            Err(_) => sleep(ACCEPT_BACKOFF).await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The client reports errors.
    let _ = timeout(CONNECTION_TIMEOUT, serving).await;
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// A client without the key learns only that it has none.
async fn respond(State(server): State<VantageServer>, headers: HeaderMap, body: Bytes) -> Response {
    let state = &*server.0;
    let request = match state.check(&headers, &body) {
        Ok(request) => request,
        Err((status, why)) => return refuse(status, &why),
    };
    let result = state.probe(&request.domain, request.family).await;
    let response = ProbeResponse { nonce: request.nonce, at: now(), result };
    match serde_json::to_vec(&response) {
        Ok(bytes) => {
            let signature = state.settings.key.sign(Role::Response, &bytes);
            ([(SIGNATURE, signature)], bytes).into_response()
        }
        Err(why) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

impl ServerState {
    fn check(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<ProbeRequest, (StatusCode, String)> {
        let no = |status, why: &str| Err((status, why.to_owned()));
        let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        let Some(signature) = signature else {
            return no(StatusCode::UNAUTHORIZED, "the request has no signature");
        };
        if !self.settings.key.verify(Role::Request, body, signature) {
            let why = "the signature is wrong: do both have the same key?";
            return no(StatusCode::UNAUTHORIZED, why);
        }
        let request: ProbeRequest = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(why) => {
                let why = format!("cannot parse the request: {why}; are both of the same version?");
                return no(StatusCode::BAD_REQUEST, &why);
            }
        };
        let now = now();
        let skew = (now - request.at).max(request.at - now);
        if skew > MAX_CLOCK_SKEW {
            let why = format!(
                "the time is {now} here and {} in the request: synchronize the clocks",
                request.at
            );
            return no(StatusCode::UNAUTHORIZED, &why);
        }
        let nonce = self.nonces.entry(request.nonce.clone());
        if !nonce.or_insert(()).is_fresh() {
            return no(StatusCode::UNAUTHORIZED, "the request is a repetition");
        }
        if !self.settings.domains.contains(&request.domain) {
            let why = format!("{} is not among the domains of this vantage", request.domain);
            return no(StatusCode::FORBIDDEN, &why);
        }
        if self.rate.check().is_err() {
            return no(StatusCode::TOO_MANY_REQUESTS, "too many requests; wait a minute");
        }
        Ok(request)
    }

    async fn probe(&self, domain: &DomainName, family: Family) -> VantageResult {
        let addresses = match self.addresses(domain, family).await {
            Ok(addresses) => addresses,
            Err(reason) => return VantageResult::Unknown(reason),
        };
        let probes = addresses.into_iter().map(async |(host, ip)| {
            let answer = if is_global(ip) || !self.settings.only_global {
                self.service.lookup(&Lookup::Greet(ip)).await.answer
            } else {
                Answer::No(Reason::NoUsableAddress, None)
            };
            ProbedAddress { host, ip, answer }
        });
        VantageResult::Addresses(join_all(probes).await)
    }

    /// The addresses in `family` that a sender finds (RFC 5321 §5.1). If some hosts are unknown, the known ones are used.
    async fn addresses(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<Vec<(DomainName, IpAddr)>, Reason> {
        let exchanges = self.service.lookup(&Lookup::MailExchanges(domain.clone())).await;
        let mut hosts: Vec<_> = match exchanges.answer {
            Answer::Records(records) => records
                .into_iter()
                .filter_map(|record| match record {
                    DnsRecord::Exchange { preference, host } => Some((preference, host)),
                    _ => None,
                })
                .filter(|(_, host)| !host.is_root())
                .collect(),
            Answer::NoData => vec![(0, domain.clone())],
            Answer::Unknown(reason) => return Err(reason),
            _ => Vec::new(),
        };
        hosts.sort();
        hosts.truncate(MAX_EXCHANGES);
        let lookups = hosts.into_iter().map(async |(_, host)| {
            let result = self.service.lookup(&Lookup::Addresses(host.clone(), family)).await;
            (host, result.answer)
        });
        let (mut found, mut unknown) = (Vec::new(), None);
        for (host, answer) in join_all(lookups).await {
            match answer {
                Answer::Records(records) => {
                    found.extend(records.into_iter().filter_map(|record| match record {
                        DnsRecord::Address(ip) => Some((host.clone(), ip)),
                        _ => None,
                    }));
                }
                Answer::Unknown(reason) => unknown = Some(reason),
                _ => {}
            }
        }
        found.truncate(MAX_ADDRESSES);
        match unknown {
            Some(reason) if found.is_empty() => Err(reason),
            _ => Ok(found),
        }
    }
}
