//! Proof that mail over a family reaches us.

use serde::{Deserialize, Serialize};

use crate::humanize::{ago, counted};
use crate::label::labels;
use crate::time::Timestamp;

/// The latest proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProof {
    pub at: Timestamp,
    pub by: ProofSource,
    /// Completed sessions under TLS since the start: their messages are not known.
    #[serde(default)]
    pub under_tls: u64,
}

labels! {
    pub enum ProofSource {
        /// A message was accepted.
        Message = "message",
        /// A message arrived in full under TLS that the gateway passes through. The reply to it is not known.
        Received = "received",
        /// As [`Self::Session`], and recipients were accepted in it.
        Envelope = "envelope",
        /// A session under TLS was completed: TLS that the gateway passes through.
        Session = "session",
        /// A vantage reached us.
        Probe = "probe",
    }
}

impl PathProof {
    /// `a message was accepted 5 min ago`
    pub(super) fn text(self, now: Timestamp) -> String {
        let event = match self.by {
            ProofSource::Message => "a message was accepted".to_owned(),
            ProofSource::Received => "a message under TLS was received in full".to_owned(),
            ProofSource::Envelope => {
                "a session under TLS with accepted recipients was completed".to_owned()
            }
            ProofSource::Session if self.under_tls > 1 => {
                format!("{} under TLS, the last completed", counted(self.under_tls, "session"))
            }
            ProofSource::Session => "a session under TLS was completed".to_owned(),
            ProofSource::Probe => "a probe reached us".to_owned(),
        };
        format!("{event} {}", ago(now.since(self.at)))
    }
}
