//! Detection of path MTU black holes: a probe with large segments.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::smtp_client::{ProbeError, SmtpClient, TlsProbeError};

/// Detail of a probe whose large segment was answered.
pub(in crate::lookup) const LARGE_ANSWERED: &str = "large segment answered";

/// Octets of a NOOP's argument: less than 2048, the limit of most servers.
const ARGUMENT: usize = 1500;

/// The result of [`send_large`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LargeSegment {
    /// The server refuses STARTTLS.
    NotSent,
    Answered,
    /// Answered by an alert, or by closing the connection.
    EndedByServer,
}

/// Makes the TLS handshake after STARTTLS, if the server offers it. In a path MTU black hole the TCP handshake and EHLO succeed
/// and this stalls (rule 15 of ARCHITECTURE.md): a ClientHello with a post-quantum key share fills a segment of any usual path MTU
/// (1280 to 1500 bytes), and what the server answers, its certificates, mostly does so in the other direction.
///
/// Another server receives one long NOOP, whose argument means nothing (RFC 5321 §4.1.1.9). It may refuse the length (§4.5.3.1),
/// which is an answer, too. Several commands at once would fill a segment within the limits, but servers log them as improper
/// pipelining, for which others ban.
pub(super) async fn send_large(
    client: &mut SmtpClient,
    offers_starttls: bool,
    config: Arc<ClientConfig>,
    server: IpAddr,
) -> Result<LargeSegment, ProbeError> {
    if !offers_starttls {
        return match client.command(&format!("NOOP {}", "x".repeat(ARGUMENT))).await {
            Ok(_) => Ok(LargeSegment::Answered),
            Err(ProbeError::Closed | ProbeError::NotSmtp) => Ok(LargeSegment::EndedByServer),
            Err(ProbeError::TimedOut) => Err(ProbeError::TimedOut),
        };
    }
    let reply = client.command("STARTTLS").await?;
    if reply.code != 220 {
        return Ok(LargeSegment::NotSent);
    }
    match client.start_tls(config, ServerName::IpAddress(server.into())).await {
        Ok(_) => Ok(LargeSegment::Answered),
        Err(TlsProbeError::Closed | TlsProbeError::Tls(_)) => Ok(LargeSegment::EndedByServer),
        Err(TlsProbeError::TimedOut) => Err(ProbeError::TimedOut),
    }
}
