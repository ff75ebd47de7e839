//! What a certificate says of itself: names and validity, which rustls does not give.
//!
//! Base of layer 4: of the gateway's own certificates, and of those that other servers present.

use std::time::UNIX_EPOCH;

use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::time::Timestamp;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateDetails {
    /// Host names (subjectAltName, RFC 5280 §4.2.1.6) in lower case; the first label may be `*`.
    pub names: Vec<String>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
}

impl CertificateDetails {
    /// # Errors
    /// Why `der` is no certificate.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::from_der(der).map_err(|why| why.to_string())?;
        let certificate = certificate.tbs_certificate();
        let names = certificate.get_extension::<SubjectAltName>();
        let names = names.map_err(|why| why.to_string())?.map(|(_, names)| names.0);
        let names = names.into_iter().flatten().filter_map(|name| match name {
            GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
            _ => None,
        });
        let validity = certificate.validity();
        let time = |since_epoch| Timestamp::from_system_time(UNIX_EPOCH + since_epoch);
        Ok(Self {
            names: names.collect(),
            not_before: time(validity.not_before.to_unix_duration()),
            not_after: time(validity.not_after.to_unix_duration()),
        })
    }
}
