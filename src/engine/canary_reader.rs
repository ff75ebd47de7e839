//! The header section of a message as it passes, if it may be a canary.

use crate::canary::{MarkRules, PassedMessage};
use crate::dkim::{HeaderProgress, HeaderSection};

/// Limit of a header section, in bytes. A canary's own has less than 1 KiB; appliances add to it.
const MAX_HEADER: usize = 64 * 1024;

/// Reads one message up to the end of its header section. Lines of DATA are read with their dot-stuffing, since no field that
/// counts begins with a dot.
#[derive(Debug)]
pub(super) struct CanaryReader {
    section: HeaderSection,
}

/// What the next bytes led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CanaryProgress {
    Incomplete,
    /// Nothing more is read of this message.
    Over(Option<PassedMessage>),
}

impl Default for CanaryReader {
    fn default() -> Self {
        Self { section: HeaderSection::new(MAX_HEADER) }
    }
}

impl CanaryReader {
    pub(super) fn on_bytes(&mut self, bytes: &[u8], rules: &MarkRules) -> CanaryProgress {
        match self.section.write(bytes) {
            HeaderProgress::Incomplete => CanaryProgress::Incomplete,
            HeaderProgress::TooLarge => CanaryProgress::Over(None),
            HeaderProgress::Complete(_) => {
                CanaryProgress::Over(PassedMessage::of(self.section.fields(), rules))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canary::{MarkPattern, SpamFilter};

    #[test]
    fn only_what_may_be_a_canary_is_reported() {
        let id = "<c1.0123456789abcdef.6i.6957370f.b2a5f14ddb4c0f81ae8c5b47d689a4d2@a>";
        let canary =
            format!("X-Spam: Yes\r\nX-Own: it is junk\r\nMessage-ID:\r\n {id}\r\n\r\nbody\r\n");
        let rules = MarkRules::new(vec![MarkPattern::parse("X-Own: *junk").unwrap()]);
        for size in [1, 3, 1000] {
            let mut reader = CanaryReader::default();
            let found = canary.as_bytes().chunks(size).find_map(|chunk| {
                match reader.on_bytes(chunk, &rules) {
                    CanaryProgress::Incomplete => None,
                    CanaryProgress::Over(message) => Some(message),
                }
            });
            let message = found.unwrap().unwrap();
            assert_eq!(message.message_id, id);
            let by: Vec<_> = message.judgement.marks.iter().map(|mark| mark.by).collect();
            assert_eq!(by, [SpamFilter::Rspamd, SpamFilter::Custom]);
        }
        for other in ["Message-ID: <1@a>\r\n\r\n", "A: b\r\n\r\n"] {
            let progress = CanaryReader::default().on_bytes(other.as_bytes(), &rules);
            assert_eq!(progress, CanaryProgress::Over(None), "{other}");
        }
        let long = vec![b'a'; MAX_HEADER + 1];
        let progress = CanaryReader::default().on_bytes(&long, &rules);
        assert_eq!(progress, CanaryProgress::Over(None));
    }
}
