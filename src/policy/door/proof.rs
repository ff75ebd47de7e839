//! Proof that mail over a family reaches us.

use serde::{Deserialize, Serialize};

use crate::humanize::ago;
use crate::label::labels;
use crate::time::Timestamp;

/// The latest proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProof {
    pub at: Timestamp,
    pub by: ProofSource,
}

labels! {
    pub enum ProofSource {
        /// A message was accepted.
        Message = "message",
        /// An encrypted session was completed: TLS that the gateway passes through.
        Session = "session",
        /// A vantage reached us.
        Probe = "probe",
    }
}

impl PathProof {
    /// `a message was accepted 5 min ago`
    pub(super) fn text(self, now: Timestamp) -> String {
        let event = match self.by {
            ProofSource::Message => "a message was accepted",
            ProofSource::Session => "an encrypted session was completed",
            ProofSource::Probe => "a probe reached us",
        };
        format!("{event} {}", ago(now.since(self.at)))
    }
}
