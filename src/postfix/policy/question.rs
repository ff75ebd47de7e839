//! A request as a question for the engine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use super::request::PolicyRequest;
use crate::addr::{ClientAddr, Family, OriginalDst};
use crate::engine::{AskedAt, DelegatedQuestion, PolicyQuestion, external_path};
use crate::policy::facts::{ClientCertificate, PresentedCertificate};
use crate::policy::rules::PolicyStage;

/// The SMTP session that a question is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SessionKey {
    pub(super) client: SocketAddr,
    /// Where the client connected to; before Postfix 3.2 port 25 of no address.
    pub(super) server: SocketAddr,
}

impl SessionKey {
    pub(super) fn client(self) -> ClientAddr {
        ClientAddr::new(self.client)
    }

    pub(super) fn server(self) -> OriginalDst {
        OriginalDst::new(self.server)
    }

    /// As Postfix before 3.2 asks.
    pub(super) fn without_server(self) -> Self {
        let server = SocketAddr::new(unspecified(self.client().family()), SMTP);
        Self { server, ..self }
    }
}

const SMTP: u16 = 25;

fn unspecified(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::UNSPECIFIED.into(),
        Family::Ipv6 => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// `None` for a client without an address, as one on a Unix socket.
pub(super) fn question(request: &PolicyRequest<'_>) -> Option<(SessionKey, DelegatedQuestion)> {
    let client: IpAddr = address(&request.client_address)?;
    let client = ClientAddr::new(SocketAddr::new(client, port(&request.client_port, 0)));
    let server = address(&request.server_address).unwrap_or_else(|| unspecified(client.family()));
    let server = OriginalDst::new(SocketAddr::new(server, port(&request.server_port, SMTP)));
    let at = asked_at(&request.protocol_state);
    let known = stage(at, request);
    let stage = context_stage(&request.policy_context).map_or(known, |stage| stage.min(known));
    let text = |value: &str| (!value.is_empty()).then(|| value.into());
    let is_after = |stage| known >= stage && !matches!(at, AskedAt::Vrfy | AskedAt::Etrn);
    let path = |mailbox: &str| Arc::from(external_path(mailbox));
    let recipient = text(&request.recipient).filter(|_: &Arc<str>| is_after(PolicyStage::Rcpt));
    let question = PolicyQuestion {
        stage,
        helo: text(&request.helo_name),
        sender: is_after(PolicyStage::Mail).then(|| path(&request.sender)),
        recipient: recipient.map(|recipient| path(&recipient)),
        // A mail server reports nothing of the content.
        message: None,
        authenticated: !request.sasl_username.is_empty() || !request.sasl_method.is_empty(),
        tls: !request.encryption_protocol.is_empty(),
    };
    let asked = DelegatedQuestion {
        question,
        at,
        esmtp: request.protocol_name == "ESMTP",
        tls_version: tls_version(&request.encryption_protocol),
        certificate: certificate(request),
        instance: request.instance.as_ref().into(),
        queue_id: (!request.queue_id.is_empty()).then(|| request.queue_id.clone().into_owned()),
        size: request.size.parse().unwrap_or(0),
        decided_by_relay: false,
    };
    Some((SessionKey { client: client.socket(), server: server.socket() }, asked))
}

fn address(text: &str) -> Option<IpAddr> {
    // Postfix writes an address without its scope.
    text.parse().ok()
}

fn port(text: &str, other: u16) -> u16 {
    text.parse().unwrap_or(other)
}

/// The states of SMTPD_POLICY_README; others are those of commands that Postfix asks about in no list of today.
fn asked_at(protocol_state: &str) -> AskedAt {
    match protocol_state {
        "CONNECT" => AskedAt::Connect,
        "EHLO" | "HELO" => AskedAt::Helo,
        "MAIL" => AskedAt::Mail,
        "RCPT" => AskedAt::Rcpt,
        "DATA" | "BDAT" => AskedAt::Data,
        "END-OF-MESSAGE" => AskedAt::EndOfMessage,
        "VRFY" => AskedAt::Vrfy,
        "ETRN" => AskedAt::Etrn,
        _ => AskedAt::Other,
    }
}

/// The stage whose knowledge the request has. With several recipients, DATA and the end of the message name none.
fn stage(at: AskedAt, request: &PolicyRequest<'_>) -> PolicyStage {
    match at {
        AskedAt::Connect | AskedAt::Other if request.helo_name.is_empty() => PolicyStage::Connect,
        AskedAt::Connect | AskedAt::Other | AskedAt::Helo | AskedAt::Vrfy | AskedAt::Etrn => {
            PolicyStage::Helo
        }
        AskedAt::Mail => PolicyStage::Mail,
        AskedAt::Rcpt | AskedAt::Data if request.recipient.is_empty() => PolicyStage::Mail,
        AskedAt::Rcpt | AskedAt::Data => PolicyStage::Rcpt,
        AskedAt::EndOfMessage => PolicyStage::Data,
    }
}

/// `policy_context = mail` and its like: only rules of that stage and those before it decide.
fn context_stage(context: &str) -> Option<PolicyStage> {
    PolicyStage::ALL.into_iter().find(|stage| stage.as_str().eq_ignore_ascii_case(context))
}

fn tls_version(protocol: &str) -> Option<&'static str> {
    const VERSIONS: [&str; 4] = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"];
    VERSIONS.into_iter().find(|known| *known == protocol)
}

/// A fingerprint of SHA-256 identifies the certificate; one of another digest does not.
fn certificate(request: &PolicyRequest<'_>) -> PresentedCertificate {
    if request.encryption_protocol.is_empty() {
        return PresentedCertificate::NotKnown;
    }
    if request.ccert_fingerprint.is_empty() {
        return PresentedCertificate::None;
    }
    let digest = |colons: &str| {
        let hex: String = colons.chars().filter(|&c| c != ':').collect();
        let is_sha256 = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_sha256.then(|| hex.to_ascii_lowercase())
    };
    let Some(sha256) = digest(&request.ccert_fingerprint) else {
        return PresentedCertificate::NotKnown;
    };
    let subject: String = request.ccert_subject.chars().take(64).collect();
    PresentedCertificate::of(Some(&ClientCertificate {
        sha256,
        public_key_sha256: digest(&request.ccert_pubkey_fingerprint).unwrap_or_default(),
        verified: !subject.is_empty(),
        common_name: (!subject.is_empty()).then_some(subject),
        names: Vec::new(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(state: &'static str) -> PolicyRequest<'static> {
        PolicyRequest {
            protocol_state: state.into(),
            protocol_name: "ESMTP".into(),
            client_address: "2001:db8::25".into(),
            client_port: "1234".into(),
            server_address: "2001:db8::1".into(),
            server_port: "25".into(),
            helo_name: "mta.sender.example".into(),
            instance: "1.2.3".into(),
            ..PolicyRequest::default()
        }
    }

    fn mail(state: &'static str, recipient: &'static str, context: &'static str) -> PolicyQuestion {
        let request = PolicyRequest {
            sender: "al ice@sender.example".into(),
            recipient: recipient.into(),
            policy_context: context.into(),
            ..request(state)
        };
        question(&request).unwrap().1.question
    }

    #[test]
    fn the_stage_is_that_of_the_state_or_of_the_context() {
        const TO: &str = "bob@receiver.example";
        use PolicyStage::{Connect, Data, Helo, Mail, Rcpt};
        for (state, to, context, stage) in [
            ("EHLO", "", "", Helo),
            ("HELO", "", "", Helo),
            ("MAIL", "", "", Mail),
            ("RCPT", TO, "", Rcpt),
            ("RCPT", TO, "mail", Mail),
            ("RCPT", TO, "connect", Connect),
            ("RCPT", TO, "submission", Rcpt),
            ("DATA", TO, "", Rcpt),
            ("DATA", "", "", Mail),
            ("END-OF-MESSAGE", TO, "", Data),
            ("END-OF-MESSAGE", "", "", Data),
            ("END-OF-MESSAGE", "", "rcpt", Rcpt),
            ("VRFY", TO, "", Helo),
            ("ETRN", "", "", Helo),
            ("XCLIENT", "", "", Helo),
        ] {
            assert_eq!(mail(state, to, context).stage, stage, "{state} {to} {context}");
        }
        let bare = PolicyRequest { helo_name: "".into(), ..request("CONNECT") };
        assert_eq!(question(&bare).unwrap().1.question, PolicyQuestion::at_connect());
        let vrfy = mail("VRFY", TO, "");
        assert_eq!((vrfy.sender, vrfy.recipient), (None, None));
    }

    #[test]
    fn paths_are_those_of_a_command() {
        let question = mail("RCPT", "bob@receiver.example", "");
        assert_eq!(question.sender.as_deref(), Some("\"al ice\"@sender.example"));
        assert_eq!(question.recipient.as_deref(), Some("bob@receiver.example"));
        let (_, null) = super::question(&request("MAIL")).unwrap();
        assert_eq!(null.question.sender.as_deref(), Some(""));
    }

    #[test]
    fn a_session_is_known_by_both_ends() {
        let (key, _) = question(&request("CONNECT")).unwrap();
        assert_eq!(key.client, "[2001:db8::25]:1234".parse().unwrap());
        assert_eq!(key.server, "[2001:db8::1]:25".parse().unwrap());
        let old = PolicyRequest {
            client_address: "::ffff:192.0.2.1".into(),
            client_port: "".into(),
            server_address: "".into(),
            server_port: "".into(),
            ..request("CONNECT")
        };
        let (key, _) = question(&old).unwrap();
        assert_eq!(key.client, "192.0.2.1:0".parse().unwrap());
        assert_eq!(key.server, "0.0.0.0:25".parse().unwrap());
        let local = PolicyRequest { client_address: "unknown".into(), ..request("CONNECT") };
        assert_eq!(question(&local), None);
    }

    #[test]
    fn a_certificate_needs_a_sha256_fingerprint() {
        let with = |tls: &'static str, fingerprint: String, subject: &'static str| {
            let request = PolicyRequest {
                encryption_protocol: tls.into(),
                ccert_fingerprint: fingerprint.into(),
                ccert_subject: subject.into(),
                ..request("RCPT")
            };
            question(&request).unwrap().1.certificate
        };
        let sha256 = vec!["AB"; 32].join(":");
        assert_eq!(with("", sha256.clone(), ""), PresentedCertificate::NotKnown);
        assert_eq!(with("TLSv1.3", String::new(), ""), PresentedCertificate::None);
        assert_eq!(with("TLSv1.3", vec!["AB"; 16].join(":"), "x"), PresentedCertificate::NotKnown);
        let presented = with("TLSv1.3", sha256.clone(), "mta.sender.example");
        let certificate = presented.certificate().unwrap();
        assert_eq!((certificate.sha256.as_str(), certificate.verified), (&*"ab".repeat(32), true));
        assert!(!with("TLSv1.3", sha256, "").certificate().unwrap().verified);
    }
}
