//! The gateway's side: asking, and believing only what is signed.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode, header};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use super::signature::{Role, nonce};
use super::{
    MAX_RESPONSE, PATH, ProbeRequest, ProbeResponse, SIGNATURE, SharedKey, SharedKeyError,
    VantageResult, VantageSettings,
};
use crate::addr::Family;
use crate::lookup::now;
use crate::lookup::probe::{Missed, connect};
use crate::policy::facts::DomainName;

/// Why the vantage told nothing. None of these says anything of our own receive path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VantageError {
    #[error(transparent)]
    SharedKey(#[from] SharedKeyError),
    #[error("the vantage at {0} takes no connection: is `gatepost vantage` running there?")]
    Connect(SocketAddr),
    #[error("the vantage at {0} did not answer in time")]
    Timeout(SocketAddr),
    #[error("the vantage at {address} hung up: {why}")]
    Lost { address: SocketAddr, why: hyper::Error },
    #[error("the vantage at {address} refuses ({status}): {why}")]
    Refused { address: SocketAddr, status: StatusCode, why: String },
    #[error(
        "what answers at {0} is not the vantage: the signature is missing or wrong; have both the same key?"
    )]
    Forged(SocketAddr),
    #[error("the vantage's report cannot be read ({0}): is it of this version?")]
    Report(serde_json::Error),
    #[error("cannot read random octets: {0}")]
    Random(io::Error),
    #[error("cannot ask the vantage: {0}")]
    Request(axum::http::Error),
}

/// Somebody on another network who calls us when we ask.
#[derive(Clone, Debug)]
pub struct Vantage {
    address: SocketAddr,
    key: SharedKey,
    mark: Option<u32>,
    patience: Duration,
}

impl Vantage {
    /// Reads the key. `mark` is the firewall mark of what we connect.
    ///
    /// # Errors
    /// There is no key.
    pub fn new(settings: &VantageSettings, mark: Option<u32>) -> Result<Self, VantageError> {
        let key = SharedKey::read(&settings.key)?;
        Ok(Self { address: settings.address, key, mark, patience: settings.timeout })
    }

    /// What it sees of the exchanges of `domain` over `family`, now. Takes no longer than `[vantage] timeout`.
    ///
    /// # Errors
    /// Why it told nothing.
    pub async fn probe(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<VantageResult, VantageError> {
        let asking = timeout(self.patience, self.ask(domain, family)).await;
        asking.unwrap_or(Err(VantageError::Timeout(self.address)))
    }

    async fn ask(
        &self,
        domain: &DomainName,
        family: Family,
    ) -> Result<VantageResult, VantageError> {
        let address = self.address;
        let nonce = nonce().map_err(VantageError::Random)?;
        let question = ProbeRequest { domain: domain.clone(), family, at: now(), nonce };
        let octets = serde_json::to_vec(&question).map_err(VantageError::Report)?;
        let request = Request::post(PATH)
            .header(header::HOST, address.to_string())
            .header(SIGNATURE, self.key.sign(Role::Request, &octets))
            .body(Body::from(octets))
            .map_err(VantageError::Request)?;

        let stream = connect(address, self.mark, self.patience).await;
        let stream = stream.map_err(|missed| match missed {
            Missed::Silent => VantageError::Timeout(address),
            _ => VantageError::Connect(address),
        })?;
        let lost = |why| VantageError::Lost { address, why };
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // Ends with the response, or with `sender`.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(lost)?;
        let (head, body) = response.into_parts();
        let octets = to_bytes(Body::new(body), MAX_RESPONSE).await;
        let octets = octets.map_err(|_cut_off_or_endless| VantageError::Forged(address))?;
        if head.status != StatusCode::OK {
            let said: String = String::from_utf8_lossy(&octets).trim().chars().take(300).collect();
            let why = said.escape_debug().to_string();
            return Err(VantageError::Refused { address, status: head.status, why });
        }
        let signature = head.headers.get(SIGNATURE).and_then(|value| value.to_str().ok());
        if !signature.is_some_and(|signature| self.key.verify(Role::Response, &octets, signature)) {
            return Err(VantageError::Forged(address));
        }
        let report: ProbeResponse =
            serde_json::from_slice(&octets).map_err(VantageError::Report)?;
        if report.nonce != question.nonce {
            return Err(VantageError::Forged(address));
        }
        Ok(report.found)
    }
}
