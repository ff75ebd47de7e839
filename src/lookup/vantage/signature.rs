//! Signatures: HMAC-SHA256 (RFC 2104, RFC 4231) with a key from a file.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// Part of the signed data, so that a request never passes for a response.
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
    #[error("cannot read the key in {}: {why}; create one with `openssl rand -hex 32`", path.display())]
    Read { path: PathBuf, why: io::Error },
    #[error("{}: expected 64 hexadecimal digits, such as `openssl rand -hex 32` prints", path.display())]
    Form { path: PathBuf },
}

/// The key of a gateway and its vantage.
#[derive(Clone)]
pub struct SharedKey(Hmac<Sha256>);

impl std::fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SharedKey")
    }
}

impl SharedKey {
    const BYTES: usize = 32;

    /// Reads 64 hexadecimal digits; surrounding white space is ignored.
    ///
    /// # Errors
    /// The file cannot be read, or has other content.
    pub fn read(path: &Path) -> Result<Self, SharedKeyError> {
        let text = std::fs::read(path);
        let text = text.map_err(|why| SharedKeyError::Read { path: path.to_owned(), why })?;
        let bytes = from_hex(text.trim_ascii()).filter(|bytes| bytes.len() == Self::BYTES);
        let key = bytes.and_then(|bytes| Hmac::new_from_slice(&bytes).ok());
        key.map(Self).ok_or_else(|| SharedKeyError::Form { path: path.to_owned() })
    }

    pub(super) fn sign(&self, role: Role, bytes: &[u8]) -> String {
        hex(&self.mac(role, bytes).finalize().into_bytes())
    }

    /// Whether `signature`, in hexadecimal digits, is valid; compares in constant time.
    pub(super) fn verify(&self, role: Role, bytes: &[u8], signature: &str) -> bool {
        from_hex(signature.as_bytes())
            .is_some_and(|signature| self.mac(role, bytes).verify_slice(&signature).is_ok())
    }

    fn mac(&self, role: Role, bytes: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(role.prefix());
        mac.update(bytes);
        mac
    }
}

/// 16 random bytes in hexadecimal digits.
pub(super) fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _never_fails = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(byte).collect()).flatten()
}
