//! Key records (RFC 6376 §3.6.1, RFC 8463 §4).

use pkcs1::RsaPublicKeyRef;
use spki::SubjectPublicKeyInfoRef;

use super::encoding::base64;
use super::tag_list::TagList;

/// Of Ed25519, in octets.
const ED25519_KEY: usize = 32;

/// A key record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DkimKey {
    /// `None` if `p=` is empty: the key is revoked.
    pub key: Option<DkimPublicKey>,
    /// `t=y`.
    pub is_testing: bool,
    /// `t=s`: the domain of `i=` must be that of `d=`.
    pub is_strict: bool,
    /// `h=` includes SHA-256, or is absent.
    pub allows_sha256: bool,
    /// `s=` includes email, or is absent.
    pub is_for_email: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DkimPublicKey {
    Rsa {
        /// An RSAPublicKey (RFC 8017 §A.1.1).
        der: Vec<u8>,
        /// Of the modulus.
        bits: u32,
    },
    Ed25519([u8; ED25519_KEY]),
}

/// Why a record is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DkimKeyError {
    /// RFC 6376 §3.6.1: such a record is discarded.
    #[error("v= is not DKIM1")]
    Version,
    #[error("a part is not tag=value, or a tag stands twice")]
    TagList,
    #[error("no p=")]
    NoKey,
    #[error("p= is not base64")]
    Base64,
    #[error("p= is not an RSA key")]
    NotRsa,
    #[error("p= has {0} octets, an Ed25519 key has 32")]
    NotEd25519(usize),
    #[error("unknown key type k={0}")]
    Type(String),
}

impl DkimKey {
    /// # Errors
    /// The first part of the record that is wrong.
    pub fn parse(record: &[u8]) -> Result<Self, DkimKeyError> {
        let tags = TagList::parse(record).map_err(|_malformed| DkimKeyError::TagList)?;
        if tags.get("v").is_some_and(|version| version != b"DKIM1") {
            return Err(DkimKeyError::Version);
        }
        let has = |name, word: &[u8]| tags.elements(name).any(|e| e.eq_ignore_ascii_case(word));
        let key_type = tags.get("k").unwrap_or(b"rsa").to_ascii_lowercase();
        let value = tags.get("p").ok_or(DkimKeyError::NoKey)?;
        let key = if value.is_empty() { None } else { Some(public_key(&key_type, value)?) };
        Ok(Self {
            key,
            is_testing: has("t", b"y"),
            is_strict: has("t", b"s"),
            allows_sha256: tags.get("h").is_none() || has("h", b"sha256"),
            is_for_email: tags.get("s").is_none() || has("s", b"email") || has("s", b"*"),
        })
    }
}

fn public_key(key_type: &[u8], value: &[u8]) -> Result<DkimPublicKey, DkimKeyError> {
    match key_type {
        b"rsa" => {
            let octets = base64(value).ok_or(DkimKeyError::Base64)?;
            rsa(&octets).ok_or(DkimKeyError::NotRsa)
        }
        b"ed25519" => {
            let octets = base64(value).ok_or(DkimKeyError::Base64)?;
            let count = octets.len();
            let key = octets.try_into();
            key.map(DkimPublicKey::Ed25519).map_err(|_octets| DkimKeyError::NotEd25519(count))
        }
        other => Err(DkimKeyError::Type(String::from_utf8_lossy(other).into_owned())),
    }
}

/// A SubjectPublicKeyInfo, or the bare RSAPublicKey of RFC 6376.
fn rsa(der: &[u8]) -> Option<DkimPublicKey> {
    let bare = SubjectPublicKeyInfoRef::try_from(der).ok();
    let bare = bare.and_then(|info| info.subject_public_key.as_bytes()).unwrap_or(der);
    let modulus = RsaPublicKeyRef::try_from(bare).ok()?.modulus;
    let bytes = modulus.as_bytes();
    let bits = u32::try_from(bytes.len()).ok()?.checked_mul(8)? - bytes.first()?.leading_zeros();
    Some(DkimPublicKey::Rsa { der: bare.to_vec(), bits })
}
