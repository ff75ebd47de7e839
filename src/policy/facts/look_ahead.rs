//! The lookups that a message's header section leads to: they run while its body comes.

use super::dmarc::{MAX_AUTHORS, TreeWalk};
use super::{Answers, DomainName, Lookup};
use crate::dkim::{DkimSignature, MessageVerifier};

/// What facts need to know of a message besides its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageNeeds {
    /// The keys of its signatures.
    pub keys: bool,
    /// The DMARC records of its authors' domains, and of those above them.
    pub policies: bool,
}

/// The lookups that a header section leads to. With them answered, [`ReceivedMessage`](super::ReceivedMessage) needs only what those answers lead to.
pub fn message_lookups(verifier: &MessageVerifier, needs: MessageNeeds) -> Vec<Lookup> {
    let keys = verifier.signatures().map(DkimSignature::key_name).filter(|_| needs.keys);
    let keys = keys.filter_map(|name| DomainName::parse(&name)).map(Lookup::Texts);
    let authors = verifier.authors().into_iter().flat_map(|authors| &authors.domains);
    let authors = authors.filter(|_| needs.policies).take(MAX_AUTHORS);
    let policies = authors
        .filter_map(|domain| TreeWalk::new(&DomainName::parse(domain)?, &Answers::default()).err());
    keys.chain(policies.flatten()).collect()
}
