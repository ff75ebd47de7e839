//! The vantage's side: checks requests and runs the probes.
//!
//! It stands in the open Internet. A client without the key gets no more than a few seconds, and one network no more than
//! [`MAX_PER_NETWORK`] connections, so that it cannot keep the gateway's requests out.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::future::join_all;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::canary::{SentPairs, VantageCanaries, send};
use super::protocol::{
    CANARY_PATH, CanaryRequest, CanaryResponse, MAX_CLOCK_SKEW, MAX_REQUEST, PATH, ProbeRequest,
    ProbeResponse, ProbedAddress, REPORTS_PATH, ReportsRequest, ReportsResponse, SIGNATURE,
    SignedRequest, VantageResult,
};
use super::request_log::{RequestEvent, RequestLog};
use super::signature::{Role, SharedKey};
use crate::addr::{Family, NetworkKey, canonical, is_global};
use crate::canary_reports::ReportDirectory;
use crate::lookup::clock::now;
use crate::lookup::exchanges::exchange_addresses;
use crate::lookup::probe::LARGE_ANSWERED;
use crate::lookup::service::LookupService;
use crate::policy::facts::{Answer, DomainName, Lookup, Reason};

/// Addresses probed for one request.
const MAX_ADDRESSES: usize = 20;
/// Nonces kept; the rate limit keeps the number below it.
const MAX_NONCES: u64 = 1_000_000;
const MAX_CONNECTIONS: usize = 128;
/// Connections of one network of clients.
pub(super) const MAX_PER_NETWORK: usize = 16;
/// Time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for its body, which fits into two segments.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all of a connection, with the probes.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(90);
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub struct VantageServerSettings {
    pub key: SharedKey,
    /// The only domains that are probed.
    pub domains: BTreeSet<DomainName>,
    pub requests_per_minute: NonZeroU32,
    /// Probe only global addresses; false in tests.
    pub only_global: bool,
    /// `None` if it sends no canaries.
    pub canaries: Option<VantageCanaries>,
    /// Reports of a mailbox of the vantage; `None` if it has none.
    pub reports: Option<ReportDirectory>,
}

/// Answers requests; clones share everything.
#[derive(Clone)]
pub struct VantageServer(Arc<ServerState>);

struct ServerState {
    settings: VantageServerSettings,
    service: LookupService,
    log: Arc<dyn RequestLog>,
    rate: DefaultDirectRateLimiter,
    sent_pairs: SentPairs,
    /// Nonces of the requests whose time is still acceptable.
    nonces: Cache<String, ()>,
    /// Open connections.
    connections: Mutex<BTreeMap<NetworkKey, usize>>,
}

impl VantageServer {
    /// Probes by `service`, which should cache answers only briefly: each request is about the present.
    pub fn new(
        settings: VantageServerSettings,
        service: LookupService,
        log: Arc<dyn RequestLog>,
    ) -> Self {
        let rate = RateLimiter::direct(Quota::per_minute(settings.requests_per_minute));
        let nonces = Cache::builder().eviction_policy(EvictionPolicy::lru());
        let nonces = nonces.max_capacity(MAX_NONCES).time_to_live(MAX_CLOCK_SKEW * 2).build();
        let connections = Mutex::default();
        let sent_pairs = SentPairs::default();
        Self(Arc::new(ServerState {
            settings,
            service,
            log,
            rate,
            sent_pairs,
            nonces,
            connections,
        }))
    }

    /// A place among the connections of the network of `peer`.
    fn admit(&self, peer: SocketAddr) -> Option<ConnectionPermit> {
        let network = NetworkKey::of(peer.ip());
        let mut open = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(network).or_default();
        (*count < MAX_PER_NETWORK).then(|| {
            *count += 1;
            ConnectionPermit { server: self.clone(), network }
        })
    }
}

/// Counts a connection until it is dropped.
struct ConnectionPermit {
    server: VantageServer,
    network: NetworkKey,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let connections = &self.server.0.connections;
        let mut open = connections.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
        }
    }
}

/// Serves `listener` until the future is dropped.
pub async fn serve(listener: TcpListener, server: VantageServer) -> Infallible {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= MAX_CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, peer)) => {
                let peer = canonical(peer);
                match server.admit(peer) {
                    Some(permit) => {
                        connections.spawn(connection(stream, peer, permit));
                    }
                    // The socket is closed.
                    None => server.0.log.log(peer, RequestEvent::TooManyConnections),
                }
            }
            // Out of descriptors, or the peer has gone: both are temporary.
            Err(_) => sleep(ACCEPT_BACKOFF).await,
        }
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, permit: ConnectionPermit) {
    let server = permit.server.clone();
    let log = Arc::clone(&server.0.log);
    let exchange = Exchange { server, peer };
    let router = Router::new()
        .route(PATH, post(respond))
        .route(CANARY_PATH, post(respond_with_canaries))
        .route(REPORTS_PATH, post(respond_with_reports))
        .fallback(async |State(exchange): State<Exchange>| {
            exchange.refuse(
                StatusCode::NOT_FOUND,
                "not found; the paths are /probe, /canary and /canary-reports",
            )
        })
        .method_not_allowed_fallback(async |State(exchange): State<Exchange>| {
            exchange.refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; use POST")
        })
        .with_state(exchange);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(CONNECTION_TIMEOUT, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log.log(peer, RequestEvent::NoRequest(&error.to_string())),
        Err(_elapsed) => log.log(peer, RequestEvent::NoRequest("the connection took too long")),
    }
}

/// The request of one connection.
#[derive(Clone)]
struct Exchange {
    server: VantageServer,
    peer: SocketAddr,
}

impl Exchange {
    fn refuse(&self, status: StatusCode, why: &str) -> Response {
        self.server.0.log.log(self.peer, RequestEvent::Rejected(status.as_u16(), why));
        (status, format!("{why}\n")).into_response()
    }

    /// Reads a request and checks it.
    async fn read<R: SignedRequest>(&self, request: Request<Body>) -> Result<R, Response> {
        let (head, body) = request.into_parts();
        let body = match timeout(BODY_TIMEOUT, to_bytes(body, MAX_REQUEST)).await {
            Ok(Ok(body)) => body,
            Ok(Err(_too_long_or_broken)) => {
                let why = format!("the body is broken or longer than {MAX_REQUEST} bytes");
                return Err(self.refuse(StatusCode::PAYLOAD_TOO_LARGE, &why));
            }
            Err(_elapsed) => {
                let why = "the body did not arrive in time";
                return Err(self.refuse(StatusCode::REQUEST_TIMEOUT, why));
            }
        };
        let request = self.server.0.check(&head.headers, &body);
        request.map_err(|(status, why)| self.refuse(status, &why))
    }

    fn sign(&self, response: &impl Serialize) -> Response {
        match serde_json::to_vec(response) {
            Ok(bytes) => {
                let signature = self.server.0.settings.key.sign(Role::Response, &bytes);
                ([(SIGNATURE, signature)], bytes).into_response()
            }
            Err(why) => self.refuse(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
        }
    }
}

/// A client without the key learns only that it has none.
async fn respond(State(exchange): State<Exchange>, request: Request<Body>) -> Response {
    let state = &*exchange.server.0;
    let request: ProbeRequest = match exchange.read(request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let (domain, family) = (request.domain, request.family);
    let result = state.probe(&domain, family).await;
    state.log.log(exchange.peer, RequestEvent::Probed { domain: &domain, family, result: &result });
    let response = ProbeResponse { nonce: request.nonce, at: now(), result };
    exchange.sign(&response)
}

async fn respond_with_reports(
    State(exchange): State<Exchange>,
    request: Request<Body>,
) -> Response {
    let state = &*exchange.server.0;
    let request: ReportsRequest = match exchange.read(request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let Some(directory) = &state.settings.reports else {
        let why = "this vantage has no mailbox for canaries; start it with --canary-reports";
        return exchange.refuse(StatusCode::FORBIDDEN, why);
    };
    let found = match directory.read(state.settings.key.hmac(), now()) {
        Ok(found) => found,
        Err(why) => {
            let why = format!("cannot read the reports: {why}");
            return exchange.refuse(StatusCode::INTERNAL_SERVER_ERROR, &why);
        }
    };
    let of_pair = found.into_iter().filter(|(token, _)| token.pair == request.of);
    let reports: Vec<_> = of_pair.map(|(_, report)| report).collect();
    let event = RequestEvent::Reported { pair: request.of, reports: reports.len() };
    state.log.log(exchange.peer, event);
    exchange.sign(&ReportsResponse { nonce: request.nonce, at: now(), reports })
}

async fn respond_with_canaries(
    State(exchange): State<Exchange>,
    request: Request<Body>,
) -> Response {
    let state = &*exchange.server.0;
    let request: CanaryRequest = match exchange.read(request).await {
        Ok(request) => request,
        Err(refusal) => return refusal,
    };
    let Some(canaries) = &state.settings.canaries else {
        let why = "this vantage sends no canaries; start it with --canary-from";
        return exchange.refuse(StatusCode::FORBIDDEN, why);
    };
    // Checked before.
    let Some(domain) = request.domain() else {
        return exchange.refuse(StatusCode::FORBIDDEN, "the recipient has no domain");
    };
    if !state.sent_pairs.admit(canaries.per_day, now()) {
        let why = format!("{} pairs were sent in 24 hours, which is the limit", canaries.per_day);
        return exchange.refuse(StatusCode::TOO_MANY_REQUESTS, &why);
    }
    let (key, only_global) = (state.settings.key.hmac(), state.settings.only_global);
    let to = (request.to, &domain);
    match send(canaries, key, &state.service, to, only_global).await {
        Ok(pair) => {
            state
                .log
                .log(exchange.peer, RequestEvent::SentCanaries { domain: &domain, pair: &pair });
            exchange.sign(&CanaryResponse { nonce: request.nonce, at: now(), pair })
        }
        Err(why) => exchange.refuse(StatusCode::BAD_GATEWAY, &why),
    }
}

impl ServerState {
    fn check<R: SignedRequest>(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<R, (StatusCode, String)> {
        let no = |status, why: &str| Err((status, why.to_owned()));
        let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        let Some(signature) = signature else {
            return no(StatusCode::UNAUTHORIZED, "the request has no signature");
        };
        if !self.settings.key.verify(Role::Request, body, signature) {
            let why = "the signature is wrong: do both have the same key?";
            return no(StatusCode::UNAUTHORIZED, why);
        }
        let request: R = match serde_json::from_slice(body) {
            Ok(request) => request,
            Err(why) => {
                let why = format!("cannot parse the request: {why}; are both of the same version?");
                return no(StatusCode::BAD_REQUEST, &why);
            }
        };
        let now = now();
        let skew = (now - request.at()).max(request.at() - now);
        if skew > MAX_CLOCK_SKEW {
            let why = format!(
                "the time is {now} here and {} in the request: synchronize the clocks",
                request.at()
            );
            return no(StatusCode::UNAUTHORIZED, &why);
        }
        let nonce = self.nonces.entry(request.nonce().to_owned());
        if !nonce.or_insert(()).is_fresh() {
            return no(StatusCode::UNAUTHORIZED, "the request is a repetition");
        }
        let domain = request.domain();
        if request.needs_domain()
            && !domain.as_ref().is_some_and(|domain| self.settings.domains.contains(domain))
        {
            let domain = domain.map_or_else(|| "the recipient".to_owned(), |it| it.to_string());
            let why = format!("{domain} is not among the domains of this vantage");
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
            let large = matches!(&answer, Answer::Yes(Some(detail)) if detail == LARGE_ANSWERED);
            ProbedAddress { host, ip, answer, large }
        });
        VantageResult::Addresses(join_all(probes).await)
    }

    /// The addresses in `family` that a sender finds.
    async fn addresses(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<Vec<(DomainName, IpAddr)>, Reason> {
        let answer = |lookup| {
            let service = self.service.clone();
            async move { service.lookup(&lookup).await.answer }
        };
        let mut found = exchange_addresses(answer, domain, family).await?;
        found.truncate(MAX_ADDRESSES);
        Ok(found)
    }
}
