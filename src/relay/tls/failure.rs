//! Why TLS failed: the class for metrics, the text for the log.

use rustls::{AlertDescription, Error, InvalidMessage, PeerIncompatible};

use crate::engine::{TlsFailure, TlsHandshake, UpstreamTlsFailure, UpstreamTlsResult};

/// The class of an error of TLS with a client, and its text.
pub(in crate::relay) fn failure(error: &Error) -> TlsFailure {
    let result = match error {
        Error::AlertReceived(AlertDescription::ProtocolVersion) => TlsHandshake::NoCommonVersion,
        Error::AlertReceived(_) => TlsHandshake::ClientAlert,
        Error::PeerIncompatible(
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired
            // Every hello of TLS 1.2 has it.
            | PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => TlsHandshake::NoCommonVersion,
        Error::PeerIncompatible(_) => TlsHandshake::NoCommonAlgorithm,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => TlsHandshake::NotTls,
        Error::General(_) | Error::FailedToGetRandomBytes | Error::EncryptError => {
            TlsHandshake::Internal
        }
        _ => TlsHandshake::Protocol,
    };
    TlsFailure { result, reason: error.to_string() }
}

/// The same for TLS with an upstream.
pub(in crate::relay) fn upstream_failure(error: &Error) -> UpstreamTlsFailure {
    let result = match error {
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => {
            UpstreamTlsResult::Certificate
        }
        Error::AlertReceived(AlertDescription::ProtocolVersion)
        | Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => UpstreamTlsResult::NoCommonVersion,
        Error::AlertReceived(_) => UpstreamTlsResult::Alert,
        Error::PeerIncompatible(_) => UpstreamTlsResult::NoCommonAlgorithm,
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => UpstreamTlsResult::NotTls,
        Error::General(_) | Error::FailedToGetRandomBytes | Error::EncryptError => {
            UpstreamTlsResult::Internal
        }
        _ => UpstreamTlsResult::Protocol,
    };
    UpstreamTlsFailure { result, reason: format!("TLS with the mail server: {error}") }
}
