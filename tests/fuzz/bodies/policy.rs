//! Requests of Postfix's policy delegation.

use gatepost::engine::external_path;
use gatepost::postfix::policy::{MAX_REQUEST, ParsedRequest, PolicyRequest};

/// Requests one behind the other, as a connection has them.
pub(crate) fn policy_request(input: &[u8]) {
    let mut rest = input;
    while let ParsedRequest::Complete { request, len } = PolicyRequest::parse(rest) {
        assert!((1..=rest.len()).contains(&len) && len <= MAX_REQUEST);
        assert_eq!(request.request, "smtpd_access_policy");
        for value in [&request.sender, &request.recipient, &request.helo_name] {
            assert!(!value.contains('\n'));
        }
        let path = external_path(&request.sender);
        assert!(path.len() >= request.sender.len());
        // The empty line ends it, and more bytes do not change it.
        let alone = PolicyRequest::parse(&rest[..len]);
        assert_eq!(alone, ParsedRequest::Complete { request, len });
        assert_eq!(PolicyRequest::parse(&rest[..len - 1]), ParsedRequest::Incomplete);
        rest = &rest[len..];
    }
    if PolicyRequest::parse(rest) == ParsedRequest::Incomplete {
        assert!(rest.len() < MAX_REQUEST);
    }
}
