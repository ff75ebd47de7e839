//! A restriction list of smtpd(8), such as `smtpd_recipient_restrictions`.
//!
//! Items are separated by commas or white space, and braces join what they enclose (SMTPD_ACCESS_README).

use std::ops::Range;
use std::time::Duration;

const CHECK: &str = "check_policy_service";
/// Refuse mail to other sites, unless an item before permits the client.
const GUARDS: [&str; 2] = ["reject_unauth_destination", "defer_unauth_destination"];

/// A list with the places of its items.
#[derive(Clone, Debug)]
pub(super) struct RestrictionList<'a> {
    pub(super) text: &'a str,
    items: Vec<Range<usize>>,
}

/// The item behind which Postfix evaluates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListEnd {
    Permit,
    Reject,
}

/// A `check_policy_service` with its argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PolicyCheck<'a> {
    /// The place of both.
    pub(super) range: Range<usize>,
    /// `unix:private/gatepost`, `inet:127.0.0.1:10040`
    pub(super) endpoint: &'a str,
    /// `timeout=2s`
    pub(super) attributes: Vec<&'a str>,
}

impl<'a> RestrictionList<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, items: split(text) }
    }

    fn item(&self, index: usize) -> &'a str {
        let text = self.text;
        self.items.get(index).and_then(|range| text.get(range.clone())).unwrap_or_default()
    }

    pub(super) fn items(&self) -> impl Iterator<Item = &'a str> + '_ {
        (0..self.items.len()).map(|index| self.item(index))
    }

    /// The place of the first item of these, if it is not only a warning.
    fn first(&self, names: &[&str]) -> Option<usize> {
        let is_one = |item: &str| names.iter().any(|name| item.eq_ignore_ascii_case(name));
        let is_warning = |index: usize| {
            let before = index.checked_sub(1).map(|before| self.item(before));
            before.is_some_and(|before| before.eq_ignore_ascii_case("warn_if_reject"))
        };
        let index = (0..self.items.len()).find(|&at| is_one(self.item(at)) && !is_warning(at))?;
        self.items.get(index).map(|range| range.start)
    }

    /// Where the list ends for every client.
    pub(super) fn end(&self) -> Option<(usize, ListEnd)> {
        let permit = self.first(&["permit"]).map(|at| (at, ListEnd::Permit));
        let reject = self.first(&["reject", "defer"]).map(|at| (at, ListEnd::Reject));
        permit.into_iter().chain(reject).min_by_key(|(at, _)| *at)
    }

    /// Whether mail of strangers to other sites does not pass the list.
    pub(super) fn guards(&self) -> bool {
        let end = self.end().map_or(usize::MAX, |(at, _)| at);
        self.first(&GUARDS).is_some_and(|at| at < end)
    }

    pub(super) fn policy_checks(&self) -> Vec<PolicyCheck<'a>> {
        let is_check = |item: &str| item.eq_ignore_ascii_case(CHECK);
        let pairs = self.items.windows(2).filter_map(|pair| match pair {
            [name, argument] => Some((name.clone(), argument.clone())),
            _ => None,
        });
        let text = self.text;
        let pairs = pairs.filter(|(name, _)| text.get(name.clone()).is_some_and(is_check));
        pairs
            .map(|(name, argument)| {
                let range = name.start..argument.end;
                let argument = text.get(argument).unwrap_or_default();
                let inner = argument.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
                let inner = inner.unwrap_or(argument);
                let mut parts = split(inner).into_iter().filter_map(|part| inner.get(part));
                let endpoint = parts.next().unwrap_or_default();
                PolicyCheck { range, endpoint, attributes: parts.collect() }
            })
            .collect()
    }
}

impl PolicyCheck<'_> {
    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find_map(|attribute| value_of(attribute, name))
    }
}

/// The value in `name=value` or `{ name = value }`.
pub(super) fn value_of<'a>(attribute: &'a str, name: &str) -> Option<&'a str> {
    let attribute = attribute.trim_start_matches('{').trim_end_matches('}');
    let (found, value) = attribute.split_once('=')?;
    (found.trim() == name).then(|| value.trim())
}

/// An item of a restriction list that asks.
pub(super) fn question(endpoint: &str, timeout: Duration, others: &[&str]) -> String {
    let timeout = format!("timeout={}s", timeout.as_secs());
    let parts = [endpoint, &timeout, "default_action=DUNNO"];
    let parts: Vec<&str> = parts.iter().chain(others).copied().collect();
    format!("{CHECK} {{ {} }}", parts.join(", "))
}

/// A time of Postfix: a number with a unit, seconds without.
pub(super) fn time(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "w" => 7 * 24 * 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).map(Duration::from_secs)
}

fn split(list: &str) -> Vec<Range<usize>> {
    let mut items = Vec::new();
    let (mut start, mut depth) = (None, 0_usize);
    for (at, c) in list.char_indices() {
        if depth == 0 && (c == ',' || c.is_whitespace()) {
            items.extend(start.take().map(|start| start..at));
            continue;
        }
        start = start.or(Some(at));
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    items.extend(start.map(|start| start..list.len()));
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_parsed() {
        for (text, guards, end) in [
            ("", false, None),
            ("permit_mynetworks, reject_unauth_destination", true, None),
            ("permit_mynetworks DEFER_unauth_destination", true, None),
            ("warn_if_reject reject_unauth_destination", false, None),
            ("permit, reject_unauth_destination", false, Some((0, ListEnd::Permit))),
            ("reject_unauth_destination,permit", true, Some((26, ListEnd::Permit))),
            ("permit_mynetworks, reject", false, Some((19, ListEnd::Reject))),
            ("static:{a permit}, warn_if_reject reject", false, None),
        ] {
            let list = RestrictionList::new(text);
            assert_eq!((list.guards(), list.end()), (guards, end), "{text}");
        }
    }

    #[test]
    fn checks_have_an_endpoint_and_attributes() {
        let text = "a, check_policy_service { unix:private/x, timeout=2s, { default_action = DUNNO } } \
                    Check_Policy_Service inet:[::1]:10040, b";
        let list = RestrictionList::new(text);
        let [braced, plain] = &list.policy_checks()[..] else { panic!("{list:?}") };
        assert_eq!(braced.endpoint, "unix:private/x");
        assert_eq!(braced.attribute("timeout"), Some("2s"));
        assert_eq!(braced.attribute("default_action"), Some("DUNNO"));
        assert_eq!((plain.endpoint, plain.attribute("timeout")), ("inet:[::1]:10040", None));
        assert_eq!(&text[plain.range.clone()], "Check_Policy_Service inet:[::1]:10040");
        assert!(RestrictionList::new("check_policy_service").policy_checks().is_empty());
    }

    #[test]
    fn times_have_units() {
        assert_eq!(time("2"), time("2s"));
        assert_eq!(time("2m"), Some(Duration::from_secs(120)));
        assert_eq!((time(""), time("s"), time("2x")), (None, None, None));
    }
}
