//! TOML to a checked [`Config`](super::Config), telling every mistake at once.

/// One mistake: where, what was found, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake;

/// All mistakes of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors;
