//! `[tls]` and `[[tls.certificate]]`.

use std::path::PathBuf;

use super::diagnostics::Diagnostics;
use super::listeners::ListenerSection;
use super::policy::PolicySection;
use super::reader::{Field, Section};
use super::sections::SmtpSection;
use super::values::{boolean, file, one_of};
use crate::engine::TlsMode;
use crate::relay::{AfterTlsFailures, ListenerTls};
use crate::smtp::{Keyword, SUBMISSIONS};
use crate::tls::{CertificateFiles, ClientCertificateMode, MinVersion, TlsSettings};

const SMTP: u16 = 25;

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
    pub(super) trace_header: bool,
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

    let modes = ClientCertificateMode::ALL.map(|mode| (mode.as_str(), mode));
    let client_certificate = section.read("client_certificate", one_of(&modes));
    let client_ca = section.read("client_ca", file("\"/etc/gatepost/clients-ca.pem\""));

    let trace_header = section.read("trace_header", boolean);

    let Some(at) = section.start() else { return TlsSection::default() };
    if mode.effective(Mode::Terminate) == Some(Mode::Passthrough) {
        let asks = client_certificate.effective(ClientCertificateMode::Off);
        let hides = after_failures.effective(AfterTlsFailures::Offer);
        for (is_set, at, key, problem, remedy) in [
            (
                require.effective(false) == Some(true),
                require.start(),
                "tls.require",
                "the gateway does not see whether a client uses TLS",
                "remove it, and have the mail server require TLS (Postfix: smtpd_tls_security_level = encrypt)",
            ),
            (
                hides == Some(AfterTlsFailures::Hide),
                after_failures.start(),
                "tls.after_failures",
                "the mail server offers STARTTLS, and the gateway ends no handshake",
                "remove it",
            ),
            (
                asks == Some(ClientCertificateMode::Request),
                client_certificate.start(),
                "tls.client_certificate",
                "the mail server ends TLS",
                "remove it, and have the mail server request certificates (Postfix: smtpd_tls_ask_ccert)",
            ),
            (
                trace_header.effective(false) == Some(true),
                trace_header.start(),
                "tls.trace_header",
                "the gateway does not see messages under TLS",
                "remove it",
            ),
        ] {
            if let (true, Some(at)) = (is_set, at) {
                let problem = format!("with mode = \"passthrough\" {problem}");
                section.diagnostics.error(at, key, problem, remedy);
            }
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
    if let (Some(ClientCertificateMode::Off), Some(at)) =
        (client_certificate.effective(ClientCertificateMode::Off), client_ca.start())
    {
        let problem = "clients are not asked for a certificate";
        let remedy = "set client_certificate = \"request\", or remove it";
        section.diagnostics.error(at, "tls.client_ca", problem, remedy);
    }
    let min_version = min_version.or_default();
    let client_certificate = client_certificate.or_default();
    let client_ca = client_ca.into_option();
    TlsSection {
        mode: TlsMode::Terminate { required: require.or(false) },
        after_failures: after_failures.or_default(),
        trace_header: trace_header.or(false),
        settings: Some(TlsSettings { certificates, min_version, client_certificate, client_ca }),
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

/// What `[tls]` and the listeners demand of each other, and what a listener's port does of its TLS.
pub(super) fn check(
    tls: &TlsSection,
    listeners: &[ListenerSection],
    smtp: &SmtpSection,
    diagnostics: &mut Diagnostics<'_>,
) {
    if diagnostics.has("tls.mode") {
        return;
    }
    if !tls.mode.terminates() {
        certificate_is_there(listeners, diagnostics);
    } else if let Some(at) = tls.at {
        is_used(at, tls.mode, listeners, smtp, diagnostics);
    }
    for listener in listeners {
        fits_ports(listener, tls.mode, diagnostics);
        upstream_has_starttls(listener, tls.mode, diagnostics);
    }
}

/// Listeners whose TLS the gateway ends need its certificate.
fn certificate_is_there(listeners: &[ListenerSection], diagnostics: &mut Diagnostics<'_>) {
    for listener in listeners {
        let Some(given) = listener.tls.given() else { continue };
        if let ListenerTls::Starttls | ListenerTls::Implicit = given.get_ref() {
            let problem =
                format!("tls = \"{}\" needs the gateway's own certificate", given.get_ref());
            let remedy = "add [tls] with certificate and key, without mode = \"passthrough\"";
            diagnostics.error(given.span().start, &listener.field("tls"), problem, remedy);
        }
    }
}

/// STARTTLS cannot be both offered and hidden; and a certificate that no client is shown is a mistake.
fn is_used(
    at: usize,
    mode: TlsMode,
    listeners: &[ListenerSection],
    smtp: &SmtpSection,
    diagnostics: &mut Diagnostics<'_>,
) {
    let has = |tls| listeners.iter().any(|listener| listener.tls(mode) == tls);
    if has(ListenerTls::Starttls) && smtp.options.hide.contains(&Keyword::Starttls) {
        let problem = "the gateway offers STARTTLS with this section, and hide in [smtp] hides it";
        diagnostics.error(at, "[tls]", problem, "remove \"STARTTLS\" from hide in [smtp]");
    }
    if !has(ListenerTls::Starttls) && !has(ListenerTls::Implicit) {
        let problem = "no listener uses the certificate";
        let remedy = "set tls = \"starttls\" or \"implicit\" in one, or remove the section";
        diagnostics.error(at, "[tls]", problem, remedy);
    }
}

/// Clients of port 465 begin with TLS (RFC 8314 §3.3), those of port 25 never do. Without TLS at all, somebody before the
/// gateway may end it.
fn fits_ports(listener: &ListenerSection, mode: TlsMode, diagnostics: &mut Diagnostics<'_>) {
    for address in listener.addresses.items() {
        let (port, at) = (address.get_ref().port(), address.span().start);
        let (problem, remedy) = match (port, listener.tls(mode)) {
            (SUBMISSIONS, tls @ (ListenerTls::Starttls | ListenerTls::Passthrough)) => (
                format!("clients of port {port} begin with TLS, those of tls = \"{tls}\" do not"),
                "set tls = \"implicit\" for this port, in a listener of its own if need be",
            ),
            (SMTP, tls @ ListenerTls::Implicit) => (
                format!(
                    "clients of port {port} do not begin with TLS, those of tls = \"{tls}\" do"
                ),
                "give tls = \"implicit\" to a listener of its own, on port 465",
            ),
            _ => continue,
        };
        diagnostics.error(at, &listener.field("addresses"), problem, remedy);
    }
}

/// The gateway's own TLS with the MTA begins with STARTTLS, so that no port of implicit TLS can be its upstream.
fn upstream_has_starttls(
    listener: &ListenerSection,
    mode: TlsMode,
    diagnostics: &mut Diagnostics<'_>,
) {
    let upstream = &listener.upstream;
    for address in
        upstream.addresses.items().filter(|one| one.get_ref().port() == Some(SUBMISSIONS))
    {
        let problem =
            "port 465 of the MTA waits for TLS, which the gateway begins with it by STARTTLS only";
        let remedy = "write the MTA's port 587 or 25";
        let field = format!("{}.addresses", upstream.path);
        diagnostics.error(address.span().start, &field, problem, remedy);
    }
    let is_implicit = listener.tls(mode) == ListenerTls::Implicit;
    if let (true, Some(at)) = (is_implicit && upstream.addresses.is_absent(), listener.tls.start())
    {
        let problem = "without addresses in [upstream] mail goes to the port that the client connected to, 465, where the MTA \
                       waits for TLS: the gateway begins it by STARTTLS only";
        let remedy = "add addresses in [upstream] with the MTA's port 587 or 25";
        diagnostics.error(at, &listener.field("tls"), problem, remedy);
    }
}

/// Rules about clients' certificates need these.
pub(super) fn check_rules(
    tls: &TlsSection,
    policies: &[PolicySection],
    diagnostics: &mut Diagnostics<'_>,
) {
    let settings = tls.settings.as_ref();
    let is_requested = settings
        .is_some_and(|settings| settings.client_certificate == ClientCertificateMode::Request);
    let has_authorities = settings.is_some_and(|settings| settings.client_ca.is_some());
    for policy in policies {
        let (Some(rule), Some(at)) = (&policy.rule, policy.client_certificate) else { continue };
        let condition = &rule.when.client_certificate;
        let field = "policy.when.client_certificate";
        if !is_requested {
            let problem = "clients are not asked for a certificate";
            let remedy = "set client_certificate = \"request\" in [tls]";
            diagnostics.error(at, field, problem, remedy);
        } else if !has_authorities && !condition.names.is_empty() {
            let problem = "a client can put any name into a certificate of its own";
            let remedy = "set client_ca in [tls] to the authorities that vouch for names, or write a fingerprint (\"sha256:…\")";
            diagnostics.error(at, field, problem, remedy);
        }
    }
}
