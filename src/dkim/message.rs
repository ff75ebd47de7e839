//! A message that streams by, from its first octet to the signatures that a key can verify.

use super::authors::MessageAuthors;
use super::body_digest::{BodyDigest, BodyHashes};
use super::canonical::Canonicalization;
use super::check::SignatureCheck;
use super::header_hash::FieldIndex;
use super::header_section::{HeaderProgress, HeaderSection};
use super::signature::{DkimSignature, RejectedSignature, names_of};

/// What is evaluated of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DkimLimits {
    /// Octets of the header section, which is kept in memory until its end.
    pub header_section: usize,
    /// Signatures, from the top.
    pub signatures: usize,
}

impl Default for DkimLimits {
    fn default() -> Self {
        Self { header_section: 256 * 1024, signatures: 10 }
    }
}

/// The header section is longer than [`DkimLimits::header_section`]: whether the message is signed is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header section is too large")]
pub struct HeaderTooLarge;

/// Takes one message.
#[derive(Debug)]
pub struct MessageVerifier {
    limits: DkimLimits,
    state: State,
}

#[derive(Debug)]
enum State {
    Header(HeaderSection),
    Body { header: SignedHeader, digests: Vec<BodyDigest> },
    TooLarge,
}

/// A message that was received in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedMessage {
    pub authors: MessageAuthors,
    /// From the top, which is where the last signer put its own.
    pub signatures: Vec<SignatureCheck>,
    /// Signatures beyond [`DkimLimits::signatures`].
    pub signatures_left_out: usize,
}

/// What is kept of the header section.
#[derive(Debug)]
struct SignedHeader {
    authors: MessageAuthors,
    signatures: Vec<Result<HashedHeader, RejectedSignature>>,
    signatures_left_out: usize,
}

#[derive(Debug)]
struct HashedHeader {
    signature: DkimSignature,
    hash: [u8; 32],
    covers_every_from: bool,
}

impl MessageVerifier {
    pub const fn new(limits: DkimLimits) -> Self {
        Self { limits, state: State::Header(HeaderSection::new(limits.header_section)) }
    }

    /// The next octets of the message, without dot-stuffing.
    pub fn write(&mut self, chunk: &[u8]) {
        let mut body = chunk;
        if let State::Header(section) = &mut self.state {
            match section.write(chunk) {
                HeaderProgress::Incomplete => return,
                HeaderProgress::TooLarge => self.state = State::TooLarge,
                HeaderProgress::Complete(length) => {
                    let header = SignedHeader::new(section, self.limits.signatures);
                    let digests = header.digests();
                    self.state = State::Body { header, digests };
                    body = chunk.get(length..).unwrap_or_default();
                }
            }
        }
        if let State::Body { digests, .. } = &mut self.state {
            for digest in digests {
                digest.write(body);
            }
        }
    }

    /// The authors, as soon as the header section is complete: early enough to look up their policies while the body comes.
    pub const fn authors(&self) -> Option<&MessageAuthors> {
        match &self.state {
            State::Body { header, .. } => Some(&header.authors),
            State::Header(_) | State::TooLarge => None,
        }
    }

    /// The signatures that need a key, likewise.
    pub fn signatures(&self) -> impl Iterator<Item = &DkimSignature> {
        let header = match &self.state {
            State::Body { header, .. } => Some(header),
            State::Header(_) | State::TooLarge => None,
        };
        let signatures = header.into_iter().flat_map(|header| &header.signatures);
        signatures.filter_map(|one| one.as_ref().ok().map(|hashed| &hashed.signature))
    }

    /// The end of the message. One that ends within its header section has an empty body.
    ///
    /// # Errors
    /// Nothing is known of the message.
    pub fn finish(self) -> Result<SignedMessage, HeaderTooLarge> {
        let (header, digests) = match self.state {
            State::TooLarge => return Err(HeaderTooLarge),
            State::Body { header, digests } => (header, digests),
            State::Header(section) => {
                let header = SignedHeader::new(&section, self.limits.signatures);
                let digests = header.digests();
                (header, digests)
            }
        };
        let bodies: Vec<(Canonicalization, BodyHashes)> =
            digests.into_iter().map(BodyDigest::finish).collect();
        let check = |signature: Result<HashedHeader, RejectedSignature>| match signature {
            Err(rejected) => Some(SignatureCheck::rejected(rejected)),
            Ok(HashedHeader { signature, hash, covers_every_from }) => {
                let of_body =
                    |(name, _): &&(Canonicalization, _)| *name == signature.body_canonicalization;
                let (_, hashes) = bodies.iter().find(of_body)?;
                let body = hashes.get(signature.body_limit)?;
                Some(SignatureCheck::new(signature, hash, body, covers_every_from))
            }
        };
        Ok(SignedMessage {
            authors: header.authors,
            signatures: header.signatures.into_iter().filter_map(check).collect(),
            signatures_left_out: header.signatures_left_out,
        })
    }
}

impl SignedHeader {
    fn new(section: &HeaderSection, max: usize) -> Self {
        let all = section.fields().filter(|field| field.is_named("DKIM-Signature"));
        let is_signed = max > 0 && all.clone().next().is_some();
        let index = FieldIndex::new(section.fields().filter(|_| is_signed));
        let from_fields = index.count(b"from");
        let signatures = all.clone().take(max).map(|field| {
            let signature = DkimSignature::parse(field.value)?;
            let names = || names_of(field.value);
            let signed = names().filter(|name| name.eq_ignore_ascii_case(b"from")).count();
            let hash = index.hash(names(), signature.header_canonicalization, field);
            Ok(HashedHeader { signature, hash, covers_every_from: signed >= from_fields })
        });
        let from = section.fields().filter(|field| field.is_named("From"));
        Self {
            authors: MessageAuthors::new(from.map(|field| field.value)),
            signatures: signatures.collect(),
            signatures_left_out: all.skip(max).count(),
        }
    }

    /// One for each canonicalisation that a signature has.
    fn digests(&self) -> Vec<BodyDigest> {
        let signatures = || self.signatures.iter().flatten().map(|hashed| &hashed.signature);
        let each = [Canonicalization::Simple, Canonicalization::Relaxed].into_iter();
        let with_limits = each.map(|name| {
            let of_it = signatures().filter(move |one| one.body_canonicalization == name);
            (name, of_it.map(|one| one.body_limit).collect::<Vec<_>>())
        });
        with_limits
            .filter(|(_, limits)| !limits.is_empty())
            .map(|(name, limits)| BodyDigest::new(name, limits))
            .collect()
    }
}
