//! The bodies of the fuzz targets, by subject. `tests/core/fuzz_seeds.rs` runs them over the seed corpus.

#![allow(dead_code, unused_imports, reason = "each target uses one of them")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod canary;
mod capture;
mod dkim;
mod dns;
mod engine;
mod mail_log;
mod packets;
mod policy;
mod session;
mod smtp;
mod socketmap;
mod stream;
mod tls;

pub(crate) use self::canary::canary;
pub(crate) use self::dkim::dkim;
pub(crate) use self::dns::dns;
pub(crate) use self::engine::engine;
pub(crate) use self::mail_log::mail_log;
pub(crate) use self::packets::{file, wire};
pub(crate) use self::policy::policy_request;
pub(crate) use self::session::session;
pub(crate) use self::smtp::{command, data, path, reply};
pub(crate) use self::socketmap::socketmap;
pub(crate) use self::stream::stream;
pub(crate) use self::tls::tls;

/// Any octets as a capture file.
pub(crate) fn capture(input: &[u8]) {
    capture::read(input, capture::LITTLE);
}

/// `\r`, `\n` and `\0` as in Rust, for legible seeds.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (b'\\', Some(b'r')) => out.push(b'\r'),
            (b'\\', Some(b'n')) => out.push(b'\n'),
            (b'\\', Some(b'0')) => out.push(0),
            _ => {
                out.push(byte);
                continue;
            }
        }
        bytes.next();
    }
    out
}
