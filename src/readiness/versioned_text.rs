//! TXT records that begin with a version: MTA-STS (RFC 8461 §3.1) and TLSRPT (RFC 8460 §3).

/// The record among the TXT records of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VersionedText {
    Missing,
    One(String),
    Several(usize),
    /// None has the version, and this one was meant to.
    Misspelt(String),
}

impl VersionedText {
    /// `version` is such as `STSv1`. `first_tag` is that of a record whose version was forgotten. Senders discard every other
    /// text.
    pub(super) fn find(texts: &[&[u8]], version: &str, first_tag: &str) -> Self {
        let start = format!("v={version};");
        let owned = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
        let (records, others): (Vec<&[u8]>, Vec<&[u8]>) =
            texts.iter().partition(|text| text.starts_with(start.as_bytes()));
        match records.as_slice() {
            [one] => return Self::One(owned(one)),
            [] => {}
            several => return Self::Several(several.len()),
        }
        let meant = format!("v{}", version.trim_end_matches("v1")).to_ascii_lowercase();
        let is_meant = |text: &&[u8]| {
            let letters = text.iter().filter(|octet| octet.is_ascii_alphanumeric());
            let start: Vec<u8> = letters.take(meant.len()).map(u8::to_ascii_lowercase).collect();
            start == meant.as_bytes() || text.starts_with(format!("{first_tag}=").as_bytes())
        };
        match others.into_iter().find(is_meant) {
            Some(text) => Self::Misspelt(owned(text)),
            None => Self::Missing,
        }
    }
}

/// The fields after the version: `name=value`, separated by semicolons.
///
/// # Errors
/// The part that is no field.
pub(super) fn fields(record: &str) -> Result<Vec<(&str, &str)>, &str> {
    let rest = record.split_once(';').map(|(_, rest)| rest).unwrap_or_default();
    let rest = rest.trim_end_matches([' ', '\t']);
    let rest = rest.strip_suffix(';').unwrap_or(rest);
    if rest.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parts = rest.split(';').map(|part| part.trim_matches([' ', '\t']));
    parts
        .map(|part| part.split_once('=').filter(|(name, _)| is_field_name(name)).ok_or(part))
        .collect()
}

/// `sts-ext-name` of RFC 8461 §3.1, which RFC 8460 has, too.
pub(super) fn is_field_name(name: &str) -> bool {
    let is_first = |octet: &u8| octet.is_ascii_alphanumeric();
    let is_later = |octet: &u8| is_first(octet) || matches!(octet, b'_' | b'-' | b'.');
    name.len() <= 32
        && name.as_bytes().first().is_some_and(is_first)
        && name.as_bytes().iter().all(is_later)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_with_the_version_counts() {
        let find = |texts: &[&str]| {
            let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            VersionedText::find(&texts, "STSv1", "id")
        };
        let one = |text: &str| VersionedText::One(text.to_owned());
        let misspelt = |text: &str| VersionedText::Misspelt(text.to_owned());
        assert_eq!(find(&[]), VersionedText::Missing);
        assert_eq!(find(&["v=spf1 -all", "hello"]), VersionedText::Missing);
        assert_eq!(find(&["v=STSv1; id=1", "v=spf1 -all"]), one("v=STSv1; id=1"));
        assert_eq!(find(&["v=STSv1;id=1", "v=stsv1; id=2"]), one("v=STSv1;id=1"));
        assert_eq!(find(&["v=STSv1; id=1", "v=STSv1; id=2"]), VersionedText::Several(2));
        for text in
            ["v=stsv1; id=1", "\"v=STSv1; id=1\"", "v = STSv1; id=1", "v=STSv2; id=1", "id=1"]
        {
            assert_eq!(find(&[text]), misspelt(text));
        }
    }

    #[test]
    fn fields_have_a_name_and_a_value() {
        for (record, expected) in [
            ("v=STSv1;", Ok(vec![])),
            ("v=STSv1; id=1;", Ok(vec![("id", "1")])),
            ("v=STSv1 ;id=1 ; x=a b", Ok(vec![("id", "1"), ("x", "a b")])),
            ("v=STSv1; id", Err("id")),
            ("v=STSv1; id=1;; x=2", Err("")),
            ("v=STSv1; id =1", Err("id =1")),
            ("v=STSv1; =1", Err("=1")),
        ] {
            assert_eq!(fields(record), expected, "{record}");
        }
    }
}
