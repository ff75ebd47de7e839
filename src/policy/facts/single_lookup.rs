//! Facts that are the answer to one lookup: whether our upstream accepts a recipient, and our own receive path.

use super::{Answer, Answers, Detail, Evaluation, Fact, Lookup, Provenance, Reason};
use crate::addr::Family;

/// Our upstream accepts mail for `path`, which is without angle brackets.
pub fn recipient(path: &str, known: &Answers) -> Evaluation {
    evaluate(Lookup::Recipient(path.to_owned()), known)
}

/// Mail from the Internet reaches us over `family`.
pub fn receive_path(family: Family, known: &Answers) -> Evaluation {
    evaluate(Lookup::ReceivePath(family), known)
}

fn evaluate(lookup: Lookup, known: &Answers) -> Evaluation {
    let Some(result) = known.get(&lookup) else {
        return Evaluation::NeedsLookups(vec![lookup]);
    };
    let provenance = Provenance::of(result);
    let detail = |text: &Option<String>| text.clone().map(Detail::Text);
    Evaluation::Known(match &result.answer {
        Answer::Yes(text) => Fact::holds(provenance, detail(text)),
        Answer::No(reason, text) => Fact::fails(*reason, provenance, detail(text)),
        Answer::Unknown(reason) => Fact::unknown(*reason, provenance),
        // Not an answer to a lookup of this kind.
        Answer::Records(_) | Answer::NoData | Answer::NxDomain => {
            Fact::unknown(Reason::NoResolver, provenance)
        }
    })
}
