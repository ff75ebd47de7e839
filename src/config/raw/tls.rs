//! `[tls]` and `[[tls.certificate]]`.

use std::path::PathBuf;

use super::diagnostics::Diagnostics;
use super::reader::{Field, Section};
use super::sections::SmtpSection;
use super::values::{boolean, file, one_of};
use crate::engine::TlsMode;
use crate::relay::AfterTlsFailures;
use crate::smtp::Keyword;
use crate::tls::{CertificateFiles, MinVersion, TlsSettings};

/// Who ends the TLS of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Terminate,
    Passthrough,
}

/// What the section configures.
#[derive(Default)]
pub(super) struct TlsSection {
    pub(super) mode: TlsMode,
    pub(super) after_failures: AfterTlsFailures,
    /// With [`TlsMode::Terminate`].
    pub(super) settings: Option<TlsSettings>,
    /// Byte offset of the section.
    at: Option<usize>,
}

pub(super) fn tls(section: &mut Section<'_, '_, '_>) -> TlsSection {
    let certificates = certificates(section);
    let modes = [("terminate", Mode::Terminate), ("passthrough", Mode::Passthrough)];
    let mode = section.read("mode", one_of(&modes));
    let versions = MinVersion::ALL.map(|version| (version.as_str(), version));
    let min_version = section.read("min_version", one_of(&versions));
    let require = section.read("require", boolean);
    let after = AfterTlsFailures::ALL.map(|after| (after.as_str(), after));
    let after_failures = section.read("after_failures", one_of(&after));

    let Some(at) = section.start() else { return TlsSection::default() };
    if mode.effective(Mode::Terminate) == Some(Mode::Passthrough) {
        if let (Some(true), Some(at)) = (require.effective(false), require.start()) {
            let problem =
                "with mode = \"passthrough\" the gateway does not see whether a client uses TLS";
            let remedy = "remove it, and have the mail server require TLS (Postfix: smtpd_tls_security_level = encrypt)";
            section.diagnostics.error(at, "tls.require", problem, remedy);
        }
        if let (Some(AfterTlsFailures::Hide), Some(at)) =
            (after_failures.effective(AfterTlsFailures::Offer), after_failures.start())
        {
            let problem = "with mode = \"passthrough\" the mail server offers STARTTLS, and the gateway ends no handshake";
            section.diagnostics.error(at, "tls.after_failures", problem, "remove it");
        }
        return TlsSection { at: Some(at), ..TlsSection::default() };
    }
    if let (Some(AfterTlsFailures::Hide), Some(true), Some(at)) = (
        after_failures.effective(AfterTlsFailures::Offer),
        require.effective(false),
        after_failures.start(),
    ) {
        let problem = "with `require = true` a client from which STARTTLS is hidden could not send mail at all";
        let remedy = "write \"offer\", or remove `require`";
        section.diagnostics.error(at, "tls.after_failures", problem, remedy);
    }
    if !section.has("certificate") && !section.has("key") {
        section.missing("certificate");
    }
    let min_version = min_version.or_default();
    TlsSection {
        mode: TlsMode::Terminate { required: require.or(false) },
        after_failures: after_failures.or_default(),
        settings: Some(TlsSettings { certificates, min_version }),
        at: Some(at),
    }
}

/// The certificate of `[tls]` itself, or those of `[[tls.certificate]]`.
fn certificates(section: &mut Section<'_, '_, '_>) -> Vec<CertificateFiles> {
    const EXAMPLE: &str = "\"/etc/gatepost/fullchain.pem\"";
    let key = section.read("key", file(EXAMPLE));
    if section.is_list("certificate") {
        if let Some(at) = key.start() {
            let problem = "with [[tls.certificate]] each certificate has a key of its own";
            section.diagnostics.error(at, "tls.key", problem, "move it there");
        }
        let each = section.sections("certificate", |section| {
            let certificate = section.require("file", file(EXAMPLE)).into_option();
            let key = section.require("key", file(EXAMPLE)).into_option();
            pair(certificate, key)
        });
        return each.into_iter().flatten().collect();
    }
    let certificate = section.read("certificate", file(EXAMPLE));
    match (&certificate, &key) {
        (Field::Given(_), Field::Absent) => section.missing("key"),
        (Field::Absent, Field::Given(_)) => section.missing("certificate"),
        _ => {}
    }
    pair(certificate.into_option(), key.into_option()).into_iter().collect()
}

fn pair(certificate: Option<PathBuf>, key: Option<PathBuf>) -> Option<CertificateFiles> {
    Some(CertificateFiles { certificate: certificate?, key: key? })
}

/// STARTTLS cannot be both offered and hidden.
pub(super) fn check(tls: &TlsSection, smtp: &SmtpSection, diagnostics: &mut Diagnostics<'_>) {
    if let Some(at) = tls.at
        && tls.mode.terminates()
        && smtp.options.hide.contains(&Keyword::Starttls)
    {
        let problem = "the gateway offers STARTTLS with this section, and hide in [smtp] hides it";
        diagnostics.error(at, "[tls]", problem, "remove \"STARTTLS\" from hide in [smtp]");
    }
}
