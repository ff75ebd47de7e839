//! The vantage's side: who may ask what, and the calls.

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

use super::signature::Role;
use super::{
    MAX_CLOCK_SKEW, PATH, ProbeRequest, ProbeResponse, ProbedAddress, SIGNATURE, SharedKey,
    VantageResult,
};
use crate::addr::{Family, is_global};
use crate::lookup::{LookupService, now};
use crate::policy::facts::{Answer, DnsRecord, DomainName, Lookup, MAX_EXCHANGES, Reason};

/// Octets of a question.
const MAX_REQUEST: usize = 4096;
/// Addresses that are called for one question.
const MAX_ADDRESSES: usize = 20;
/// Nonces that are remembered; the rate keeps them below it.
const NONCES: u64 = 1_000_000;
const CONNECTIONS: usize = 64;
const HEAD: Duration = Duration::from_secs(5);
const CONNECTION: Duration = Duration::from_secs(60);

/// Who may ask what.
#[derive(Clone, Debug)]
pub struct VantageServerSettings {
    pub key: SharedKey,
    /// Only about these.
    pub domains: BTreeSet<DomainName>,
    pub requests_per_minute: NonZeroU32,
    /// Call only addresses of the Internet; false in tests.
    pub only_global: bool,
}

/// What answers questions; clones share everything.
#[derive(Clone)]
pub struct VantageServer(Arc<Desk>);

struct Desk {
    rules: VantageServerSettings,
    service: LookupService,
    rate: DefaultDirectRateLimiter,
    /// Those of questions whose time would still do.
    nonces: Cache<String, ()>,
}

impl VantageServer {
    /// Calls by `lookup`, which should keep nothing for long: each question is about now.
    pub fn new(rules: VantageServerSettings, service: LookupService) -> Self {
        let rate = RateLimiter::direct(Quota::per_minute(rules.requests_per_minute));
        let nonces = Cache::builder().eviction_policy(EvictionPolicy::lru());
        let nonces = nonces.max_capacity(NONCES).time_to_live(MAX_CLOCK_SKEW * 2).build();
        Self(Arc::new(Desk { rules, service, rate, nonces }))
    }
}

/// Serves `listener` until it is dropped.
pub async fn serve(listener: TcpListener, prober: VantageServer) -> Infallible {
    let router = Router::new()
        .route(PATH, post(answer).with_state(prober))
        .fallback(async || refuse(StatusCode::NOT_FOUND, "not found; the path is /probe"))
        .method_not_allowed_fallback(async || {
            refuse(StatusCode::METHOD_NOT_ALLOWED, "method not allowed; ask with POST")
        })
        .layer(DefaultBodyLimit::max(MAX_REQUEST));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS {
            connections.join_next().await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, router.clone()))),
            // Out of descriptors, or the peer has gone: either passes.
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn connection(stream: TcpStream, router: Router) {
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .header_read_timeout(HEAD)
        .max_buf_size(8192)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // What went wrong with one question is the asker's to tell.
    let _ = timeout(CONNECTION, serving).await;
}

fn refuse(status: StatusCode, why: &str) -> Response {
    (status, format!("{why}\n")).into_response()
}

/// Whoever has no key learns nothing but that.
async fn answer(State(prober): State<VantageServer>, headers: HeaderMap, body: Bytes) -> Response {
    let desk = &*prober.0;
    let question = match desk.admit(&headers, &body) {
        Ok(question) => question,
        Err((status, why)) => return refuse(status, &why),
    };
    let found = desk.find(&question.domain, question.family).await;
    let report = ProbeResponse { nonce: question.nonce, at: now(), found };
    match serde_json::to_vec(&report) {
        Ok(octets) => {
            let signature = desk.rules.key.sign(Role::Response, &octets);
            ([(SIGNATURE, signature)], octets).into_response()
        }
        Err(why) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &why.to_string()),
    }
}

impl Desk {
    fn admit(
        &self,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<ProbeRequest, (StatusCode, String)> {
        let no = |status, why: &str| Err((status, why.to_owned()));
        let signature = headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        let Some(signature) = signature else {
            return no(StatusCode::UNAUTHORIZED, "there is no signature");
        };
        if !self.rules.key.verify(Role::Request, body, signature) {
            return no(StatusCode::UNAUTHORIZED, "the signature is wrong: have both the same key?");
        }
        let question: ProbeRequest = match serde_json::from_slice(body) {
            Ok(question) => question,
            Err(why) => {
                let why =
                    format!("the question is not understood: {why}; are both of one version?");
                return no(StatusCode::BAD_REQUEST, &why);
            }
        };
        let now = now();
        let skew = (now - question.at).max(question.at - now);
        if skew > MAX_CLOCK_SKEW {
            let why = format!(
                "it is {now} here, and the question is of {}: set the clocks right",
                question.at
            );
            return no(StatusCode::UNAUTHORIZED, &why);
        }
        let nonce = self.nonces.entry(question.nonce.clone());
        if !nonce.or_insert(()).is_fresh() {
            return no(StatusCode::UNAUTHORIZED, "that was asked before");
        }
        if !self.rules.domains.contains(&question.domain) {
            let why = format!("{} is none of the domains that I probe", question.domain);
            return no(StatusCode::FORBIDDEN, &why);
        }
        if self.rate.check().is_err() {
            return no(StatusCode::TOO_MANY_REQUESTS, "too many questions; wait a minute");
        }
        Ok(question)
    }

    async fn find(&self, domain: &DomainName, family: Family) -> VantageResult {
        let addresses = match self.addresses(domain, family).await {
            Ok(addresses) => addresses,
            Err(reason) => return VantageResult::Unknown(reason),
        };
        let calls = addresses.into_iter().map(async |(host, ip)| {
            let answer = if is_global(ip) || !self.rules.only_global {
                self.service.lookup(&Lookup::Greet(ip)).await.answer
            } else {
                Answer::No(Reason::NoUsableAddress, None)
            };
            ProbedAddress { host, ip, answer }
        });
        VantageResult::Addresses(join_all(calls).await)
    }

    /// As a sender finds them (RFC 5321 §5.1), of one family. If some hosts are known and some are not, the known ones do.
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
            let answered = self.service.lookup(&Lookup::Addresses(host.clone(), family)).await;
            (host, answered.answer)
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
