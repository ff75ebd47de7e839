mod authors;
mod bodies;
mod headers;
mod keys;
mod malformed;
mod properties;
mod rfc;
mod signer;

use super::{DkimLimits, DkimResult, MessageVerifier, SignedMessage};

/// Seconds of Unix time.
const NOW: u64 = 1_700_000_000;

fn read(message: &[u8]) -> SignedMessage {
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    verifier.write(message);
    verifier.finish().unwrap()
}

/// The result of the only signature.
fn verify(message: &[u8], records: &[&str]) -> DkimResult {
    let message = read(message);
    let [signature] = message.signatures.as_slice() else {
        panic!("{} signatures", message.signatures.len());
    };
    let records: Vec<Vec<u8>> = records.iter().map(|text| text.as_bytes().to_vec()).collect();
    signature.verify(&records, NOW)
}
