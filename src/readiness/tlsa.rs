//! The comparison of a server's certificates with TLSA records.
//!
//! RFC 6698 §2.1, RFC 7671 §5.1 (DANE-EE: neither names nor dates count) and §5.2 (DANE-TA).

use std::time::Duration;

use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use sha2::{Digest as _, Sha256, Sha512};
use x509_cert::Certificate;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::spki::SubjectPublicKeyInfoOwned;

use super::survey::ServerTls;
use super::validated::TlsaRecord;
use crate::policy::facts::DomainName;

const DANE_TA: u8 = 2;
const DANE_EE: u8 = 3;

/// Why no record authenticates a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// The certificates match none of them.
    NoRecord,
    /// An authority matches; why the server's certificate is not one of it.
    Path(String),
    /// An authority matches, but none of the names.
    Name,
}

/// Whether senders of mail can use it: RFC 7672 §3.1.
pub(super) fn is_usable(record: &TlsaRecord) -> bool {
    let data = record.data.as_slice();
    let is_whole = match (record.selector, record.matching) {
        (0, 0) => Certificate::from_der(data).is_ok(),
        (1, 0) => SubjectPublicKeyInfoOwned::from_der(data).is_ok(),
        (0 | 1, 1) => data.len() == 32,
        (0 | 1, 2) => data.len() == 64,
        _ => false,
    };
    is_whole && matches!(record.usage, DANE_TA | DANE_EE)
}

/// The record 3 1 1 of a server's certificate.
pub(super) fn record_of(facts: &ServerTls) -> Option<TlsaRecord> {
    let data = Sha256::digest(public_key(facts.chain.first()?)?).to_vec();
    Some(TlsaRecord { usage: DANE_EE, selector: 1, matching: 1, data })
}

/// Returns the first of the usable `records` that authenticates the server, for which one of `names` counts.
pub(super) fn authenticate<'a>(
    records: &[&'a TlsaRecord],
    facts: &ServerTls,
    names: &[&DomainName],
) -> Result<&'a TlsaRecord, Mismatch> {
    let Some((own, others)) = facts.chain.split_first() else { return Err(Mismatch::NoRecord) };
    let mut mismatch = Mismatch::NoRecord;
    for record in records.iter().copied() {
        if record.usage == DANE_EE {
            if matches(record, own) {
                return Ok(record);
            }
            continue;
        }
        let sent = others.iter().find(|certificate| matches(record, certificate));
        // A whole certificate in the record need not be sent.
        let is_certificate = (record.selector, record.matching) == (0, 0);
        let Some(anchor) = sent.or(is_certificate.then_some(&record.data)) else { continue };
        match verify(anchor, facts, names) {
            Ok(()) => return Ok(record),
            Err(why) => mismatch = why,
        }
    }
    Err(mismatch)
}

fn matches(record: &TlsaRecord, certificate: &[u8]) -> bool {
    let selected = match record.selector {
        0 => Some(certificate.to_vec()),
        _ => public_key(certificate),
    };
    selected.is_some_and(|selected| match record.matching {
        0 => selected == record.data,
        1 => Sha256::digest(&selected).as_slice() == record.data,
        _ => Sha512::digest(&selected).as_slice() == record.data,
    })
}

/// SubjectPublicKeyInfo in DER.
fn public_key(certificate: &[u8]) -> Option<Vec<u8>> {
    let certificate = Certificate::from_der(certificate).ok()?;
    certificate.tbs_certificate().subject_public_key_info().to_der().ok()
}

/// The path from the server's certificate to `anchor`, and its names.
fn verify(anchor: &[u8], facts: &ServerTls, names: &[&DomainName]) -> Result<(), Mismatch> {
    let path = |why: Error| {
        Mismatch::Path(match why {
            Error::InvalidCertificate(
                CertificateError::Expired | CertificateError::ExpiredContext { .. },
            ) => "expired".to_owned(),
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
                "it is of another authority, or its chain is not sent".to_owned()
            }
            why => why.to_string(),
        })
    };
    let mut anchors = RootCertStore::empty();
    anchors.add(CertificateDer::from(anchor)).map_err(path)?;
    let mut chain = facts.chain.iter().map(|der| CertificateDer::from(der.as_slice()));
    let Some(own) = chain.next() else { return Err(Mismatch::NoRecord) };
    let others: Vec<CertificateDer<'_>> = chain.collect();
    let own = ParsedCertificate::try_from(&own).map_err(path)?;
    let now = UnixTime::since_unix_epoch(Duration::from_nanos(facts.at.as_nanos()));
    let algorithms = default_provider().signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&own, &anchors, &others, now, algorithms)
        .map_err(path)?;
    let is_for = |name: &&DomainName| {
        let name = ServerName::try_from(name.to_string());
        name.is_ok_and(|name| verify_server_name(&own, &name).is_ok())
    };
    if names.iter().any(is_for) { Ok(()) } else { Err(Mismatch::Name) }
}
