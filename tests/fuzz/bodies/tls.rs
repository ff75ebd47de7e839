//! The gateway's end of a client's TLS, with a real client and with any bytes.

use std::io::{Read as _, Write as _};
use std::sync::{Arc, LazyLock};

use gatepost::relay::TlsLeg;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, SignatureScheme, version,
};

use super::unescaped;

/// Of both versions, TLS 1.3 first.
struct Configs {
    server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 2],
}

static CONFIGS: LazyLock<Configs> = LazyLock::new(|| {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let chain = CertificateDer::from_pem_slice(include_bytes!("../../tls/ecdsa.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../../tls/ecdsa.key")).unwrap();
    let server = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let server = server.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut server = server.with_single_cert(vec![chain], key).unwrap();
    server.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    let clients = [&version::TLS13, &version::TLS12].map(|version| {
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let client = client.with_protocol_versions(&[version]).unwrap().dangerous();
        let client = client.with_custom_certificate_verifier(Arc::new(Trusting));
        Arc::new(client.with_no_client_auth())
    });
    Configs { server: Arc::new(server), clients }
});

/// A session: the first byte has the client's version and the size of the pieces in which its bytes arrive; then each line is
/// `C…` (the client sends), `S…` (the gateway sends), `h` (both exchange what they have), `r…` (any bytes arrive), `f…` (the
/// client's bytes arrive with these bits flipped), `k` (the client changes its key), `x` (the client closes), `e` (the gateway
/// closes).
pub(crate) fn tls(input: &[u8]) {
    let Some((&options, script)) = input.split_first() else {
        return;
    };
    let config = Arc::clone(&CONFIGS.clients[usize::from(options & 1)]);
    let piece = match options >> 1 & 7 {
        7 => usize::MAX,
        exponent => 1 << (2 * exponent),
    };
    let mut pair = Pair::new(config, piece);
    for line in script.split(|&b| b == b'\n') {
        let Some((&what, text)) = line.split_first() else {
            continue;
        };
        let text = unescaped(text);
        match what {
            b'C' => pair.client_sends(&text),
            b'S' => pair.gateway_sends(&text),
            b'h' => pair.exchange(),
            b'r' => {
                pair.is_genuine = false;
                pair.arrive(text);
            }
            b'f' => {
                let mut sent = pair.client_output();
                for (byte, flipped) in sent.iter_mut().zip(&text) {
                    *byte ^= flipped;
                    pair.is_genuine &= *flipped == 0;
                }
                pair.arrive(sent);
            }
            b'k' => _ = pair.client.refresh_traffic_keys(),
            // Before that it would end the handshake, which is no honest client's way.
            b'x' if !pair.client.is_handshaking() => {
                pair.client.send_close_notify();
                pair.has_client_closed = true;
            }
            b'e' => {
                pair.leg.close(&mut pair.outgoing);
                pair.has_gateway_closed = true;
            }
            _ => {}
        }
    }
    pair.exchange();
    pair.check();
}

struct Pair {
    leg: TlsLeg,
    client: ClientConnection,
    piece: usize,
    /// Written by the leg, not read by the client yet.
    outgoing: Vec<u8>,
    from_client: Vec<u8>,
    at_gateway: Vec<u8>,
    from_gateway: Vec<u8>,
    at_client: Vec<u8>,
    /// Everything that arrived is the client's own, unchanged.
    is_genuine: bool,
    is_established: bool,
    has_failed: bool,
    has_client_closed: bool,
    has_gateway_closed: bool,
}

impl Pair {
    fn new(config: Arc<ClientConfig>, piece: usize) -> Self {
        let name = ServerName::try_from("mx.example.org").unwrap();
        Self {
            leg: TlsLeg::with_client(Arc::clone(&CONFIGS.server)).unwrap(),
            client: ClientConnection::new(config, name).unwrap(),
            piece,
            outgoing: Vec::new(),
            from_client: Vec::new(),
            at_gateway: Vec::new(),
            from_gateway: Vec::new(),
            at_client: Vec::new(),
            is_genuine: true,
            is_established: false,
            has_failed: false,
            has_client_closed: false,
            has_gateway_closed: false,
        }
    }

    fn client_sends(&mut self, text: &[u8]) {
        if !self.has_client_closed {
            // Before the handshake the client keeps a limited amount, and after an alert it sends nothing.
            let written = self.client.writer().write(text);
            assert!(written.is_ok() || !self.is_genuine, "{written:?}");
            self.from_client.extend_from_slice(&text[..written.unwrap_or_default()]);
        }
    }

    fn gateway_sends(&mut self, text: &[u8]) {
        if !self.has_gateway_closed {
            let sent = self.leg.send(text, &mut self.outgoing);
            assert!(sent.is_ok() || self.has_failed, "{sent:?}");
            self.from_gateway.extend_from_slice(text);
        }
    }

    fn client_output(&mut self) -> Vec<u8> {
        let mut sent = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut sent).unwrap();
        }
        sent
    }

    /// Bytes arrive at the gateway in pieces; after an error it reads no more.
    fn arrive(&mut self, mut bytes: Vec<u8>) {
        for piece in bytes.chunks_mut(self.piece) {
            // rustls 0.23 asserts, in builds with debug assertions, that nothing wrong arrives after its close_notify.
            let is_over = self.has_gateway_closed && !self.is_genuine;
            if self.has_failed || self.leg.is_closed() || is_over {
                return;
            }
            match self.leg.receive(piece, &mut self.outgoing) {
                Ok(facts) => {
                    assert!(!(facts.is_some() && self.is_established), "established twice");
                    self.is_established |= facts.is_some();
                }
                Err(_) => {
                    assert!(!self.is_genuine, "an honest client is refused");
                    self.has_failed = true;
                }
            }
            let mut room = [0; 100];
            while let count @ 1.. = self.leg.take(&mut room) {
                assert!(self.is_established, "plaintext before the handshake is complete");
                self.at_gateway.extend_from_slice(&room[..count]);
            }
        }
    }

    /// Until neither side has more to send.
    fn exchange(&mut self) {
        loop {
            let sent = self.client_output();
            if sent.is_empty() && self.outgoing.is_empty() {
                return;
            }
            self.arrive(sent);
            let received = std::mem::take(&mut self.outgoing);
            let mut received = &received[..];
            while !received.is_empty() && self.client.wants_read() {
                self.client.read_tls(&mut received).unwrap();
                let result = self.client.process_new_packets();
                assert!(result.is_ok() || !self.is_genuine, "the gateway sends {result:?}");
                let _no_more = self.client.reader().read_to_end(&mut self.at_client);
                if result.is_err() {
                    return;
                }
            }
        }
    }

    /// Nothing is changed or invented, and nothing is lost on a connection that nobody tampered with.
    fn check(&self) {
        assert!(
            self.from_client.starts_with(&self.at_gateway),
            "bytes that the client did not send"
        );
        assert!(self.from_gateway.starts_with(&self.at_client), "bytes that nobody sent");
        if !self.is_genuine {
            return;
        }
        assert!(!self.has_failed);
        assert_eq!(self.at_gateway.len(), self.from_client.len(), "bytes of the client are lost");
        if !self.has_client_closed && !self.has_gateway_closed {
            assert_eq!(
                self.at_client.len(),
                self.from_gateway.len(),
                "bytes to the client are lost"
            );
        }
    }
}

/// Accepts the test's certificate.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}
