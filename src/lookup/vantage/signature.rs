//! Signing: HMAC-SHA256 (RFC 2104, RFC 4231) with a key from a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// What is signed begins with what it is: a question can never pass for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Request,
    Response,
}

impl Role {
    const fn prefix(self) -> &'static [u8] {
        match self {
            Self::Request => b"gatepost vantage 1 question\n",
            Self::Response => b"gatepost vantage 1 report\n",
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedKeyError {
    #[error("cannot read the key in {}: {why}; make one with `openssl rand -hex 32`", path.display())]
    Read { path: PathBuf, why: io::Error },
    #[error("{}: expected 64 hexadecimal digits, such as `openssl rand -hex 32` prints", path.display())]
    Form { path: PathBuf },
}

/// What only the gateway and the vantage know.
#[derive(Clone)]
pub struct SharedKey(Hmac<Sha256>);

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedKey")
    }
}

impl SharedKey {
    const OCTETS: usize = 32;

    /// Reads 64 hexadecimal digits; space around them does not count.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else.
    pub fn read(path: &Path) -> Result<Self, SharedKeyError> {
        let text = std::fs::read(path);
        let text = text.map_err(|why| SharedKeyError::Read { path: path.to_owned(), why })?;
        let octets = from_hex(text.trim_ascii()).filter(|octets| octets.len() == Self::OCTETS);
        let key = octets.and_then(|octets| Hmac::new_from_slice(&octets).ok());
        key.map(Self).ok_or_else(|| SharedKeyError::Form { path: path.to_owned() })
    }

    pub(super) fn sign(&self, role: Role, octets: &[u8]) -> String {
        hex(&self.mac(role, octets).finalize().into_bytes())
    }

    /// Whether `signature`, in hexadecimal digits, is ours; the time that it takes tells nothing.
    pub(super) fn verify(&self, role: Role, octets: &[u8], signature: &str) -> bool {
        from_hex(signature.as_bytes())
            .is_some_and(|signature| self.mac(role, octets).verify_slice(&signature).is_ok())
    }

    fn mac(&self, role: Role, octets: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(role.prefix());
        mac.update(octets);
        mac
    }
}

/// Sixteen octets that nobody can guess, in hexadecimal digits.
pub(super) fn nonce() -> io::Result<String> {
    let mut octets = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    Ok(hex(&octets))
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        let _never_fails = write!(text, "{octet:02x}");
        text
    })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let octet = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(octet).collect()).flatten()
}
