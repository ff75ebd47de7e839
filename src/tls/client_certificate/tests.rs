use std::path::PathBuf;

use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, ServerConnection, version};

use super::*;
use crate::tls::certificate::load_certificate;
use crate::tls::upstream::AnyCertificate;
use crate::tls::{
    CertificateFiles, ClientCertificateMode, LoadedTls, MinVersion, TicketKeys, TlsSettings,
};

fn file(name: &str) -> PathBuf {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR")).into()
}

fn files(name: &str) -> CertificateFiles {
    let [certificate, key] = ["pem", "key"].map(|end| file(&format!("{name}.{end}")));
    CertificateFiles { certificate, key }
}

fn load(mode: ClientCertificateMode, ca: Option<&str>, tickets: &TicketKeys) -> LoadedTls {
    let settings = TlsSettings {
        certificates: vec![files("ecdsa")],
        min_version: MinVersion::Tls12,
        client_certificate: mode,
        client_ca: ca.map(file),
    };
    LoadedTls::load(&settings, tickets).unwrap()
}

/// Presents this certificate, whatever the server asks for.
#[derive(Debug)]
struct Presents(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone()
    }

    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}

fn certified(name: &str) -> Arc<CertifiedKey> {
    load_certificate(&files(name), &default_provider()).unwrap().1
}

fn client(version: &'static rustls::SupportedProtocolVersion, presents: Presents) -> ClientConfig {
    let provider = Arc::new(default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap().dangerous();
    let builder = builder.with_custom_certificate_verifier(Arc::new(AnyCertificate(algorithms)));
    let mut config = builder.with_client_cert_resolver(Arc::new(presents));
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

/// A handshake and a byte of each side, so that the client has its ticket.
fn handshake(loaded: &LoadedTls, client: &Arc<ClientConfig>) -> Result<ServerConnection, Error> {
    let mut client =
        ClientConnection::new(Arc::clone(client), "mx.example.org".try_into().unwrap())?;
    let mut server = ServerConnection::new(Arc::clone(&loaded.config))?;
    while client.wants_write() || server.wants_write() {
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        server.read_tls(&mut &bytes[..]).unwrap();
        server.process_new_packets()?;
        bytes.clear();
        server.write_tls(&mut bytes).unwrap();
        client.read_tls(&mut &bytes[..]).unwrap();
        client.process_new_packets()?;
    }
    Ok(server)
}

fn inspected(loaded: &LoadedTls, server: &ServerConnection) -> Option<ClientCertificate> {
    let inspector = loaded.client_certificates.as_ref().unwrap();
    inspector.inspect(server.peer_certificates().unwrap_or_default())
}

const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&version::TLS12, &version::TLS13];

#[test]
fn a_certificate_is_reported_also_in_a_resumed_session() {
    let tickets = TicketKeys::new().unwrap();
    let loaded = load(ClientCertificateMode::Request, None, &tickets);
    for version in VERSIONS {
        for name in ["ecdsa", "rsa"] {
            let client = Arc::new(client(version, Presents(Some(certified(name)))));
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let server = handshake(&loaded, &client).unwrap();
                assert_eq!(server.handshake_kind(), Some(kind));
                let found = inspected(&loaded, &server).unwrap();
                assert_eq!(found.names, ["mx.example.org", "*.mail.example.org"]);
                assert!(!found.verified, "no authority vouches for it");
                let der = certified(name).cert[0].clone();
                assert_eq!(found.sha256, hexadecimal(&Sha256::digest(&der)));
                assert_ne!(found.public_key_sha256, found.sha256);
            }
        }
    }
}

#[test]
fn a_client_needs_no_certificate() {
    let tickets = TicketKeys::new().unwrap();
    let loaded = load(ClientCertificateMode::Request, None, &tickets);
    for version in VERSIONS {
        let client = Arc::new(client(version, Presents(None)));
        let server = handshake(&loaded, &client).unwrap();
        assert_eq!(inspected(&loaded, &server), None);
    }
}

/// Anybody has the certificate of another; its key not.
#[test]
fn a_certificate_without_its_key_fails() {
    let tickets = TicketKeys::new().unwrap();
    let loaded = load(ClientCertificateMode::Request, None, &tickets);
    let stolen =
        CertifiedKey::new(certified("ecdsa").cert.clone(), Arc::clone(&certified("other").key));
    let stolen = Arc::new(stolen);
    for version in VERSIONS {
        let client = Arc::new(client(version, Presents(Some(Arc::clone(&stolen)))));
        let failed = handshake(&loaded, &client).unwrap_err();
        assert_eq!(failed, Error::InvalidCertificate(CertificateError::BadSignature));
    }
}

/// A ticket from before says nothing about the client's certificate.
#[test]
fn tickets_from_before_certificates_were_requested_do_not_count() {
    let tickets = TicketKeys::new().unwrap();
    let [off, request] = ClientCertificateMode::ALL.map(|mode| load(mode, None, &tickets));
    for version in VERSIONS {
        let client = Arc::new(client(version, Presents(Some(certified("rsa")))));
        handshake(&off, &client).unwrap();
        let server = handshake(&request, &client).unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        assert!(inspected(&request, &server).is_some());
    }
}

#[test]
fn a_file_without_authorities_is_an_error() {
    let settings = TlsSettings {
        certificates: vec![files("ecdsa")],
        min_version: MinVersion::Tls12,
        client_certificate: ClientCertificateMode::Request,
        client_ca: Some(file("ecdsa.key")),
    };
    let loaded = LoadedTls::load(&settings, &TicketKeys::new().unwrap());
    assert!(matches!(loaded, Err(TlsError::NoCertificate { .. })));
}
