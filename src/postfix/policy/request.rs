//! One request: lines of `name=value`, and an empty line (SMTPD_POLICY_README, "Protocol description").

use std::borrow::Cow;

/// Bytes of a request with its empty line. Postfix limits each value by `line_length_limit` (2048), and sends about 30.
pub const MAX_REQUEST: usize = 64 * 1024;

/// The result of parsing the bytes that arrived so far.
#[derive(Debug, PartialEq, Eq)]
pub enum ParsedRequest<'a> {
    /// The empty line is missing.
    Incomplete,
    /// The reason, in words.
    Malformed(&'static str),
    /// The empty line is not within [`MAX_REQUEST`].
    TooLong,
    Complete {
        request: Box<PolicyRequest<'a>>,
        /// Bytes of the request; those behind it belong to the next.
        len: usize,
    },
}

macro_rules! attributes {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        /// The attributes that the gateway uses; unknown ones are ignored. One that Postfix did not send, as an older version,
        /// is empty, as one without a value is. Bytes that are not UTF-8 are replaced.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct PolicyRequest<'a> {
            $($(#[$doc])* pub $field: Cow<'a, str>,)+
        }

        impl<'a> PolicyRequest<'a> {
            fn slot(&mut self, name: &[u8]) -> Option<(usize, &mut Cow<'a, str>)> {
                let names = [$(stringify!($field)),+];
                let number = names.iter().position(|known| known.as_bytes() == name)?;
                let slots = [$(&mut self.$field),+];
                Some((number, slots.into_iter().nth(number)?))
            }
        }
    };
}

attributes! {
    /// Postfix 2.1 and later, up to `sender`.
    request,
    protocol_state,
    protocol_name,
    client_address,
    helo_name,
    queue_id,
    sender,
    recipient,
    /// The same for all requests about one message.
    instance,
    /// Postfix 2.2 and later, up to `size`.
    sasl_method,
    sasl_username,
    size,
    /// Only of a certificate that was verified.
    ccert_subject,
    /// With the digest of `smtpd_tls_fingerprint_digest`.
    ccert_fingerprint,
    /// Postfix 2.3 and later, up to `encryption_protocol`.
    recipient_count,
    encryption_protocol,
    /// Postfix 2.9 and later.
    ccert_pubkey_fingerprint,
    /// Postfix 3.0 and later.
    client_port,
    /// Postfix 3.1 and later.
    policy_context,
    /// Postfix 3.2 and later, both.
    server_address,
    server_port,
}

impl<'a> PolicyRequest<'a> {
    /// Parses the first request of `bytes`, which begin with it. Never panics, and looks at no more than [`MAX_REQUEST`] bytes.
    pub fn parse(bytes: &'a [u8]) -> ParsedRequest<'a> {
        let within = bytes.get(..MAX_REQUEST).unwrap_or(bytes);
        let mut request = Box::<Self>::default();
        let mut seen = 0_u32;
        let mut at = 0;
        while let Some(rest) = within.get(at..)
            && let Some(end) = rest.iter().position(|&byte| byte == b'\n')
        {
            let line = rest.get(..end).unwrap_or_default();
            at += end + 1;
            if line.is_empty() {
                return match &*request.request {
                    "smtpd_access_policy" => ParsedRequest::Complete { request, len: at },
                    _ => ParsedRequest::Malformed("no request=smtpd_access_policy"),
                };
            }
            let Some(equals) = line.iter().position(|&byte| byte == b'=') else {
                return ParsedRequest::Malformed("a line without `=`");
            };
            let (name, value) = line.split_at_checked(equals).unwrap_or_default();
            if name.is_empty() {
                return ParsedRequest::Malformed("an attribute without a name");
            }
            let Some((number, slot)) = request.slot(name) else { continue };
            if seen & (1 << number) != 0 {
                return ParsedRequest::Malformed("an attribute that comes twice");
            }
            seen |= 1 << number;
            *slot = String::from_utf8_lossy(value.get(1..).unwrap_or_default());
        }
        if bytes.len() >= MAX_REQUEST { ParsedRequest::TooLong } else { ParsedRequest::Incomplete }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const REQUEST: &[u8] = b"request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n\
        client_address=2001:db8::25\nclient_name=mta.sender.example\nreverse_client_name=mta.sender.example\n\
        helo_name=mta.sender.example\nsender=alice@sender.example\nrecipient=bob=x@receiver.example\n\
        recipient_count=0\nqueue_id=\ninstance=123.456.7\nsize=12345\nsasl_method=plain\nsasl_username=you\n\
        sasl_sender=\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint=\n\
        encryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256\n\
        etrn_domain=\nstress=\nclient_port=1234\npolicy_context=submission\nserver_address=2001:db8::1\n\
        server_port=25\ncompatibility_level=3.6\nmail_version=3.8.0\nsmtputf8=no\n\n";

    fn complete(bytes: &[u8]) -> (PolicyRequest<'_>, usize) {
        match PolicyRequest::parse(bytes) {
            ParsedRequest::Complete { request, len } => (*request, len),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn attributes_of_all_versions_are_read() {
        let (request, len) = complete(REQUEST);
        assert_eq!(len, REQUEST.len());
        let values = [
            &request.protocol_state,
            &request.recipient,
            &request.sasl_username,
            &request.client_port,
            &request.server_address,
            &request.queue_id,
        ];
        let expected = ["RCPT", "bob=x@receiver.example", "you", "1234", "2001:db8::1", ""];
        assert_eq!(values.map(|value| &**value), expected);
    }

    #[test]
    fn two_requests_are_told_apart() {
        let twice = REQUEST.repeat(2);
        let (first, len) = complete(&twice);
        let (second, rest) = complete(&twice[len..]);
        assert_eq!((first, len), (second, rest));
    }

    #[test]
    fn every_beginning_of_a_request_is_incomplete() {
        for end in 0..REQUEST.len() {
            assert_eq!(PolicyRequest::parse(&REQUEST[..end]), ParsedRequest::Incomplete, "{end}");
        }
    }

    #[test]
    fn what_is_no_request_is_malformed() {
        for (bytes, problem) in [
            (&b"GET / HTTP/1.1\r\n"[..], "a line without `=`"),
            (b"=x\n", "an attribute without a name"),
            (b"\n", "no request=smtpd_access_policy"),
            (b"request=junk_policy\n\n", "no request=smtpd_access_policy"),
            (b"sender=a@b\nsender=c@d\n", "an attribute that comes twice"),
        ] {
            assert_eq!(PolicyRequest::parse(bytes), ParsedRequest::Malformed(problem));
        }
    }

    #[test]
    fn a_request_without_end_is_too_long() {
        let line = [b"x=".as_slice(), &[b'y'; MAX_REQUEST]].concat();
        assert_eq!(PolicyRequest::parse(&line), ParsedRequest::TooLong);
        assert_eq!(PolicyRequest::parse(&line[..MAX_REQUEST - 1]), ParsedRequest::Incomplete);
        let lines = b"a=b\n".repeat(MAX_REQUEST);
        assert_eq!(PolicyRequest::parse(&lines), ParsedRequest::TooLong);
    }

    proptest! {
        #[test]
        fn more_bytes_never_change_a_result(bytes in prop::collection::vec(prop_oneof![
            Just(b'='), Just(b'\n'), Just(b'a'), any::<u8>(),
        ], 0..200), end in 0_usize..200) {
            let end = end.min(bytes.len());
            let before = PolicyRequest::parse(&bytes[..end]);
            if before != ParsedRequest::Incomplete {
                prop_assert_eq!(before, PolicyRequest::parse(&bytes));
            }
        }
    }
}
