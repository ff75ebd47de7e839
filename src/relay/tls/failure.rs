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
    TlsFailure { result, reason: error.to_string(), is_of_old_client: is_of_old_client(error) }
}

/// Whether the client can do nothing that the gateway can: it has no version or algorithm in common, or cannot read what the
/// gateway sends. Not a client that verifies the certificate and rejects it (it has a reason to use TLS, and the fault may be the
/// operator's), nor what breaks off, or is no TLS at all: scanners do that.
fn is_of_old_client(error: &Error) -> bool {
    use AlertDescription::{
        DecodeError, DecryptError, HandshakeFailure, IllegalParameter, InsufficientSecurity,
        ProtocolVersion, UnexpectedMessage, UnsupportedCertificate, UnsupportedExtension,
    };
    match error {
        Error::PeerIncompatible(_) => true,
        Error::AlertReceived(alert) => matches!(
            alert,
            DecodeError
                | DecryptError
                | HandshakeFailure
                | IllegalParameter
                | InsufficientSecurity
                | ProtocolVersion
                | UnexpectedMessage
                | UnsupportedCertificate
                | UnsupportedExtension
        ),
        _ => false,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_software_differs_from_a_client_that_rejects_the_certificate() {
        use AlertDescription::{
            BadCertificate, CertificateExpired, CertificateUnknown, HandshakeFailure,
            InsufficientSecurity, ProtocolVersion, UnknownCA, UserCanceled,
        };
        for old in [HandshakeFailure, InsufficientSecurity, ProtocolVersion] {
            assert!(failure(&Error::AlertReceived(old)).is_of_old_client, "{old:?}");
        }
        for other in
            [BadCertificate, CertificateExpired, CertificateUnknown, UnknownCA, UserCanceled]
        {
            assert!(!failure(&Error::AlertReceived(other)).is_of_old_client, "{other:?}");
        }
        for incompatible in
            [PeerIncompatible::Tls12NotOffered, PeerIncompatible::NoCipherSuitesInCommon]
        {
            assert!(failure(&incompatible.into()).is_of_old_client);
        }
        assert!(!failure(&InvalidMessage::InvalidContentType.into()).is_of_old_client);
    }
}
