//! rustls' two kinds of unbuffered connections under one interface.

use std::ops::Deref as _;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::UnbufferedStatus;
use rustls::{ClientConfig, CommonState, Error, ServerConfig};

/// A connection, by who is at its other end.
pub(super) enum TlsConnection {
    Client(Box<UnbufferedServerConnection>),
    Upstream(Box<UnbufferedClientConnection>),
}

impl TlsConnection {
    pub(super) fn with_client(config: Arc<ServerConfig>) -> Result<Self, Error> {
        Ok(Self::Client(Box::new(UnbufferedServerConnection::new(config)?)))
    }

    pub(super) fn with_upstream(
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
    ) -> Result<Self, Error> {
        Ok(Self::Upstream(Box::new(UnbufferedClientConnection::new(config, name)?)))
    }

    pub(super) const fn is_with_client(&self) -> bool {
        matches!(self, Self::Client(_))
    }

    /// Version and state of the handshake.
    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Client(tls) => tls.deref().deref().deref(),
            Self::Upstream(tls) => tls.deref().deref().deref(),
        }
    }
}

/// What both kinds have in common, but rustls has no trait for.
pub(super) trait UnbufferedTls {
    type Data;

    fn has_to_write(&self) -> bool;

    fn process_records<'c, 'i>(
        &'c mut self,
        input: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl UnbufferedTls for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn has_to_write(&self) -> bool {
        self.wants_write()
    }

    fn process_records<'c, 'i>(
        &'c mut self,
        input: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}

impl UnbufferedTls for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn has_to_write(&self) -> bool {
        self.wants_write()
    }

    fn process_records<'c, 'i>(
        &'c mut self,
        input: &'i mut [u8],
    ) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(input)
    }
}
