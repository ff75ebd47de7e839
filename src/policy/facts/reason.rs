//! Why a fact is not true, and the sources of answers.

use crate::label::labels;

labels! {
    /// Why a fact is not true. The aliases are the words that earlier builds wrote to recordings and caches.
    pub enum Reason {
        /// The address has no PTR record.
        NoPtr = "no_ptr",
        /// No PTR name has the address.
        NotConfirmed = "not_confirmed",
        /// The domain does not exist.
        Nxdomain = "nxdomain",
        /// The domain publishes a null MX (RFC 7505): it accepts no mail.
        NullMx = "null_mx",
        /// No address at all, none of the required family, or none that the Internet can reach.
        NoUsableAddress = "no_usable_address",
        /// Neither a domain name nor an address literal.
        NotADomain = "not_a_domain",
        /// `<>`: there is no sender to reach.
        NullSender = "null_sender",
        /// The DNS server failed or refused to answer.
        Servfail = "servfail",
        Timeout = "timeout",
        /// The DNS server cannot be reached.
        Unreachable = "unreachable",
        /// Nothing is configured, or in the capture, that could answer.
        #[serde(alias = "no_source")]
        NoResolver = "no_resolver",
        /// The SYN was answered by RST or an ICMP error.
        Refused = "refused",
        /// The SYN was not answered.
        #[serde(alias = "silent")]
        NoResponse = "no_response",
        /// The connection was established, but the greeting or the reply to a command did not arrive in time.
        #[serde(alias = "stalled")]
        EstablishedButStalled = "established_but_stalled",
        /// The server does not speak SMTP, or its greeting or an earlier reply rejects us before RCPT.
        #[serde(alias = "turned_away")]
        RejectedBeforeRcpt = "rejected_before_rcpt",
        /// The mailbox was rejected with a 5xx.
        NoSuchMailbox = "no_such_mailbox",
        /// The mailbox was deferred with a 4xx.
        Deferred = "deferred",
        /// An address literal, where only the servers of a domain are probed.
        NotProbed = "not_probed",
        /// A limit on probes or queries is reached.
        #[serde(alias = "limited")]
        RateLimited = "rate_limited",
        /// No recent proof.
        NoProof = "no_proof",
        /// A vantage did not reach us.
        NotReached = "not_reached",
        /// Our upstream does not accept connections.
        UpstreamDown = "upstream_down",
        /// The domain has no SPF record.
        SpfNone = "spf_none",
        /// The domain's SPF record says that the client must not send its mail.
        SpfFail = "spf_fail",
        /// It says that the client probably must not.
        SpfSoftfail = "spf_softfail",
        /// It says nothing about the client.
        SpfNeutral = "spf_neutral",
        /// It cannot be interpreted (RFC 7208 §2.6.7).
        SpfPermerror = "spf_permerror",
        /// The content of the message was not seen: it is encrypted, or passes by.
        ContentNotSeen = "content_not_seen",
        /// The header section is too large to be kept until its signatures can be verified.
        HeaderTooLarge = "header_too_large",
        /// The message has no DKIM signature.
        DkimNone = "dkim_none",
        /// The DKIM signature does not match the fields that it signs.
        DkimBadSignature = "dkim_bad_signature",
        /// The body is not the one that was signed.
        DkimBodyChanged = "dkim_body_changed",
        /// The body goes on after the part that is signed (`l=`).
        DkimPartlySigned = "dkim_partly_signed",
        DkimExpired = "dkim_expired",
        /// There is no key, or it was revoked.
        DkimNoKey = "dkim_no_key",
        /// The key is malformed, or not for this signature.
        DkimInvalidKey = "dkim_invalid_key",
        /// The signature is malformed, or does not cover the author.
        DkimInvalidSignature = "dkim_invalid_signature",
        /// SHA-1, or a key of less than 1024 bits (RFC 8301).
        DkimWeak = "dkim_weak",
        /// The key has `t=y`: the message counts as unsigned.
        DkimTestMode = "dkim_test_mode",
        /// Neither SPF nor DKIM passes.
        NotAuthenticated = "not_authenticated",
        /// DMARC fails, and the author's domain asks for no action.
        DmarcPolicyNone = "dmarc_policy_none",
        /// DMARC fails, and the author's domain asks for quarantine.
        DmarcPolicyQuarantine = "dmarc_policy_quarantine",
        /// DMARC fails, and the author's domain asks for rejection.
        DmarcPolicyReject = "dmarc_policy_reject",
        /// No From field has a domain.
        NoAuthorDomain = "no_author_domain",
        /// From has more domains than are evaluated.
        ManyAuthorDomains = "many_author_domains",
    }
}

labels! {
    /// The source of an answer. A fact that rests on several answers has the greatest of their sources in this order.
    pub enum Source {
        /// DNS answers in the capture.
        Capture = "capture",
        /// A master file.
        Zone = "zone",
        /// A resolver.
        Dns = "dns",
        /// Observed traffic: mail of others, or of our MTA.
        Traffic = "traffic",
        /// A server that we probed, or a vantage that probed us.
        Probe = "probe",
        /// Our own MTA.
        Upstream = "upstream",
        /// No lookup was needed, or none was possible.
        None = "none",
    }
}
