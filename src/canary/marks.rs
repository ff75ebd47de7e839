//! The table of what spam filters write into the header section of a message.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::MarkPattern;
use crate::label::labels;

labels! {
    /// Who marked a message. Several filters write the same fields; then it is the best known of them.
    pub enum SpamFilter {
        SpamAssassin = "spamassassin",
        Rspamd = "rspamd",
        Barracuda = "barracuda",
        Exchange = "exchange",
        Proofpoint = "proofpoint",
        /// Somebody added a tag to the Subject. SonicWall marks in no other way.
        Subject = "subject",
        /// The mailbox has the message in its folder of junk.
        Folder = "folder",
        /// A rule of the operator.
        Custom = "custom",
        /// A server that verified SPF, DKIM or DMARC (RFC 8601). The last, so that its results never crowd out marks of spam.
        Authentication = "authentication",
    }
}

/// In hundredths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpamScore(i32);

impl SpamScore {
    /// `-0.66`, `15`
    fn parse(text: &str) -> Option<Self> {
        let score = text.parse::<f64>().ok().filter(|score| score.abs() < 1e6)?;
        Some(Self((score * 100.0).round() as i32))
    }
}

impl fmt::Display for SpamScore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2}", f64::from(self.0) / 100.0)
    }
}

/// One statement of a filter against a message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mark {
    pub by: SpamFilter,
    pub field: String,
    /// The value, without its folds and at most `MAX_VALUE` characters.
    pub value: String,
}

/// Characters of a value that are kept.
const MAX_VALUE: usize = 120;
/// Characters of a field's name that are kept.
const MAX_FIELD: usize = 80;
/// The spam confidence level of Exchange from which a message is spam.
const EXCHANGE_SPAM: i32 = 5;

/// When a field is a mark.
#[derive(Clone, Copy, Debug)]
enum Condition {
    /// The value begins with one of these words.
    FirstWord(&'static [&'static str]),
    /// The value is one of these.
    Value(&'static [&'static str]),
    /// rspamd: `default: True [15.00 / 15.00]`.
    SecondWord(&'static str),
    /// A number of at least that.
    AtLeast(i32),
    /// `SCL:5` among the parts of the value.
    SclAtLeast(i32),
    /// Proofpoint: the rule's name has "spam" and does not deny it.
    SpamRule,
}

const YES: Condition = Condition::FirstWord(&["yes", "true"]);

/// X-Spam-Score and X-Spam-Level are numbers without a limit, and so no marks: [`SCORES`].
const TABLE: &[(SpamFilter, &str, Condition)] = &[
    (SpamFilter::SpamAssassin, "X-Spam-Flag", YES),
    (SpamFilter::SpamAssassin, "X-Spam-Status", YES),
    (SpamFilter::Rspamd, "X-Spam", YES),
    (SpamFilter::Rspamd, "X-Spamd-Result", Condition::SecondWord("true")),
    (
        SpamFilter::Rspamd,
        "X-Rspamd-Action",
        Condition::Value(&["add header", "rewrite subject", "quarantine", "reject", "soft reject"]),
    ),
    (SpamFilter::Barracuda, "X-Barracuda-Spam-Flag", YES),
    (SpamFilter::Barracuda, "X-Barracuda-Spam-Status", YES),
    (SpamFilter::Exchange, "X-MS-Exchange-Organization-SCL", Condition::AtLeast(EXCHANGE_SPAM)),
    (SpamFilter::Exchange, "X-Forefront-Antispam-Report", Condition::SclAtLeast(EXCHANGE_SPAM)),
    (SpamFilter::Proofpoint, "X-Proofpoint-Spam-Details", Condition::SpamRule),
];

/// Fields with a number: the whole value, or what follows this text in it.
const SCORES: [(&str, &str); 5] = [
    ("X-Spam-Score", ""),
    ("X-Spam-Status", "score="),
    ("X-Barracuda-Spam-Score", ""),
    ("X-Spamd-Result", "["),
    ("X-Rspamd-Score", ""),
];

/// Methods of Authentication-Results (RFC 8601 §2.7) and their failures.
const METHODS: [&str; 4] = ["spf", "dkim", "dmarc", "compauth"];
const FAILURES: [&str; 4] = ["fail", "softfail", "hardfail", "permerror"];
/// Words of the tags that filters put before a Subject, such as `[SPAM]`, `***SPAM***`, `[LIKELY_SPAM]`, `[JUNK]`.
const TAG_WORDS: [&str; 5] = ["spam", "junk", "bulk", "suspect", "phish"];

/// The built-in table and the patterns of the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkRules {
    custom: Vec<MarkPattern>,
}

impl MarkRules {
    pub const fn new(custom: Vec<MarkPattern>) -> Self {
        Self { custom }
    }

    /// The marks in one field; `value` is unfolded and trimmed.
    pub(super) fn marks(&self, field: &str, value: &str, into: &mut Vec<Mark>) {
        let known = TABLE.iter().find(|(_, name, condition)| {
            name.eq_ignore_ascii_case(field) && condition.holds(value)
        });
        let is_custom = |pattern: &MarkPattern| {
            pattern.field().eq_ignore_ascii_case(field) && pattern.matches(value)
        };
        if let Some((by, _, _)) = known {
            into.push(Mark::new(*by, field, value));
        } else if self.custom.iter().any(is_custom) {
            into.push(Mark::new(SpamFilter::Custom, field, value));
        }
        if field.eq_ignore_ascii_case("Authentication-Results") {
            let failures = value.split(';').skip(1).filter_map(failed_method);
            into.extend(failures.map(|it| Mark::new(SpamFilter::Authentication, field, it)));
        }
    }
}

impl Mark {
    pub(super) fn new(by: SpamFilter, field: &str, value: &str) -> Self {
        let value = value.chars().take(MAX_VALUE).collect();
        let field = field.chars().take(MAX_FIELD).collect();
        Self { by, field, value }
    }
}

impl Condition {
    fn holds(self, value: &str) -> bool {
        let mut words = value.split([' ', '\t', ',', ';']);
        match self {
            Self::FirstWord(allowed) => words.next().is_some_and(|word| is_one_of(word, allowed)),
            Self::Value(allowed) => is_one_of(value, allowed),
            Self::SecondWord(expected) => {
                words.nth(1).is_some_and(|word| word.eq_ignore_ascii_case(expected))
            }
            Self::AtLeast(limit) => value.parse::<i32>().is_ok_and(|level| level >= limit),
            Self::SclAtLeast(limit) => value.split(';').any(|part| {
                let level = part.trim().strip_prefix("SCL:");
                level.and_then(|it| it.parse::<i32>().ok()).is_some_and(|level| level >= limit)
            }),
            Self::SpamRule => words.filter_map(|word| word.strip_prefix("rule=")).any(|rule| {
                let rule = rule.to_ascii_lowercase();
                rule.contains("spam") && !rule.contains("notspam")
            }),
        }
    }
}

fn is_one_of(text: &str, allowed: &[&str]) -> bool {
    allowed.iter().any(|one| one.eq_ignore_ascii_case(text))
}

/// `spf=fail` of ` spf=fail (…) smtp.mailfrom=…`.
fn failed_method(part: &str) -> Option<&str> {
    let result = part.split_ascii_whitespace().next()?;
    let (method, outcome) = result.split_once('=')?;
    (is_one_of(method, &METHODS) && is_one_of(outcome, &FAILURES)).then_some(result)
}

/// The score in a field, if it has one.
pub(super) fn score(field: &str, value: &str) -> Option<SpamScore> {
    let mut matching = SCORES.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
    matching.find_map(|(_, before)| {
        let lower = value.to_ascii_lowercase();
        let (_, after) = lower.split_once(before)?;
        let is_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+');
        let end = after.find(|c| !is_number(c)).unwrap_or(after.len());
        let (number, rest) = after.split_at_checked(end)?;
        let is_whole = !rest.starts_with(char::is_alphanumeric);
        is_whole.then(|| SpamScore::parse(number)).flatten()
    })
}

/// The tag that a Subject has beyond the one that was sent.
pub(super) fn subject_mark(sent: &str, received: &str) -> Option<Mark> {
    let added = match received.split_once(sent) {
        Some((before, after)) => format!("{before} {after}"),
        // Rewritten in full.
        None => received.to_owned(),
    };
    let lower = added.to_ascii_lowercase();
    let is_mark = TAG_WORDS.iter().any(|word| lower.contains(word));
    is_mark.then(|| Mark::new(SpamFilter::Subject, "Subject", received))
}
