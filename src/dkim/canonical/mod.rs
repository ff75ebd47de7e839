//! The two canonicalisations, of fields and of bodies (RFC 6376 §3.4).

mod body;
mod header;

pub(super) use body::BodyCanonicalizer;
pub(super) use header::write_field;

/// An algorithm of `c=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Canonicalization {
    Simple,
    Relaxed,
}

impl Canonicalization {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Relaxed => "relaxed",
        }
    }
}
