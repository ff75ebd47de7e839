//! Facts that are one answer: what upstream says of a recipient, and what is known of our own receive path.

use super::{Answer, Answers, Basis, Detail, Fact, Lookup, Reason, Step};
use crate::addr::Family;

/// Our upstream takes mail for `path`, without brackets.
pub fn recipient(path: &str, known: &Answers) -> Step {
    told(Lookup::Recipient(path.to_owned()), known)
}

/// Mail from the world reaches us over `family`.
pub fn receive_path(family: Family, known: &Answers) -> Step {
    told(Lookup::ReceivePath(family), known)
}

fn told(lookup: Lookup, known: &Answers) -> Step {
    let Some(answered) = known.get(&lookup) else {
        return Step::Need(vec![lookup]);
    };
    let basis = Basis::of(answered);
    let said = |words: &Option<String>| words.clone().map(Detail::Said);
    Step::Fact(match &answered.answer {
        Answer::Yes(words) => Fact::holds(basis, said(words)),
        Answer::No(reason, words) => Fact::fails(*reason, basis, said(words)),
        Answer::Unknown(reason) => Fact::unknown(*reason, basis),
        // No answer to a question of this kind.
        Answer::Records(_) | Answer::NoData | Answer::NxDomain => {
            Fact::unknown(Reason::NoSource, basis)
        }
    })
}
