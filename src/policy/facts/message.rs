//! A message as facts about its authors and signatures take it.

use crate::dkim::{HeaderTooLarge, SignedMessage};
use crate::time::Timestamp;

/// A message that was received in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    pub content: Result<SignedMessage, HeaderTooLarge>,
    /// The end of data: signatures may have expired since.
    pub at: Timestamp,
}
