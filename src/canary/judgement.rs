//! The header section of a canary: its Message-ID, and what filters wrote into it.

use serde::{Deserialize, Serialize};

use super::compose::subject;
use super::marks::{Mark, MarkRules, SpamFilter, SpamScore, score, subject_mark};
use super::outcome::CanaryOutcome;
use super::token::PairId;
use crate::dkim::HeaderFields;

/// Marks that are kept of one message.
const MAX_MARKS: usize = 8;

/// What filters wrote into a message up to some point of its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderJudgement {
    /// Sorted.
    pub marks: Vec<Mark>,
    /// The highest.
    pub score: Option<SpamScore>,
}

impl HeaderJudgement {
    /// Evaluates the fields of a canary of `pair`.
    pub fn of(fields: HeaderFields<'_>, pair: PairId, rules: &MarkRules) -> Self {
        let mut judgement = Self::default();
        for field in fields {
            let name = String::from_utf8_lossy(field.name);
            let value = unfold(field.value);
            rules.marks(&name, &value, &mut judgement.marks);
            judgement.score = judgement.score.max(score(&name, &value));
            if name.eq_ignore_ascii_case("Subject") {
                judgement.marks.extend(subject_mark(&subject(pair), &value));
            }
        }
        judgement.marks.sort();
        judgement.marks.truncate(MAX_MARKS);
        judgement
    }

    /// The message was found in a folder of junk.
    pub fn add_junk_folder(&mut self) {
        self.marks.insert(0, Mark::new(SpamFilter::Folder, "", "junk"));
    }

    /// What became of a message that was received so.
    pub fn outcome(&self) -> CanaryOutcome {
        let is_spam = |mark: &Mark| mark.by != SpamFilter::Authentication;
        match self.marks.as_slice() {
            [] => CanaryOutcome::Clean,
            marks if marks.iter().any(is_spam) => CanaryOutcome::MarkedSpam,
            _ => CanaryOutcome::AuthenticationFailed,
        }
    }
}

/// The value on one line, without white space around it (RFC 5322 §2.2.3).
pub(super) fn unfold(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let lines = text.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}
