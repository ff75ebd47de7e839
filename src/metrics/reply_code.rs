//! Reply codes as a closed label set: an upstream cannot create series with invented codes.

/// The codes of RFC 5321, 4954 (AUTH), 3207 (STARTTLS), 7504 (521, 556), 1985 (ETRN), 2645 (453) and the registry of
/// RFC 5248 (523, 524, 525). Ascending.
const KNOWN: [(u16, &str); 41] = [
    (211, "211"),
    (214, "214"),
    (220, "220"),
    (221, "221"),
    (235, "235"),
    (250, "250"),
    (251, "251"),
    (252, "252"),
    (253, "253"),
    (334, "334"),
    (354, "354"),
    (421, "421"),
    (432, "432"),
    (450, "450"),
    (451, "451"),
    (452, "452"),
    (453, "453"),
    (454, "454"),
    (455, "455"),
    (458, "458"),
    (459, "459"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
    (521, "521"),
    (523, "523"),
    (524, "524"),
    (525, "525"),
    (530, "530"),
    (534, "534"),
    (535, "535"),
    (538, "538"),
    (550, "550"),
    (551, "551"),
    (552, "552"),
    (553, "553"),
    (554, "554"),
    (555, "555"),
    (556, "556"),
];

/// Values of the label `class`: index = first digit - 1; the last is for numbers that are no reply code.
pub(super) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// One slot for each known code, then one "other" for each class.
pub(super) const SLOTS: usize = KNOWN.len() + CLASSES.len();

/// Index into [`CLASSES`].
pub(super) const fn class(code: u16) -> usize {
    match code {
        100..=599 => (code / 100 - 1) as usize,
        _ => CLASSES.len() - 1,
    }
}

/// `(class, code)` labels of every slot, in order.
pub(super) fn labels() -> impl Iterator<Item = (&'static str, &'static str)> {
    let known = KNOWN.iter().map(|&(code, label)| (CLASSES[class(code)], label));
    known.chain(CLASSES.iter().map(|&class| (class, "other")))
}

/// The slot of `code`, always below [`SLOTS`].
pub(super) fn slot(code: u16) -> usize {
    SLOT_OF
        .get(usize::from(code))
        .map_or_else(|| KNOWN.len() + class(code), |&slot| usize::from(slot))
}

/// Computed at compile time, so that counting a reply needs no search.
static SLOT_OF: [u8; 600] = slot_table();

/// There are fewer than 256 slots and 600 codes, so no cast truncates; the test below checks it.
const fn slot_table() -> [u8; 600] {
    let mut table = [0; 600];
    let mut code = 0;
    while code < table.len() {
        table[code] = (KNOWN.len() + class(code as u16)) as u8;
        code += 1;
    }
    let mut index = 0;
    while index < KNOWN.len() {
        table[KNOWN[index].0 as usize] = index as u8;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_the_slot_of_its_labels() {
        let labels: Vec<_> = labels().collect();
        assert_eq!(labels.len(), SLOTS);
        for code in 0..=u16::MAX {
            let (class, label) = labels[slot(code)];
            let expected_class = match code {
                100..=199 => "1xx",
                200..=299 => "2xx",
                300..=399 => "3xx",
                400..=499 => "4xx",
                500..=599 => "5xx",
                _ => "other",
            };
            assert_eq!(class, expected_class, "class of {code}");
            let known = KNOWN.iter().any(|&(known, _)| known == code);
            let expected = if known { code.to_string() } else { "other".to_owned() };
            assert_eq!(label, expected, "label of {code}");
        }
    }
}
