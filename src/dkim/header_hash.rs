//! The header hash of a signature (RFC 6376 §3.7, §5.4.2).

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use super::canonical::{Canonicalization, write_field};
use super::header_section::HeaderField;

/// The fields of a message by name.
pub(super) struct FieldIndex<'a> {
    /// Names in lower case; fields from top to bottom.
    fields: HashMap<Vec<u8>, Vec<HeaderField<'a>>>,
}

impl<'a> FieldIndex<'a> {
    pub(super) fn new(fields: impl Iterator<Item = HeaderField<'a>>) -> Self {
        let mut index: HashMap<Vec<u8>, Vec<HeaderField<'a>>> = HashMap::new();
        for field in fields {
            index.entry(field.name.to_ascii_lowercase()).or_default().push(field);
        }
        Self { fields: index }
    }

    /// How many fields have this name, in lower case.
    pub(super) fn count(&self, name: &[u8]) -> usize {
        self.fields.get(name).map_or(0, Vec::len)
    }

    /// The SHA-256 of the fields that `names` lists, from the bottom up for each name, and of the signature itself without
    /// the value of its `b=`. A name without a field that is left stands for nothing.
    pub(super) fn hash<'n>(
        &self,
        names: impl Iterator<Item = &'n [u8]>,
        canonicalization: Canonicalization,
        signature: HeaderField<'_>,
    ) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut taken: HashMap<Vec<u8>, usize> = HashMap::new();
        for name in names {
            let name = name.to_ascii_lowercase();
            let Some(fields) = self.fields.get(&name) else { continue };
            let taken = taken.entry(name).or_default();
            let from_bottom = fields.len().checked_sub(1 + *taken);
            if let Some(field) = from_bottom.and_then(|at| fields.get(at)) {
                *taken += 1;
                write_field(canonicalization, *field, &mut |bytes| hash.update(bytes));
                hash.update(b"\r\n");
            }
        }
        let value = without_signature(signature.value);
        let unsigned = HeaderField { value: &value, ..signature };
        write_field(canonicalization, unsigned, &mut |bytes| hash.update(bytes));
        hash.finalize().into()
    }
}

/// The value of the field with that of its `b=` tag deleted, white space around it included (RFC 6376 §3.5).
fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    for part in value.split_inclusive(|byte| *byte == b';') {
        let equals = part.iter().position(|byte| *byte == b'=');
        match equals.and_then(|at| Some((part.get(..at)?, part.get(..=at)?))) {
            Some((name, with_equals)) if name.trim_ascii() == b"b" => {
                kept.extend_from_slice(with_equals);
                kept.extend(part.last().filter(|last| **last == b';'));
            }
            _ => kept.extend_from_slice(part),
        }
    }
    kept
}
