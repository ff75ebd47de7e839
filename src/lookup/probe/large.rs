//! Detection of path MTU black holes: a probe with a large segment.

use super::smtp_client::{ProbeError, SmtpClient};

const NOOPS: usize = 4;
const ARGUMENT: usize = 500;
/// Detail of a probe whose large segment was answered.
pub(in crate::lookup) const LARGE_ANSWERED: &str = "large segment answered";

/// Sends enough to fill a segment of any usual path MTU (1280 to 1500 bytes) and waits for all replies: then our large
/// segments arrive. In a path MTU black hole the handshake and EHLO succeed and this stalls (rule 15 of ARCHITECTURE.md). The
/// other direction is not tested: an EHLO reply is rarely large.
///
/// The segment is four NOOPs (RFC 5321 §4.1.1.9: the argument is ignored) of at most 512 bytes each, in one write, to a
/// server that offers PIPELINING. RFC 2920 §3.1 allows a NOOP only at the end of a group; servers with PIPELINING reply to
/// them nevertheless, though a strict one may reject them. No other command is long, legal and without effect. Hence only
/// with `[lookup] large_segments`. The codes of the replies do not matter.
pub(super) async fn send_large(client: &mut SmtpClient) -> Result<(), ProbeError> {
    let noop = format!("NOOP {}\r\n", "x".repeat(ARGUMENT));
    client.send(noop.repeat(NOOPS).as_bytes()).await?;
    for _ in 0..NOOPS {
        match client.read_reply().await {
            Ok(_) => {}
            // The server rejected the NOOPs, so it received them.
            Err(ProbeError::Closed | ProbeError::NotSmtp) => return Ok(()),
            Err(timed_out) => return Err(timed_out),
        }
    }
    Ok(())
}
