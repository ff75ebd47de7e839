//! The Message-ID of a canary.
//!
//! `<c1.PAIR.FD.TIME.MAC@HOST>`: the pair (16 hexadecimal digits), family (`4` or `6`) and direction (`i` or `o`), the time
//! in seconds (hexadecimal), and the first half of an HMAC over all of it and the recipient. Copied to a message for another
//! recipient it is worth nothing.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::addr::Family;
use crate::hmac_key::{HmacKey, from_hex, hex};
use crate::label::labels;
use crate::time::Timestamp;

const PURPOSE: &[u8] = b"gatepost canary 1\n";
const VERSION: &str = "c1";
/// Digits of the truncated HMAC.
const MAC_DIGITS: usize = 32;
/// Octets of a whole Message-ID: what precedes the host, and the longest host.
const MAX_ID: usize = 70 + 255;
/// Age beyond which a canary does not count. Mail servers give up after 5 days, but a judgement that old concerns nobody.
pub const MAX_AGE: Duration = Duration::from_secs(2 * 24 * 3600);
/// Limit of the difference between the clocks of sender and recipient.
pub(super) const MAX_CLOCK_SKEW: Duration = Duration::from_secs(300);

labels! {
    /// Direction of canaries, as seen from the site of the gateway.
    pub enum CanaryDirection {
        Inbound = "inbound",
        Outbound = "outbound",
    }
}

/// Names the two messages that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairId([u8; 8]);

impl PairId {
    /// From random bytes.
    pub const fn new(random: [u8; 8]) -> Self {
        Self(random)
    }

    fn parse(text: &str) -> Option<Self> {
        from_hex(text.as_bytes())?.try_into().ok().map(Self)
    }
}

/// 16 hexadecimal digits.
impl fmt::Display for PairId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl Serialize for PairId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PairId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let expected = || serde::de::Error::custom("expected 16 hexadecimal digits");
        Self::parse(&text).ok_or_else(expected)
    }
}

/// One message of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryToken {
    pub pair: PairId,
    pub family: Family,
    pub direction: CanaryDirection,
    /// In whole seconds.
    pub sent: Timestamp,
}

/// Why a message is no canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotACanary {
    #[error("its Message-ID has not the form of a canary's")]
    Form,
    #[error("its Message-ID was made with another key, or for another recipient")]
    Signature,
    #[error("it is too old")]
    Expired,
    #[error("its time is in the future; synchronize the clocks")]
    Future,
}

impl CanaryToken {
    /// The Message-ID with its angle brackets. `recipient` is the mailbox of RCPT, `host` the right-hand side.
    pub fn message_id(&self, recipient: &str, host: &str, key: &HmacKey) -> String {
        let signed = self.signed_part();
        let mac = key.sign(PURPOSE, &covered(&signed, recipient));
        let mac = mac.get(..MAC_DIGITS).unwrap_or(&mac);
        format!("<{signed}.{mac}@{host}>")
    }

    /// Recognises the Message-ID of a message for `recipient`.
    ///
    /// # Errors
    /// It is of another message, forged, copied to another recipient, or not of this time.
    pub fn recognise(
        message_id: &str,
        recipient: &str,
        key: &HmacKey,
        now: Timestamp,
    ) -> Result<Self, NotACanary> {
        let (token, signed, mac) = Self::parse(message_id).ok_or(NotACanary::Form)?;
        if !key.verify_half(PURPOSE, &covered(signed, recipient), mac) {
            return Err(NotACanary::Signature);
        }
        if token.sent - now > MAX_CLOCK_SKEW {
            return Err(NotACanary::Future);
        }
        if now - token.sent > MAX_AGE {
            return Err(NotACanary::Expired);
        }
        Ok(token)
    }

    /// The pair that a Message-ID of a canary's form names, genuine or not.
    pub(super) fn pair_of(message_id: &str) -> Option<PairId> {
        Self::parse(message_id).map(|(token, _, _)| token.pair)
    }

    /// The token, its text, and its signature.
    fn parse(message_id: &str) -> Option<(Self, &str, &str)> {
        let id = message_id.trim_matches([' ', '\t', '\r', '\n']);
        if id.len() > MAX_ID {
            return None;
        }
        let (local, _host) = id.strip_prefix('<')?.strip_suffix('>')?.split_once('@')?;
        let (signed, mac) = local.rsplit_once('.')?;
        let mut parts = signed.split('.');
        let mut next = || parts.next();
        if next()? != VERSION {
            return None;
        }
        let pair = PairId::parse(next()?)?;
        let (family, direction) = match next()? {
            "4i" => (Family::Ipv4, CanaryDirection::Inbound),
            "6i" => (Family::Ipv6, CanaryDirection::Inbound),
            "4o" => (Family::Ipv4, CanaryDirection::Outbound),
            "6o" => (Family::Ipv6, CanaryDirection::Outbound),
            _ => return None,
        };
        let seconds = u64::from_str_radix(next()?, 16).ok()?;
        let sent = Timestamp::from_nanos(seconds.checked_mul(NANOS)?);
        next().is_none().then_some((Self { pair, family, direction, sent }, signed, mac))
    }

    fn signed_part(&self) -> String {
        let family = match self.family {
            Family::Ipv4 => '4',
            Family::Ipv6 => '6',
        };
        let direction = match self.direction {
            CanaryDirection::Inbound => 'i',
            CanaryDirection::Outbound => 'o',
        };
        let seconds = self.sent.as_nanos() / NANOS;
        format!("{VERSION}.{}.{family}{direction}.{seconds:x}", self.pair)
    }
}

const NANOS: u64 = 1_000_000_000;

/// The signed bytes. Neither part has a newline. Mail servers may change the case of an address.
fn covered(signed: &str, recipient: &str) -> Vec<u8> {
    format!("{signed}\n{}", recipient.to_ascii_lowercase()).into_bytes()
}
