//! TLS hellos: the server name that the client asks for, and the version that the server chose.
//!
//! RFC 8446 §4.1 and §5.1, RFC 6066 §3. Only read, never changed. A hello may span several segments and several records, so
//! its bytes are copied until it is complete or longer than [`MAX_HELLO`].

use tls_parser::{
    SNIType, TlsExtension, parse_tls_client_hello_extensions, parse_tls_handshake_client_hello,
    parse_tls_handshake_server_hello, parse_tls_server_hello_extensions,
};

use crate::addr::Side;

/// Bytes copied of one side. A ClientHello with a post-quantum key share has about 1800.
const MAX_HELLO: usize = 8 * 1024;
/// Bytes of a DNS name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// The content of a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) enum HelloInfo {
    Version(&'static str),
    ServerName(String),
}

/// The hellos of both sides.
#[derive(Debug, Default)]
pub(in crate::engine) struct TlsHellos([HelloBuffer; 2]);

#[derive(Debug, Default)]
struct HelloBuffer {
    bytes: Vec<u8>,
    closed: bool,
}

impl TlsHellos {
    /// The next bytes of TLS from `side`.
    pub(in crate::engine) fn on_bytes(&mut self, side: Side, bytes: &[u8]) -> Option<HelloInfo> {
        let message = self.0.get_mut(side.index())?.on_bytes(bytes)?;
        match side {
            Side::Client => server_name(&message).map(HelloInfo::ServerName),
            Side::Server => version(&message).map(HelloInfo::Version),
        }
    }

    /// Bytes of `side` are missing.
    pub(in crate::engine) fn on_gap(&mut self, side: Side) {
        if let Some(hello) = self.0.get_mut(side.index()) {
            hello.close();
        }
    }
}

impl HelloBuffer {
    /// The body of the hello, once it is complete.
    fn on_bytes(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.closed {
            return None;
        }
        let room = MAX_HELLO.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
        let message = match first_message(&self.bytes) {
            HandshakeMessage::Complete(message) => Some(message),
            HandshakeMessage::Incomplete if self.bytes.len() < MAX_HELLO => return None,
            HandshakeMessage::Incomplete | HandshakeMessage::Other => None,
        };
        self.close();
        message
    }

    fn close(&mut self) {
        self.closed = true;
        self.bytes = Vec::new();
    }
}

enum HandshakeMessage {
    Complete(Vec<u8>),
    Incomplete,
    Other,
}

/// The first handshake message, reassembled from its records; only a hello counts.
fn first_message(bytes: &[u8]) -> HandshakeMessage {
    const HANDSHAKE: u8 = 22;
    let mut rest = bytes;
    let mut fragments: Vec<u8> = Vec::new();
    loop {
        if let Some(([kind, high, middle, low], body)) = fragments.split_first_chunk() {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if !matches!(kind, 1 | 2) || length > MAX_HELLO {
                return HandshakeMessage::Other;
            }
            if let Some(body) = body.get(..length) {
                return HandshakeMessage::Complete(body.to_vec());
            }
        }
        let Some(([kind, major, _, high, low], after)) = rest.split_first_chunk() else {
            return HandshakeMessage::Incomplete;
        };
        if *kind != HANDSHAKE || *major != 3 {
            return HandshakeMessage::Other;
        }
        let length = usize::from(*high) << 8 | usize::from(*low);
        let fragment = after.get(..length).unwrap_or(after);
        fragments.extend_from_slice(fragment);
        rest = after.get(fragment.len()..).unwrap_or_default();
    }
}

fn server_name(hello: &[u8]) -> Option<String> {
    let (_, hello) = parse_tls_handshake_client_hello(hello).ok()?;
    let (_, extensions) = parse_tls_client_hello_extensions(hello.ext?).ok()?;
    let name = extensions.iter().find_map(|extension| match extension {
        TlsExtension::SNI(names) => names.iter().find(|(kind, _)| *kind == SNIType::HostName),
        _ => None,
    });
    let (_, name) = name?;
    let name = std::str::from_utf8(name).ok()?;
    (name.len() <= MAX_NAME).then(|| name.to_owned())
}

/// TLS 1.3 is negotiated in an extension, earlier versions in the version field (RFC 8446 §4.2.1).
fn version(hello: &[u8]) -> Option<&'static str> {
    let (_, hello) = parse_tls_handshake_server_hello(hello).ok()?;
    let extensions = hello.ext.and_then(|ext| parse_tls_server_hello_extensions(ext).ok());
    let chosen = extensions.and_then(|(_, extensions)| {
        extensions.iter().find_map(|extension| match extension {
            TlsExtension::SupportedVersions(versions) => versions.first().copied(),
            _ => None,
        })
    });
    match chosen.unwrap_or(hello.version).0 {
        0x0300 => Some("SSLv3"),
        0x0301 => Some("TLSv1"),
        0x0302 => Some("TLSv1.1"),
        0x0303 => Some("TLSv1.2"),
        0x0304 => Some("TLSv1.3"),
        _ => None,
    }
}
