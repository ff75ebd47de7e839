//! A message as facts about its authors and signatures take it.

use super::{DomainName, Lookup};
use crate::dkim::{DkimSignature, HeaderTooLarge, MessageVerifier, SignedMessage};
use crate::time::Timestamp;

/// A message that was received in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedMessage {
    pub content: Result<SignedMessage, HeaderTooLarge>,
    /// The end of data: signatures may have expired since.
    pub at: Timestamp,
}

/// The lookups that a header section leads to: the keys of the signatures and the policies of the authors' domains. With them
/// answered, [`ReceivedMessage`] needs only what those answers lead to.
pub fn message_lookups(verifier: &MessageVerifier) -> Vec<Lookup> {
    let keys = verifier.signatures().map(DkimSignature::key_name);
    let authors = verifier.authors().into_iter().flat_map(|authors| &authors.domains);
    let policies = authors.map(|domain| format!("_dmarc.{domain}"));
    let names = keys.chain(policies).filter_map(|name| DomainName::parse(&name));
    names.map(Lookup::Texts).collect()
}
