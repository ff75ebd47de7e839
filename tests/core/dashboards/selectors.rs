//! The series selectors in a PromQL expression, found by the names of their metrics.

/// One `name{matchers}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector {
    pub(super) metric: String,
    pub(super) matchers: Vec<Matcher>,
}

/// One `label<operator>"value"`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Matcher {
    pub(super) label: String,
    pub(super) operator: String,
    pub(super) value: String,
}

impl Selector {
    /// Every selector that must have series for this one to be correct: one for each alternative of `=~` and `!~`, and for the
    /// value that `!=` excludes, which a wrong name would not exclude.
    pub(super) fn alternatives(&self) -> Vec<String> {
        let mut alternatives = vec![Vec::new()];
        for Matcher { label, operator, value } in &self.matchers {
            let is_pattern = operator.ends_with('~');
            let values: Vec<&str> =
                if is_pattern { value.split('|').collect() } else { vec![value.as_str()] };
            let with = |so_far: &Vec<String>, value: &&str| {
                let operator = if is_pattern { "=~" } else { "=" };
                [so_far.as_slice(), &[format!("{label}{operator}\"{value}\"")]].concat()
            };
            alternatives = alternatives
                .iter()
                .flat_map(|so_far| values.iter().map(move |value| with(so_far, value)))
                .collect();
        }
        alternatives
            .iter()
            .map(|matchers| format!("{}{{{}}}", self.metric, matchers.join(", ")))
            .collect()
    }
}

/// Positions of metric names: ours, the process's, `up`, and recorded series.
pub(super) fn names(expr: &str) -> Vec<(usize, usize)> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut found = Vec::new();
    let mut at = 0;
    let mut in_string = false;
    while let Some(c) = expr[at..].chars().next() {
        if c == '"' {
            in_string = !in_string;
        }
        if in_string || !is_part(c) {
            at += c.len_utf8();
            continue;
        }
        let word = &expr[at..];
        let end = at + word.find(|c| !is_part(c)).unwrap_or(word.len());
        let name = &expr[at..end];
        let ours = ["gatepost_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        if ours || name == "up" || name.contains(":gatepost_") {
            found.push((at, end));
        }
        at = end;
    }
    found
}

/// Every selector, in order.
pub(super) fn selectors(expr: &str) -> Vec<Selector> {
    names(expr)
        .into_iter()
        .map(|(at, end)| {
            let matchers = expr[end..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
            let matchers = matchers.map_or("", |(matchers, _)| matchers);
            let metric = expr[at..end].to_owned();
            Selector { metric, matchers: split(matchers).into_iter().map(matcher).collect() }
        })
        .collect()
}

/// Splits at commas outside strings.
fn split(matchers: &str) -> Vec<&str> {
    let mut in_string = false;
    let parts = matchers.split(|c| {
        in_string ^= c == '"';
        c == ',' && !in_string
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn matcher(text: &str) -> Matcher {
    let (head, value) = text.split_once('"').expect(text);
    let at = head.find(['=', '!']).expect(text);
    Matcher {
        label: head[..at].trim().to_owned(),
        operator: head[at..].trim().to_owned(),
        value: value.trim_end_matches('"').to_owned(),
    }
}

#[test]
fn selectors_are_found() {
    let expr =
        r#"sum by (up_to) (rate(gatepost_a_total{x=~"b|c", y!="d,"}[5m])) / up > "gatepost_no""#;
    let found = selectors(expr);
    assert_eq!(found.len(), 2, "{found:?}");
    let expected = [r#"gatepost_a_total{x=~"b", y="d,"}"#, r#"gatepost_a_total{x=~"c", y="d,"}"#];
    assert_eq!(found[0].alternatives(), expected);
    assert_eq!(found[1].alternatives(), ["up{}"]);
}
