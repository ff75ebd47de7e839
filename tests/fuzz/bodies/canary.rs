//! Canaries: their Message-ID, and the marks of filters in their header section.

use gatepost::canary::{
    CanaryReport, CanaryToken, HeaderJudgement, MAX_REPORT, MarkPattern, MarkRules, PairId,
};
use gatepost::dkim::{HeaderProgress, HeaderSection};
use gatepost::hmac_key::HmacKey;
use gatepost::time::Timestamp;

use super::unescaped;

/// When the canary in the seeds was sent.
const NOW: Timestamp = Timestamp::from_nanos(1_767_323_045_000_000_000);
const RECIPIENT: &str = "canary@site.example";

/// A pattern, a line end, and a message, with escapes.
pub(crate) fn canary(input: &[u8]) {
    let newline = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (pattern, message) = input.split_at(newline);
    let message = unescaped(message.get(1..).unwrap_or_default());
    let pattern = MarkPattern::parse(&String::from_utf8_lossy(pattern)).ok();
    if let Some(pattern) = &pattern {
        assert_eq!(MarkPattern::parse(&pattern.to_string()).as_ref(), Ok(pattern));
    }
    let rules = MarkRules::new(pattern.into_iter().collect());
    let mut section = HeaderSection::new(1 << 20);
    if section.write(&message) == HeaderProgress::TooLarge {
        return;
    }
    let key = HmacKey::parse("0b".repeat(32).as_bytes()).unwrap();
    let judgement = HeaderJudgement::of(section.fields(), PairId::new([1; 8]), &rules);
    assert!(judgement.marks.is_sorted());
    let text = String::from_utf8_lossy(&message);
    let _ = CanaryToken::recognise(&text, RECIPIENT, &key, NOW);
    if let Ok((token, report)) = CanaryReport::of(section.fields(), RECIPIENT, &key, &rules, NOW) {
        assert_eq!(report.token(&key, NOW), Ok(token));
        let json = serde_json::to_vec(&report).unwrap();
        assert!(json.len() <= MAX_REPORT, "{} octets", json.len());
        assert_eq!(serde_json::from_slice::<CanaryReport>(&json).unwrap(), report);
    }
}
