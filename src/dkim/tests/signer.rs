//! Signs messages for the tests, with parts of the verifier: what these compute is compared with other implementations
//! elsewhere.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use data_encoding::BASE64;

use crate::dkim::Canonicalization;
use crate::dkim::body_digest::BodyDigest;
use crate::dkim::header_hash::FieldIndex;
use crate::dkim::header_section::{HeaderProgress, HeaderSection};
use crate::dkim::signature::names_of;

pub(super) const FIELDS: &str = "From: a@a.example\r\nTo: b@b.example\r\nSubject: x\r\n";
pub(super) const BODY: &str = "Hello.\r\n";

fn key_pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

/// The key record, with other tags before `p=`.
pub(super) fn key(tags: &str) -> String {
    let key = BASE64.encode(key_pair().public_key().as_ref());
    format!("{tags}k=ed25519; p={key}")
}

/// Tags of a signature that is valid once `bh=` and `b=` are added.
pub(super) const TAGS: &str =
    "v=1; a=ed25519-sha256; c=relaxed/relaxed; d=a.example; s=sel; h=from:to";

/// The message with a field of these tags, to which `bh=` and `b=` are added.
pub(super) fn signed(tags: &str, fields: &str, body: &str) -> Vec<u8> {
    let (name, limit) = (Canonicalization::Relaxed, tags.split("l=").nth(1));
    let limit = limit.map(|rest| rest.split(';').next().unwrap().trim().parse().unwrap());
    let mut digest = BodyDigest::new(name, vec![limit]);
    digest.write(body.as_bytes());
    let (_, hashes) = digest.finish();
    let body_hash = BASE64.encode(&hashes.get(limit).unwrap().sha256);
    signed_with_body_hash(&format!("{tags}; bh={body_hash}"), fields, body)
}

/// The same with a `bh=` among the tags.
pub(super) fn signed_with_body_hash(tags: &str, fields: &str, body: &str) -> Vec<u8> {
    let message = |signature: &str| {
        format!("DKIM-Signature: {tags}; b={signature}\r\n{fields}\r\n{body}").into_bytes()
    };
    let hash = header_hash(&message(""));
    message(&BASE64.encode(key_pair().sign(&hash).as_ref())).clone()
}

/// The hash under "relaxed" of the first field, a signature, and the fields that it lists.
fn header_hash(message: &[u8]) -> [u8; 32] {
    let mut section = HeaderSection::new(1 << 20);
    assert!(matches!(section.write(message), HeaderProgress::Complete(_)));
    let signature = section.fields().next().unwrap();
    let index = FieldIndex::new(section.fields());
    index.hash(names_of(signature.value), Canonicalization::Relaxed, signature)
}

/// SHA-256 in base64.
pub(super) fn base64_hash(bytes: &[u8]) -> String {
    BASE64.encode(digest(&SHA256, bytes).as_ref())
}
