//! What a prober elsewhere said of each family, one after the other.

use crate::policy::door::ProbeResults;
use crate::time::Timestamp;

/// What a prober elsewhere found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::app) enum ProbeResult {
    /// Octets crossed both ways.
    Reached,
    /// Why it did not, for people.
    NotReached(String),
    /// It could not be asked, or does not know.
    Unknown,
}

/// `result` came at `at`, after `before`.
pub(super) fn add(
    before: Option<ProbeResults>,
    result: ProbeResult,
    at: Timestamp,
) -> Option<ProbeResults> {
    let (reached, detail) = match result {
        ProbeResult::Reached => (true, None),
        ProbeResult::NotReached(why) => (false, Some(why)),
        ProbeResult::Unknown => return before,
    };
    let same = before.as_ref().filter(|before| before.reached == reached);
    let in_a_row = same.map_or(1, |before| before.in_a_row.saturating_add(1));
    let last_reached =
        if reached { Some(at) } else { before.and_then(|before| before.last_reached) };
    Some(ProbeResults { last: at, reached, in_a_row, last_reached, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_counted_in_a_row_and_none_is_none() {
        let at = Timestamp::from_nanos;
        let failed = || ProbeResult::NotReached("silent".to_owned());
        let mut probes = add(None, ProbeResult::Unknown, at(1));
        assert_eq!(probes, None);
        for (result, nanos) in
            [(ProbeResult::Reached, 2), (failed(), 3), (ProbeResult::Unknown, 4), (failed(), 5)]
        {
            probes = add(probes, result, at(nanos));
        }
        let expected = ProbeResults {
            last: at(5),
            reached: false,
            in_a_row: 2,
            last_reached: Some(at(2)),
            detail: Some("silent".to_owned()),
        };
        assert_eq!(probes, Some(expected));
    }
}
