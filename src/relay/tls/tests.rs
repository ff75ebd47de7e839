use std::io::{Read as _, Write as _};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme,
    SupportedProtocolVersion, version,
};

use super::*;
use crate::engine::{TlsHandshake, UpstreamTlsResult};

/// A client that trusts whatever certificate it gets.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

fn server() -> Arc<ServerConfig> {
    let chain = CertificateDer::from_pem_slice(include_bytes!("../../../tests/tls/ecdsa.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../../tests/tls/ecdsa.key"));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(builder.with_single_cert(vec![chain.unwrap()], key.unwrap()).unwrap())
}

fn client(versions: &[&'static SupportedProtocolVersion]) -> ClientConnection {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_protocol_versions(versions).unwrap().dangerous();
    let config = builder.with_custom_certificate_verifier(Arc::new(Trusting)).with_no_client_auth();
    ClientConnection::new(Arc::new(config), "mx.example.org".try_into().unwrap()).unwrap()
}

/// A leg and its client, whose bytes arrive in pieces of `piece` bytes.
struct Pair {
    leg: TlsLeg,
    client: ClientConnection,
    piece: usize,
    facts: Option<TlsFacts>,
    /// What the leg decrypted, and what the client did.
    at_leg: Vec<u8>,
    at_client: Vec<u8>,
}

impl Pair {
    fn new(client: ClientConnection, piece: usize) -> Self {
        let leg = TlsLeg::with_client(server()).unwrap();
        Self { leg, client, piece, facts: None, at_leg: Vec::new(), at_client: Vec::new() }
    }

    /// Exchanges bytes until neither side has more. `outgoing`: what the leg has to send.
    fn exchange(&mut self, mut outgoing: Vec<u8>) -> Result<(), Error> {
        loop {
            let mut sent = Vec::new();
            self.client.write_tls(&mut sent).unwrap();
            if sent.is_empty() && outgoing.is_empty() {
                return Ok(());
            }
            for piece in sent.chunks_mut(self.piece) {
                let facts = self.leg.receive(piece, &mut outgoing)?;
                self.facts = facts.or(self.facts.take());
                let mut room = [0; 7];
                while let count @ 1.. = self.leg.take(&mut room) {
                    self.at_leg.extend_from_slice(&room[..count]);
                }
            }
            let mut received = &outgoing[..];
            while !received.is_empty() {
                self.client.read_tls(&mut received).unwrap();
                self.client.process_new_packets()?;
                let _no_more = self.client.reader().read_to_end(&mut self.at_client);
            }
            outgoing.clear();
        }
    }
}

#[test]
fn bytes_go_both_ways_in_pieces_of_any_size() {
    let message: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for version in [&version::TLS12, &version::TLS13] {
        for piece in [1, 100, 5_000, 1_000_000] {
            let mut pair = Pair::new(client(&[version]), piece);
            // Written too early, it waits for the handshake.
            let mut outgoing = Vec::new();
            pair.leg.send(b"early", &mut outgoing).unwrap();
            pair.exchange(outgoing).unwrap();
            let facts = pair.facts.clone().unwrap();
            let expected =
                [TlsVersion::Tls12, TlsVersion::Tls13][usize::from(version == &version::TLS13)];
            assert_eq!((facts.version, facts.resumed), (expected, false));
            assert!(memchr::memmem::find(&facts.client_hello, b"mx.example.org").is_some());

            let mut outgoing = Vec::new();
            pair.leg.send(&message, &mut outgoing).unwrap();
            for part in message.chunks(50_000) {
                pair.client.writer().write_all(part).unwrap();
                pair.exchange(std::mem::take(&mut outgoing)).unwrap();
            }
            assert!(pair.at_leg == message, "{piece}");
            assert!(pair.at_client == [b"early", &message[..]].concat(), "{piece}");
        }
    }
}

/// An idle session holds no buffer.
#[test]
fn nothing_is_kept_between_records() {
    let mut pair = Pair::new(client(&[&version::TLS13]), 1_000_000);
    pair.exchange(Vec::new()).unwrap();
    pair.client.writer().write_all(b"NOOP\r\n").unwrap();
    pair.exchange(Vec::new()).unwrap();
    let TlsLeg { partial, plaintext, held, first_flight, .. } = &pair.leg;
    let kept = [partial, plaintext, held, first_flight].map(Vec::capacity);
    assert_eq!(kept, [0; 4]);
}

#[test]
fn a_close_notify_is_the_end_and_is_answered() {
    let mut pair = Pair::new(client(&[&version::TLS13]), 1_000_000);
    pair.exchange(Vec::new()).unwrap();
    pair.client.send_close_notify();
    pair.exchange(Vec::new()).unwrap();
    assert!(pair.leg.is_closed());
    let mut outgoing = Vec::new();
    pair.leg.close(&mut outgoing);
    pair.client.read_tls(&mut &outgoing[..]).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
}

fn error_of(bytes: &[u8]) -> (TlsHandshake, Vec<u8>) {
    let mut outgoing = Vec::new();
    let error = TlsLeg::with_client(server()).unwrap().receive(&mut bytes.to_vec(), &mut outgoing);
    (failure(&error.unwrap_err()).result, outgoing)
}

#[test]
fn failures_have_a_class_and_an_alert() {
    let (result, alert) = error_of(b"EHLO client.example\r\n");
    assert_eq!(result, TlsHandshake::NotTls);
    assert_eq!(alert.first(), Some(&0x15), "an alert record: {alert:02x?}");
    // A hello of TLS 1.0 without extensions: OpenSSL's `s_client -tls1`, shortened.
    let body = [&[3, 1][..], &[7; 32], &[0, 0, 2, 0, 0x2f, 1, 0]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).unwrap()], &body[..]].concat();
    let record = [&[0x16, 3, 1, 0, u8::try_from(message.len()).unwrap()], &message[..]].concat();
    assert_eq!(error_of(&record).0, TlsHandshake::NoCommonVersion);
    assert_eq!(error_of(&[0x15, 3, 3, 0, 2, 2, 42]).0, TlsHandshake::ClientAlert);
}

/// Half a record, then nothing: it is kept, up to the size of a record.
#[test]
fn a_record_that_is_too_long_is_an_error() {
    let mut leg = TlsLeg::with_client(server()).unwrap();
    let mut outgoing = Vec::new();
    let mut input = [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 1000]].concat();
    assert!(leg.receive(&mut input, &mut outgoing).is_err());
}

/// Found by a client that sends a message of 16 MB as its hello.
#[test]
fn a_hello_that_is_too_long_is_an_error() {
    let body = [&[1, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    let records = [&[0x16, 3, 1][..], &length, &body].concat().repeat(20);
    for piece in [1, 100, RECORD + OVERHEAD, 1_000_000] {
        let mut leg = TlsLeg::with_client(server()).unwrap();
        let mut input = records.clone();
        let mut pieces = input.chunks_mut(piece);
        let failed = pieces.any(|piece| leg.receive(piece, &mut Vec::new()).is_err());
        assert!(failed, "pieces of {piece}");
    }
}

/// A message of TLS itself that spans records, with mail of ours in between: positions within it stay valid.
#[test]
fn an_unfinished_key_update_does_not_disturb_what_is_sent() {
    let mut pair = Pair::new(client(&[&version::TLS13]), 1_000_000);
    pair.exchange(Vec::new()).unwrap();
    pair.client.refresh_traffic_keys().unwrap();
    let mut sent = Vec::new();
    pair.client.write_tls(&mut sent).unwrap();
    let mut outgoing = Vec::new();
    for byte in sent.chunks_mut(1) {
        pair.leg.receive(byte, &mut outgoing).unwrap();
        pair.leg.send(b"250 ok\r\n", &mut outgoing).unwrap();
    }
    pair.exchange(outgoing).unwrap();
    assert_eq!(pair.at_client.len(), sent.len() * 8);
}

/// A leg with an upstream and one with a client, on the same wire.
#[test]
fn both_kinds_of_legs_speak_with_each_other() {
    let message: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
    let ecdsa = "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384";
    for (version, expected, suite) in [
        (&version::TLS12, TlsVersion::Tls12, ecdsa),
        (&version::TLS13, TlsVersion::Tls13, "TLS_AES_256_GCM_SHA384"),
    ] {
        for piece in [1, 300, 1_000_000] {
            let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
            let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
            let config = builder.with_custom_certificate_verifier(Arc::new(Trusting));
            let config = Arc::new(config.with_no_client_auth());
            let name = ServerName::try_from("mx.example.org").unwrap();
            let mut near = TlsLeg::with_upstream(config, name).unwrap();
            let mut far = TlsLeg::with_client(server()).unwrap();
            let (mut to_far, mut to_near) = (Vec::new(), Vec::new());
            near.start(&mut to_far).unwrap();
            assert_eq!(to_far.first(), Some(&0x16), "the hello comes first");
            near.send(&message, &mut to_far).unwrap();
            far.send(&message, &mut to_near).unwrap();
            let (mut at_near, mut at_far) = (Vec::new(), Vec::new());
            let mut facts = None;
            while !to_far.is_empty() || !to_near.is_empty() {
                for part in std::mem::take(&mut to_far).chunks_mut(piece) {
                    far.receive(part, &mut to_near).unwrap();
                    take_all(&mut far, &mut at_far);
                }
                for part in std::mem::take(&mut to_near).chunks_mut(piece) {
                    let new = near.receive(part, &mut to_far).unwrap();
                    facts = new.or(facts);
                    take_all(&mut near, &mut at_near);
                }
            }
            let expected = TlsFacts {
                version: expected,
                resumed: false,
                client_certificate: None,
                cipher_suite: Some(suite),
                client_hello: Vec::new(),
            };
            assert_eq!(facts, Some(expected));
            assert!(at_near == message && at_far == message, "{piece}");
        }
    }
}

fn take_all(leg: &mut TlsLeg, to: &mut Vec<u8>) {
    let mut room = [0; 1000];
    while let count @ 1.. = leg.take(&mut room) {
        to.extend_from_slice(&room[..count]);
    }
}

#[test]
fn an_upstream_that_is_not_who_it_should_be_has_a_class() {
    let class = |answer: &[u8]| {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap();
        let roots = rustls::RootCertStore::empty();
        let config = config.with_root_certificates(roots).with_no_client_auth();
        let name = ServerName::try_from("mx.example.org").unwrap();
        let mut near = TlsLeg::with_upstream(Arc::new(config), name).unwrap();
        let mut to_far = Vec::new();
        near.start(&mut to_far).unwrap();
        let mut to_near = answer.to_vec();
        if answer.is_empty() {
            let mut far = TlsLeg::with_client(server()).unwrap();
            far.receive(&mut to_far, &mut to_near).unwrap();
        }
        upstream_failure(&near.receive(&mut to_near, &mut to_far).unwrap_err()).result
    };
    assert_eq!(class(b""), UpstreamTlsResult::Certificate);
    assert_eq!(class(b"250 injected\r\n"), UpstreamTlsResult::NotTls);
    assert_eq!(class(&[0x15, 3, 3, 0, 2, 2, 70]), UpstreamTlsResult::NoCommonVersion);
    assert_eq!(class(&[0x15, 3, 3, 0, 2, 2, 40]), UpstreamTlsResult::Alert);
}

/// The start of a hello whose rest never comes: the end of the session must not need it.
#[test]
fn a_fragment_of_a_hello_does_not_disturb_the_end() {
    let mut leg = TlsLeg::with_client(server()).unwrap();
    let mut outgoing = Vec::new();
    let mut fragment = [&[0x16, 3, 1, 0, 6][..], &[1, 0, 1, 0, 3, 3]].concat();
    assert_eq!(leg.receive(&mut fragment, &mut outgoing), Ok(None));
    leg.close(&mut outgoing);
    assert!(outgoing.is_empty(), "there are no keys for a close_notify yet");
}

/// Each byte has a record of its own, so that the message never becomes complete within reasonable memory.
#[test]
fn a_hello_in_tiny_records_is_not_kept_without_end() {
    let mut leg = TlsLeg::with_client(server()).unwrap();
    let hello = [&[1, 0, 0xff, 0xff][..], &[0; 60_000]].concat();
    let mut input: Vec<u8> = hello.iter().flat_map(|&byte| [0x16, 3, 1, 0, 1, byte]).collect();
    let mut outgoing = Vec::new();
    let received = input.chunks_mut(1_000).try_for_each(|piece| {
        let received = leg.receive(piece, &mut outgoing);
        assert!(leg.partial.len() <= MAX_PARTIAL);
        received.map(|_| ())
    });
    assert!(received.is_err());
}
