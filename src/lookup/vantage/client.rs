//! The gateway's side.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::protocol::{
    CANARY_PATH, CanaryRequest, CanaryResponse, MAX_RESPONSE, PATH, ProbeRequest, ProbeResponse,
    REPORTS_PATH, ReportsRequest, ReportsResponse, SIGNATURE, VantageResult, VantageSettings,
};
use super::signature::{Role, SharedKey, SharedKeyError, nonce};
use crate::addr::Family;
use crate::canary::{CanaryPair, CanaryReport, PairId};
use crate::lookup::clock::now;
use crate::lookup::probe::{ConnectError, connect};
use crate::policy::facts::DomainName;

/// Two mail servers that are slow at every step.
const CANARY_TIMEOUT: Duration = Duration::from_secs(95);

/// Why a probe has no result. No variant says anything about our receive path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VantageError {
    #[error(transparent)]
    Key(#[from] SharedKeyError),
    #[error("the vantage at {0} does not accept connections: is `gatepost vantage` running there?")]
    Connect(SocketAddr),
    #[error("the vantage at {0} did not answer in time")]
    Timeout(SocketAddr),
    #[error("the vantage at {address} closed the connection: {why}")]
    Lost { address: SocketAddr, why: hyper::Error },
    #[error("the vantage at {address} refuses the request ({status}): {why}")]
    Refused { address: SocketAddr, status: StatusCode, why: String },
    #[error(
        "the server at {0} is not the vantage: its signature is missing or wrong; do both have the same key?"
    )]
    Forged(SocketAddr),
    #[error("cannot parse the vantage's response ({0}): is it of this version?")]
    Response(serde_json::Error),
    #[error("cannot read random bytes: {0}")]
    Random(io::Error),
    #[error("cannot send a request to the vantage: {0}")]
    Request(axum::http::Error),
}

/// The client of a vantage.
#[derive(Clone, Debug)]
pub struct Vantage {
    address: SocketAddr,
    key: SharedKey,
    mark: Option<u32>,
    timeout: Duration,
}

impl Vantage {
    /// Reads the key. `mark` is the firewall mark of the connections.
    ///
    /// # Errors
    /// There is no valid key.
    pub fn new(settings: &VantageSettings, mark: Option<u32>) -> Result<Self, VantageError> {
        let key = SharedKey::read(&settings.key)?;
        Ok(Self { address: settings.address, key, mark, timeout: settings.timeout })
    }

    /// Has the vantage probe the exchanges of `domain` over `family`. Takes `[vantage] timeout` at most.
    pub async fn probe(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<VantageResult, VantageError> {
        let result = timeout(self.timeout, self.request(domain, family)).await;
        result.unwrap_or(Err(VantageError::Timeout(self.address)))
    }

    async fn request(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<VantageResult, VantageError> {
        let nonce = nonce().map_err(VantageError::Random)?;
        let probe = ProbeRequest { domain: domain.clone(), family, at: now(), nonce };
        let response: ProbeResponse = self.post(PATH, &probe).await?;
        match response.nonce == probe.nonce {
            true => Ok(response.result),
            false => Err(VantageError::Forged(self.address)),
        }
    }

    /// Has the vantage send a pair of canaries to the mailbox `to`, which may take longer than a probe. Returns the pair with
    /// the replies of the mail servers.
    pub async fn send_canaries(&self, to: &str) -> Result<CanaryPair, VantageError> {
        let nonce = nonce().map_err(VantageError::Random)?;
        let request = CanaryRequest { to: to.to_owned(), at: now(), nonce };
        let response = timeout(CANARY_TIMEOUT, self.post(CANARY_PATH, &request)).await;
        let response: CanaryResponse =
            response.unwrap_or(Err(VantageError::Timeout(self.address)))?;
        match response.nonce == request.nonce {
            true => Ok(response.pair),
            false => Err(VantageError::Forged(self.address)),
        }
    }

    /// The reports about a pair that was sent to a mailbox of the vantage.
    pub async fn canary_reports(&self, of: PairId) -> Result<Vec<CanaryReport>, VantageError> {
        let nonce = nonce().map_err(VantageError::Random)?;
        let request = ReportsRequest { of, at: now(), nonce };
        let response = timeout(self.timeout, self.post(REPORTS_PATH, &request)).await;
        let response: ReportsResponse =
            response.unwrap_or(Err(VantageError::Timeout(self.address)))?;
        match response.nonce == request.nonce {
            true => Ok(response.reports),
            false => Err(VantageError::Forged(self.address)),
        }
    }

    async fn post<R: DeserializeOwned>(
        &self,
        path: &str,
        request: &impl Serialize,
    ) -> Result<R, VantageError> {
        let address = self.address;
        let bytes = serde_json::to_vec(request).map_err(VantageError::Response)?;
        let request = Request::post(path)
            .header(header::HOST, address.to_string())
            .header(SIGNATURE, self.key.sign(Role::Request, &bytes))
            .body(Body::from(bytes))
            .map_err(VantageError::Request)?;

        let stream = connect(address, self.mark, self.timeout).await;
        let stream = stream.map_err(|error| match error {
            ConnectError::NoResponse => VantageError::Timeout(address),
            _ => VantageError::Connect(address),
        })?;
        let lost = |why| VantageError::Lost { address, why };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Ends with the response, or when `sender` is dropped.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(lost)?;
        let (head, body) = response.into_parts();
        let bytes = to_bytes(Body::new(body), MAX_RESPONSE).await;
        let bytes = bytes.map_err(|_truncated_or_too_long| VantageError::Forged(address))?;
        if head.status != StatusCode::OK {
            let text: String = String::from_utf8_lossy(&bytes).trim().chars().take(300).collect();
            let why = text.escape_debug().to_string();
            return Err(VantageError::Refused { address, status: head.status, why });
        }
        let signature = head.headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        if !signature.is_some_and(|signature| self.key.verify(Role::Response, &bytes, signature)) {
            return Err(VantageError::Forged(address));
        }
        serde_json::from_slice(&bytes).map_err(VantageError::Response)
    }
}
