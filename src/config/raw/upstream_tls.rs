//! The keys of `[upstream]` about TLS with the MTA.

use std::path::PathBuf;

use super::diagnostics::Diagnostics;
use super::net::hostname;
use super::reader::{Field, Section};
use super::values::{file, one_of};
use crate::engine::UpstreamTls;
use crate::relay::UpstreamTlsSettings;

#[derive(Clone)]
pub(super) struct UpstreamTlsKeys {
    level: Field<UpstreamTls>,
    ca: Field<PathBuf>,
    name: Field<String>,
}

pub(super) fn upstream_tls(section: &mut Section<'_, '_, '_>) -> UpstreamTlsKeys {
    let levels = UpstreamTls::ALL.map(|level| (level.as_str(), level));
    UpstreamTlsKeys {
        level: section.read("tls", one_of(&levels)),
        ca: section.read("tls_ca", file("\"/etc/gatepost/ca.pem\"")),
        name: section.read("tls_name", hostname),
    }
}

impl UpstreamTlsKeys {
    pub(super) fn settings(self) -> UpstreamTlsSettings {
        UpstreamTlsSettings {
            level: self.level.into_option(),
            ca: self.ca.into_option(),
            name: self.name.into_option(),
        }
    }

    /// The byte offset of the first key that is checked.
    pub(super) fn start(&self) -> Option<usize> {
        self.level.start().or(self.ca.start())
    }

    /// Settings that would protect less than they appear to. `path`: the section as messages name it.
    /// `passes_through`: the TLS of clients of a listener with it.
    pub(super) fn check(
        &self,
        path: &str,
        passes_through: bool,
        diagnostics: &mut Diagnostics<'_>,
    ) {
        let Self { level, ca, name } = self;
        let given = level.given().map(|level| *level.get_ref());
        let verifies = given == Some(UpstreamTls::Verify);
        if let (Some(at), Some(given)) = (level.start(), given)
            && given != UpstreamTls::Off
            && passes_through
        {
            let problem = "the TLS of clients passes through to the MTA here, and the gateway uses none of its own";
            let remedy = "remove it, or have the gateway end the clients' TLS in each listener with this upstream \
                          ([tls] with a certificate)";
            diagnostics.error(at, &format!("{path}.tls"), problem, remedy);
        }
        if let (Some(at), true, true) = (level.start(), verifies, name.is_absent()) {
            let problem =
                "\"verify\" needs the name in the MTA's certificate: its addresses are no names";
            let remedy = "add tls_name = \"mx.example.org\"";
            diagnostics.error(at, &format!("{path}.tls"), problem, remedy);
        }
        // With an invalid level it is not known whether it verifies.
        if let Some(at) = ca.start()
            && !verifies
            && !matches!(level, Field::Invalid)
        {
            let problem = "no certificate is verified";
            let remedy = "set tls = \"verify\", or remove it";
            diagnostics.error(at, &format!("{path}.tls_ca"), problem, remedy);
        }
    }
}
