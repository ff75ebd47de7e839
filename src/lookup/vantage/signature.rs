//! Signatures with a key from a file.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use crate::hmac_key::{HmacKey, hex};

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
#[derive(Clone, Debug)]
pub struct SharedKey(HmacKey);

impl SharedKey {
    /// Reads 64 hexadecimal digits; surrounding white space is ignored.
    ///
    /// # Errors
    /// The file cannot be read, or has other content.
    pub fn read(path: &Path) -> Result<Self, SharedKeyError> {
        let text = std::fs::read(path);
        let text = text.map_err(|why| SharedKeyError::Read { path: path.to_owned(), why })?;
        let key = HmacKey::parse(&text);
        key.map(Self).ok_or_else(|| SharedKeyError::Form { path: path.to_owned() })
    }

    /// For other purposes than the requests of a vantage.
    pub const fn hmac(&self) -> &HmacKey {
        &self.0
    }

    pub(super) fn sign(&self, role: Role, bytes: &[u8]) -> String {
        self.0.sign(role.prefix(), bytes)
    }

    /// Whether `signature`, in hexadecimal digits, is valid; compares in constant time.
    pub(super) fn verify(&self, role: Role, bytes: &[u8], signature: &str) -> bool {
        self.0.verify(role.prefix(), bytes, signature)
    }
}

/// 16 random bytes in hexadecimal digits.
pub(super) fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}
