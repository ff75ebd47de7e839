use std::path::Path;

use super::*;

fn files(certificate: &str, key: &str) -> CertificateFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
    CertificateFiles { certificate: folder.join(certificate), key: folder.join(key) }
}

fn load(certificates: Vec<CertificateFiles>) -> Result<LoadedTls, String> {
    let settings = TlsSettings {
        certificates,
        min_version: MinVersion::Tls12,
        client_certificate: ClientCertificateMode::Off,
        client_ca: None,
    };
    let loaded = LoadedTls::load(&settings, &TicketKeys::new().unwrap());
    let folder = format!("{}/", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").display());
    loaded.map_err(|error| error.to_string().replace(&folder, ""))
}

#[test]
fn names_and_expiry_are_read() {
    let both = vec![files("ecdsa.pem", "ecdsa.key"), files("rsa.pem", "rsa.key")];
    let loaded = load(both).unwrap();
    for certificate in &loaded.certificates {
        assert_eq!(certificate.names, ["mx.example.org", "*.mail.example.org"]);
        assert!(
            certificate.not_after.to_string().starts_with("2126-"),
            "{}",
            certificate.not_after
        );
    }
    assert!(loaded.expired(Timestamp::default()).is_none());
    assert!(loaded.expired(Timestamp::from_nanos(u64::MAX)).is_some());
}

/// Each error names the file, and what to do; none contains anything of a key.
#[test]
fn what_does_not_fit_is_an_error() {
    for (certificate, key, expected) in [
        ("none.pem", "rsa.key", "cannot read none.pem: No such file or directory (os error 2)"),
        (
            "rsa.key",
            "rsa.key",
            "rsa.key holds no certificate: expected PEM with `-----BEGIN CERTIFICATE-----`",
        ),
        (
            "rsa.pem",
            "rsa.pem",
            "rsa.pem holds no private key: expected PEM with `-----BEGIN PRIVATE KEY-----`, not encrypted by a passphrase",
        ),
        (
            "rsa.pem",
            "ecdsa.key",
            "the key in ecdsa.key is not that of the certificate in rsa.pem: a renewal may have replaced only one of them",
        ),
        (
            "other.pem",
            "ecdsa.key",
            "the key in ecdsa.key is not that of the certificate in other.pem: a renewal may have replaced only one of them",
        ),
    ] {
        assert_eq!(load(vec![files(certificate, key)]).unwrap_err(), expected);
    }
}
