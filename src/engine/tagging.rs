//! The header field that a rule with `tag` puts at the head of a message, and the forged ones that it takes out.

use super::inquiry::Inquiry;
use super::{Action, Output};
use crate::policy::facts::Reason;
use crate::policy::rules::RuleMatch;
use crate::smtp::{HeaderFilter, Kept, Piece};

/// The field's name.
const NAME: &str = "Gatepost-Verdict";
/// Octets of a rule's name that fit in a line with the rest (RFC 5322 §2.1.1: at most 998).
const MAX_RULE: usize = 800;

/// What rules that tag do to the message at hand.
#[derive(Debug, Default)]
pub(super) struct Tagging {
    /// The field for the transaction's message.
    field: Option<Vec<u8>>,
    /// Within a message.
    filter: Option<HeaderFilter>,
}

impl Inquiry {
    /// The transaction's message gets the field; the first rule that tags it is the one that is named.
    pub(super) fn tag(&mut self, fired: &RuleMatch) {
        self.tagging.field.get_or_insert_with(|| field(fired));
    }

    /// Another transaction than that of the recipients so far.
    pub(super) fn untag(&mut self) {
        self.tagging.field = None;
    }

    /// More content follows. Returns what it goes through, if any rule tags; [`Inquiry::put_back`] takes it again.
    pub(super) fn take_filter(&mut self, out: &mut Output) -> Option<HeaderFilter> {
        self.hidden.as_ref()?;
        let filter = self.tagging.filter.take();
        Some(filter.unwrap_or_else(|| {
            let field = self.tagging.field.take();
            let filter = HeaderFilter::new(NAME, field.is_some());
            if let Some(field) = field {
                out.act(Action::ToUpstream(field));
            }
            filter
        }))
    }

    pub(super) fn put_back(&mut self, filter: Option<HeaderFilter>) {
        self.tagging.filter = filter;
    }
}

/// Forwards `piece` of `input`, which begins `from` octets into what was given, but for what `filter` takes out.
pub(super) fn forward(
    filter: &mut Option<HeaderFilter>,
    piece: Piece,
    input: &[u8],
    from: usize,
    out: &mut Output,
) {
    match (filter, piece) {
        (Some(filter), Piece::Input(range)) if !filter.is_over() => {
            let octets = input.get(range.clone()).unwrap_or_default();
            let from = from + range.start;
            filter.filter(octets, |kept| match kept {
                Kept::Input(range) => out.forward(from + range.start..from + range.end),
                Kept::Held(octets) => out.act(Action::ToUpstream(octets)),
            });
        }
        (Some(filter), Piece::Insert(octets)) => filter.filter(octets, |kept| match kept {
            Kept::Input(range) => {
                out.act(Action::Insert(octets.get(range).unwrap_or_default()));
            }
            Kept::Held(octets) => out.act(Action::ToUpstream(octets)),
        }),
        (_, Piece::Input(range)) => out.forward(from + range.start..from + range.end),
        (None, Piece::Insert(octets)) => out.act(Action::Insert(octets)),
    }
}

/// `Gatepost-Verdict: tag; rule="no name"; fact=fcrdns; reason=no_ptr`
fn field(fired: &RuleMatch) -> Vec<u8> {
    let quoted =
        |b: u8| if matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\') { b } else { b'?' };
    let mut field = format!("{NAME}: tag; rule=\"").into_bytes();
    field.extend(fired.rule.bytes().take(MAX_RULE).map(quoted));
    field.push(b'"');
    if let Some((name, fact)) = &fired.cause {
        let reason = fact.reason.map_or(fact.state.as_str(), Reason::as_str);
        field.extend(format!("; fact={}; reason={reason}", name.as_str()).into_bytes());
    }
    field.extend(b"\r\n");
    field
}
