//! Rules for the sources in `src/`: imports go downward, without circles, by unique names, in plain words (these in
//! `tests/` too).
//!
//! A scanner of `use` declarations and paths, not a parser: comments, string literals and test modules do not count.

mod circles;
mod code;
mod imports;
mod layers;
mod type_names;
mod words;
