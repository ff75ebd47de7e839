//! The header field that a rule with `tag` adds to a message; forged fields of that name are removed.

use crate::engine::options::Profile;
use crate::engine::output::{Action, Output};
use crate::policy::facts::Reason;
use crate::policy::rules::RuleMatch;
use crate::smtp::{HeaderFilter, HeaderPiece, Keyword, Piece};

/// The field's name.
const NAME: &str = "Gatepost-Verdict";
/// Bytes of a rule's name that fit in a line with the rest (RFC 5322 §2.1.1: at most 998).
const MAX_RULE: usize = 800;

/// What rules that tag do to the messages of a session.
#[derive(Debug)]
pub(in crate::engine) struct HeaderTagger {
    /// Keywords hidden from EHLO: a BDAT chunk's size precedes it, so nothing can be added to it or removed from it.
    hidden: Vec<Keyword>,
    /// The field, and the number of the transaction whose message gets it.
    field: Option<(u64, Vec<u8>)>,
    /// Within a message.
    filter: Option<HeaderFilter>,
}

impl HeaderTagger {
    /// `None` if no rule tags.
    pub(in crate::engine) fn new(profile: &Profile) -> Option<Box<Self>> {
        profile.rules.may_tag().then(|| {
            let chunks = [Keyword::Chunking, Keyword::BinaryMime];
            let hidden = profile.smtp.hide.iter().copied().chain(chunks).collect();
            Box::new(Self { hidden, field: None, filter: None })
        })
    }

    pub(in crate::engine) fn hidden_keywords(&self) -> &[Keyword] {
        &self.hidden
    }

    /// The message of `transaction` gets the field; the first rule that tags it is named.
    pub(in crate::engine) fn tag(&mut self, transaction: u64, matched: &RuleMatch) {
        if self.field.as_ref().is_none_or(|(number, _)| *number != transaction) {
            self.field = Some((transaction, field(matched)));
        }
    }

    /// Content of `transaction` follows. Returns its filter, which [`HeaderTagger::put_back`] takes again; the first one of
    /// a message sends the field before it.
    pub(in crate::engine) fn take_filter(
        &mut self,
        transaction: Option<u64>,
        out: &mut Output,
    ) -> HeaderFilter {
        self.filter.take().unwrap_or_else(|| {
            let field = self.field.take_if(|(number, _)| Some(*number) == transaction);
            let filter = HeaderFilter::new(NAME, field.is_some());
            if let Some((_, field)) = field {
                out.act(Action::ToUpstream(field));
            }
            filter
        })
    }

    /// `None` at the end of the message.
    pub(in crate::engine) fn put_back(&mut self, filter: Option<HeaderFilter>) {
        self.filter = filter;
    }
}

/// Forwards `piece` of `input`, which begins `from` bytes into the client's input, without the fields that `filter` removes.
pub(in crate::engine) fn forward(
    filter: &mut Option<HeaderFilter>,
    piece: Piece,
    input: &[u8],
    from: usize,
    out: &mut Output,
) {
    match (filter, piece) {
        (Some(filter), Piece::Input(range)) if !filter.is_over() => {
            let bytes = input.get(range.clone()).unwrap_or_default();
            let from = from + range.start;
            filter.filter(bytes, |kept| match kept {
                HeaderPiece::Input(range) => out.forward(from + range.start..from + range.end),
                HeaderPiece::Held(octets) => out.act(Action::ToUpstream(octets)),
            });
        }
        (Some(filter), Piece::Insert(bytes)) => filter.filter(bytes, |kept| match kept {
            HeaderPiece::Input(range) => {
                out.act(Action::Insert(bytes.get(range).unwrap_or_default()));
            }
            HeaderPiece::Held(octets) => out.act(Action::ToUpstream(octets)),
        }),
        (_, Piece::Input(range)) => out.forward(from + range.start..from + range.end),
        (None, Piece::Insert(bytes)) => out.act(Action::Insert(bytes)),
    }
}

/// The field for a mail server that adds it itself, without a line end.
pub(in crate::engine) fn text(matched: &RuleMatch) -> String {
    String::from_utf8_lossy(field(matched).trim_ascii_end()).into_owned()
}

/// `Gatepost-Verdict: tag; rule="no name"; fact=fcrdns; reason=no_ptr`
fn field(matched: &RuleMatch) -> Vec<u8> {
    let quoted =
        |b: u8| if matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\') { b } else { b'?' };
    let mut field = format!("{NAME}: tag; rule=\"").into_bytes();
    field.extend(matched.rule.bytes().take(MAX_RULE).map(quoted));
    field.push(b'"');
    if let Some((name, fact)) = &matched.cause {
        let reason = fact.reason.map_or(fact.state.as_str(), Reason::as_str);
        field.extend(format!("; fact={}; reason={reason}", name.as_str()).into_bytes());
    }
    field.extend(b"\r\n");
    field
}
