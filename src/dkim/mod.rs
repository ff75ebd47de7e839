//! DKIM: verification of the signatures of a message that streams by, and the domains of its From field.
//!
//! Layer 1: no lookup and no clock. RFC 6376, with 8301 (rsa-sha1 and short keys are not accepted), 8463 (Ed25519) and 8616
//! (U-labels); results have the words of RFC 8601 §2.7.1. Memory does not depend on the size of the message: the header
//! section is kept until its end, up to [`DkimLimits::header_section`], and of the body only the state of at most two hashes.
//!
//! The input is the message as it was before dot-stuffing, in chunks of any size. Line ends are read as by most verifiers,
//! since signers that meet a bare newline disagree:
//! - CRLF and a bare LF end a line, and both are hashed as CRLF. The header section ends at the first empty line.
//! - A bare CR is an octet like others, also for "relaxed": it is no white space and ends no line.
//! - A last line without line end is hashed with CRLF.
//!
//! A line of the header section that is neither a field nor the continuation of one belongs to no field and is not hashed.

#![warn(clippy::indexing_slicing)]

mod authors;
mod body_digest;
mod canonical;
mod check;
mod domain;
mod encoding;
mod header_hash;
mod header_section;
mod key;
mod message;
mod outcome;
mod signature;
mod tag_list;

pub use authors::MessageAuthors;
pub use canonical::Canonicalization;
pub use check::SignatureCheck;
pub use header_section::{HeaderField, HeaderFields, HeaderProgress, HeaderSection};
pub use key::{DkimKey, DkimKeyError, DkimPublicKey};
pub use message::{DkimLimits, HeaderTooLarge, MessageVerifier, SignedMessage};
pub use outcome::{DkimOutcome, DkimReason, DkimResult};
pub use signature::{DkimAlgorithm, DkimSignature, RejectedSignature};
pub(crate) use tag_list::{malformed_tags, tags, value};

#[cfg(test)]
mod tests;
