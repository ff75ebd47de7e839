//! The hellos of TLS: which server the client asks for, and which version the server chose. Nothing else is looked at.
//!
//! RFC 8446 §4.1 and §5.1, RFC 6066 §3. Only listened to: octets pass whatever is made of them here. A hello may come in
//! several segments and several records, so its octets are copied until it is whole or longer than [`MAX_HELLO`].

use tls_parser::{
    SNIType, TlsExtension, parse_tls_client_hello_extensions, parse_tls_handshake_client_hello,
    parse_tls_handshake_server_hello, parse_tls_server_hello_extensions,
};

use super::Side;

/// Octets copied of one side. A ClientHello with a post-quantum key share has about 1800.
const MAX_HELLO: usize = 8 * 1024;
/// Octets of a DNS name (RFC 1035 §2.3.4).
const MAX_NAME: usize = 255;

/// What a hello told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Version(&'static str),
    Name(String),
}

/// Both sides' hellos, as they come.
#[derive(Debug, Default)]
pub(super) struct Hellos([Hello; 2]);

/// One side's.
#[derive(Debug, Default)]
struct Hello {
    octets: Vec<u8>,
    over: bool,
}

impl Hellos {
    /// The next octets of `side`'s TLS.
    pub(super) fn hear(&mut self, side: Side, octets: &[u8]) -> Option<Told> {
        let message = self.0.get_mut(side.index())?.hear(octets)?;
        match side {
            Side::Client => server_name(&message).map(Told::Name),
            Side::Server => version(&message).map(Told::Version),
        }
    }

    /// Octets of `side` are missing.
    pub(super) fn gap(&mut self, side: Side) {
        if let Some(hello) = self.0.get_mut(side.index()) {
            hello.give_up();
        }
    }
}

impl Hello {
    /// The body of the hello, once it is whole.
    fn hear(&mut self, octets: &[u8]) -> Option<Vec<u8>> {
        if self.over {
            return None;
        }
        let room = MAX_HELLO.saturating_sub(self.octets.len()).min(octets.len());
        self.octets.extend_from_slice(octets.get(..room).unwrap_or_default());
        let message = match first_message(&self.octets) {
            Message::Whole(message) => Some(message),
            Message::Incomplete if self.octets.len() < MAX_HELLO => return None,
            Message::Incomplete | Message::Other => None,
        };
        self.give_up();
        message
    }

    fn give_up(&mut self) {
        self.over = true;
        self.octets = Vec::new();
    }
}

enum Message {
    Whole(Vec<u8>),
    Incomplete,
    Other,
}

/// The first handshake message, which is a hello or none of ours, put together from its records.
fn first_message(octets: &[u8]) -> Message {
    const HANDSHAKE: u8 = 22;
    let mut rest = octets;
    let mut fragments: Vec<u8> = Vec::new();
    loop {
        if let Some(([kind, high, middle, low], body)) = fragments.split_first_chunk() {
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if !matches!(kind, 1 | 2) || length > MAX_HELLO {
                return Message::Other;
            }
            if let Some(body) = body.get(..length) {
                return Message::Whole(body.to_vec());
            }
        }
        let Some(([kind, major, _, high, low], after)) = rest.split_first_chunk() else {
            return Message::Incomplete;
        };
        if *kind != HANDSHAKE || *major != 3 {
            return Message::Other;
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

/// TLS 1.3 says so in an extension, and 1.2 in the place where versions used to be (RFC 8446 §4.2.1).
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
