//! A certification authority for the lab, made by openssl, and the certificate of its one server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Keys and certificates in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Makes an authority and a certificate for `hostname`, both good for a day.
    pub(crate) fn new(folder: PathBuf, hostname: &str) -> Self {
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let authority = Self { folder };
        let san = authority.path("server.ext");
        fs::write(&san, format!("subjectAltName = DNS:{hostname}\n")).unwrap();

        authority.openssl(
            ["req", "-x509", "-days", "1", "-subj", "/CN=gatepost lab"]
                .into_iter()
                .chain(new_key)
                .chain(["-keyout", "ca.key", "-out", "ca.pem"]),
        );
        authority.openssl(
            ["req", "-subj", &format!("/CN={hostname}")].into_iter().chain(new_key).chain([
                "-keyout",
                "server.key",
                "-out",
                "server.csr",
            ]),
        );
        authority.openssl(
            "x509 -req -days 1 -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
             -extfile server.ext -out server.pem"
                .split_whitespace(),
        );
        authority
    }

    /// The authority's own certificate: what a client trusts.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn server_certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    pub(crate) fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(&self.folder).join(name)
    }

    fn openssl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments).current_dir(&self.folder).output();
        let output = output.expect("openssl (Debian: openssl)");
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
