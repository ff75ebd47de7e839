//! TLS over a blocking socket, from the first byte or after STARTTLS.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup,
    ProtocolVersion, RootCertStore, SignatureScheme, SupportedProtocolVersion, version,
};

/// Sessions that a client remembers.
const REMEMBERED: usize = 256;

/// The versions that a client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsVersions {
    #[default]
    Both,
    Only12,
    Only13,
}

impl TlsVersions {
    fn offered(self) -> Vec<&'static SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&version::TLS13, &version::TLS12],
            Self::Only12 => vec![&version::TLS12],
            Self::Only13 => vec![&version::TLS13],
        }
    }
}

/// The settings of a [`TlsClient`].
#[derive(Clone, Copy, Default)]
pub(crate) struct TlsOptions<'a> {
    /// The root that the server's certificate must lead to, in PEM. Without one the client checks nothing, neither the
    /// certificate nor the server's signature, which saves a load generator most of a handshake's CPU time.
    pub(crate) trusted: Option<&'a Path>,
    pub(crate) versions: TlsVersions,
    /// Only the cipher suites with this word in their name (`AES_128_GCM`); all of them with an empty one.
    pub(crate) cipher: &'a str,
    /// Only this group for the key exchange.
    pub(crate) group: Option<NamedGroup>,
    /// Keep the server's tickets and resume sessions with them.
    pub(crate) resume: bool,
    /// Do not name the server (SNI), as many mail servers do not.
    pub(crate) without_sni: bool,
    /// Chain and key in PEM for a server that requests them.
    pub(crate) certificate: Option<(&'a Path, &'a Path)>,
}

/// Settings and, with `resume`, tickets; clones share the tickets. A ticket of TLS 1.3 serves once, so threads that resume
/// in parallel need a client each, and a server that issues none after a resumption, as Postfix, resumes every second time.
#[derive(Clone)]
pub(crate) struct TlsClient {
    config: Arc<ClientConfig>,
}

impl TlsClient {
    /// # Panics
    /// A file cannot be read, or no suite or group is left.
    pub(crate) fn new(options: &TlsOptions<'_>) -> Self {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.retain(|suite| format!("{suite:?}").contains(options.cipher));
        if let Some(group) = options.group {
            provider.kx_groups.retain(|offered| offered.name() == group);
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&options.versions.offered())
            .expect("versions, suites and groups fit each other");
        let builder = if let Some(trusted) = options.trusted {
            let mut roots = RootCertStore::empty();
            for root in certificates(trusted) {
                roots.add(root).expect("a root");
            }
            builder.with_root_certificates(roots)
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NoChecks(provider)))
        };
        let mut config = match options.certificate {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).expect("a key in PEM");
                builder.with_client_auth_cert(certificates(chain), key).expect("a key that fits")
            }
        };
        config.enable_sni = !options.without_sni;
        config.resumption = if options.resume {
            Resumption::in_memory_sessions(REMEMBERED)
        } else {
            Resumption::disabled()
        };
        Self { config: Arc::new(config) }
    }
}

fn certificates(file: &Path) -> Vec<CertificateDer<'static>> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect);
    found.unwrap_or_else(|error| panic!("certificates in {}: {error}", file.display()))
}

/// How the server's handshake ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    pub(crate) version: ProtocolVersion,
    /// The name of the cipher suite, such as `TLS13_AES_128_GCM_SHA256`.
    pub(crate) cipher: String,
    /// Of the key exchange; none where TLS 1.2 resumed.
    pub(crate) group: Option<NamedGroup>,
    /// By a ticket instead of a certificate.
    pub(crate) resumed: bool,
    /// The server's certificates in DER, its own first.
    pub(crate) certificates: Vec<Vec<u8>>,
}

impl Handshake {
    fn of(tls: &ClientConnection) -> Option<Self> {
        let certificates = tls.peer_certificates().unwrap_or_default();
        Some(Self {
            version: tls.protocol_version()?,
            cipher: format!("{:?}", tls.negotiated_cipher_suite()?.suite()),
            group: tls.negotiated_key_exchange_group().map(|group| group.name()),
            resumed: tls.handshake_kind()? == HandshakeKind::Resumed,
            certificates: certificates.iter().map(|certificate| certificate.to_vec()).collect(),
        })
    }
}

/// For people: `TLSv1_3 TLS13_AES_128_GCM_SHA256 X25519`.
impl fmt::Display for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.version, self.cipher)?;
        self.group.map_or(Ok(()), |group| write!(f, " {group:?}"))
    }
}

/// A socket, in plaintext or under TLS.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Connection {
    pub(crate) const fn new(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    /// The socket itself. Bytes that are written to it are not encrypted.
    pub(crate) const fn socket(&self) -> &TcpStream {
        &self.socket
    }

    pub(crate) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Makes the whole handshake with the server `name`.
    ///
    /// # Errors
    /// The server refuses, or its certificate is refused: a [`rustls::Error`] inside.
    pub(crate) fn start_tls(&mut self, client: &TlsClient, name: &str) -> io::Result<Handshake> {
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let tls = ClientConnection::new(Arc::clone(&client.config), name);
        let mut tls = Box::new(tls.map_err(io::Error::other)?);
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut self.socket)?;
        }
        let handshake = Handshake::of(&tls).ok_or_else(|| io::Error::other("no handshake"))?;
        self.tls = Some(tls);
        Ok(handshake)
    }

    /// Ends our direction: close_notify under TLS (RFC 8446 §6.1), and FIN.
    pub(crate) fn close(&mut self) -> io::Result<()> {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            while tls.wants_write() {
                tls.write_tls(&mut self.socket)?;
            }
        }
        self.socket.shutdown(Shutdown::Write)
    }
}

impl Read for Connection {
    /// A connection under TLS that ends without close_notify is an error, `UnexpectedEof`.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(buffer),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).read(buffer),
        }
    }
}

impl Write for Connection {
    /// Under TLS the bytes are with the socket when this returns.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.tls {
            None => self.socket.flush(),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.socket).flush(),
        }
    }
}

/// Accepts every server.
#[derive(Debug)]
struct NoChecks(Arc<CryptoProvider>);

impl ServerCertVerifier for NoChecks {
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
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
