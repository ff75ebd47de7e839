//! Socketmap requests and answers.

use gatepost::postfix::socketmap::{FilteredRecord, MapAnswer, MapRequest, Netstring};

const LIMIT: usize = 4096;

/// A stream of netstrings: a request's key and an answer, and every netstring as either.
pub(crate) fn socketmap(mut input: &[u8]) {
    while let Netstring::Complete { content, length } = Netstring::parse(input, LIMIT) {
        assert!(content.len() < length && length <= input.len());
        for cut in 0..length.min(64) {
            assert_eq!(Netstring::parse(&input[..cut], LIMIT), Netstring::Incomplete);
        }
        let mut again = Vec::new();
        Netstring::append(&mut again, content);
        assert_eq!(again, input[..length]);
        if let Some(request) = MapRequest::parse(content) {
            assert_eq!(request.map.len() + 1 + request.key.len(), content.len());
            if let Some(record) = FilteredRecord::parse(request.key) {
                // A record has one reading.
                let kind = if record.address.is_ipv6() { "AAAA" } else { "A" };
                let key = format!("{} 60 IN {kind} {}", record.host, record.address);
                assert_eq!(FilteredRecord::parse(&key), Some(record));
            }
        }
        if let Some(answer) = MapAnswer::parse(content) {
            let encoded = answer.encode();
            let Netstring::Complete { content, .. } = Netstring::parse(&encoded, LIMIT) else {
                panic!("an answer is a netstring");
            };
            assert_eq!(MapAnswer::parse(content), Some(answer));
        }
        input = &input[length..];
    }
}
