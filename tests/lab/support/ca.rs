//! A certification authority for tests, made by openssl when they run, and the certificates that it issues.
//!
//! [`Authority::new`] has one server certificate beside it, which is all that most tests need. [`Authority::issue`] makes
//! others: by key type, names and validity, with the chain of an [`Authority::intermediate`] in the same file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

/// The key of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    EcdsaP256,
    EcdsaP384,
    Ed25519,
    Rsa2048,
}

/// The time in which a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Validity {
    /// From yesterday on, for this number of days from now.
    Days(i64),
    /// Until yesterday.
    Expired,
    /// From tomorrow on.
    Future,
}

/// A certificate to issue.
#[derive(Clone, Debug)]
pub(crate) struct CertificateRequest<'a> {
    /// The name of its files.
    pub(crate) file: &'a str,
    /// DNS names; the first is the subject's common name too.
    pub(crate) names: &'a [&'a str],
    pub(crate) key: KeyType,
    pub(crate) validity: Validity,
}

/// Files of a certificate, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IssuedCertificate {
    /// The certificate alone.
    pub(crate) certificate: PathBuf,
    /// The certificate, then the intermediate ones up to the root, which is not in it.
    pub(crate) fullchain: PathBuf,
    pub(crate) key: PathBuf,
}

/// Keys and certificates in a folder.
pub(crate) struct Authority {
    folder: PathBuf,
    /// Certificates of this authority and those above it, without the root: what a server sends after its own.
    chain: String,
}

impl Authority {
    /// Makes an authority in `folder`, which exists, and a certificate for `hostname`, with P-256 keys.
    pub(crate) fn new(folder: PathBuf, hostname: &str) -> Self {
        let authority = Self { folder, chain: String::new() };
        authority.make_key("ca.key", KeyType::EcdsaP256);
        authority.openssl("req -x509 -new -days 30 -key ca.key -out ca.pem -subj /CN=gatepost-lab");
        authority.write_database();
        authority.issue(&CertificateRequest {
            file: "server",
            names: &[hostname],
            key: KeyType::EcdsaP256,
            validity: Validity::Days(1),
        });
        authority
    }

    /// Makes an authority below this one, in a new folder inside its folder.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).unwrap();
        let below = Self { folder, chain: String::new() };
        below.make_key("ca.key", KeyType::EcdsaP256);
        below.openssl(&format!("req -new -key ca.key -out ca.csr -subj /CN={name}"));
        let (request, certificate) = (below.path("ca.csr"), below.path("ca.pem"));
        let extensions = "basicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n";
        self.sign(&request, &certificate, extensions, Validity::Days(30));
        below.write_database();
        let own = fs::read_to_string(&certificate).unwrap();
        Self { chain: own + &self.chain, ..below }
    }

    /// Makes a key and its certificate. A second one with the same file name replaces the first in its files.
    pub(crate) fn issue(&self, request: &CertificateRequest<'_>) -> IssuedCertificate {
        let CertificateRequest { file, names, key, validity } = request;
        let issued = IssuedCertificate {
            certificate: self.path(&format!("{file}.pem")),
            fullchain: self.path(&format!("{file}.fullchain.pem")),
            key: self.path(&format!("{file}.key")),
        };
        self.make_key(&format!("{file}.key"), *key);
        let subject = names[0];
        self.openssl(&format!("req -new -key {file}.key -out {file}.csr -subj /CN={subject}"));
        let names: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let extensions = format!("subjectAltName = {}\n", names.join(", "));
        let csr = self.path(&format!("{file}.csr"));
        self.sign(&csr, &issued.certificate, &extensions, *validity);
        let own = fs::read_to_string(&issued.certificate).unwrap();
        fs::write(&issued.fullchain, own + &self.chain).unwrap();
        issued
    }

    /// The authority's own certificate: that of a root is what a client trusts.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    pub(crate) fn server_certificate(&self) -> PathBuf {
        self.path("server.pem")
    }

    pub(crate) fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    fn make_key(&self, file: &str, key: KeyType) {
        let algorithm = match key {
            KeyType::EcdsaP256 => "EC -pkeyopt ec_paramgen_curve:P-256",
            KeyType::EcdsaP384 => "EC -pkeyopt ec_paramgen_curve:P-384",
            KeyType::Ed25519 => "ED25519",
            KeyType::Rsa2048 => "RSA -pkeyopt rsa_keygen_bits:2048",
        };
        self.openssl(&format!("genpkey -algorithm {algorithm} -out {file}"));
    }

    /// Signs by `openssl ca`: `openssl x509` takes no start and end before version 3.4.
    fn sign(&self, request: &Path, certificate: &Path, extensions: &str, validity: Validity) {
        let (start, end) = match validity {
            Validity::Days(days) => (-1, days),
            Validity::Expired => (-30, -1),
            Validity::Future => (1, 30),
        };
        fs::write(self.path("extensions.cnf"), extensions).unwrap();
        let (request, certificate) = (request.to_str().unwrap(), certificate.to_str().unwrap());
        self.openssl(&format!(
            "ca -batch -notext -config ca.cnf -extfile extensions.cnf -startdate {} -enddate {} \
             -in {request} -out {certificate}",
            days_from_now(start),
            days_from_now(end),
        ));
    }

    /// The state of `openssl ca`: its configuration and the list of what it signed.
    fn write_database(&self) {
        fs::write(self.path("index.txt"), "").unwrap();
        let configuration = "[ca]\ndefault_ca = lab\n[lab]\ndatabase = index.txt\n\
            new_certs_dir = .\ncertificate = ca.pem\nprivate_key = ca.key\nrand_serial = yes\n\
            default_md = sha256\nunique_subject = no\npolicy = any\n\
            [any]\ncommonName = supplied\n";
        fs::write(self.path("ca.cnf"), configuration).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Runs openssl in the folder with arguments that are separated by spaces.
    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let output = command.args(arguments.split(' ')).current_dir(&self.folder).output();
        let output = output.expect("openssl (Debian: openssl)");
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// As `openssl ca` reads it: YYYYMMDDHHMMSSZ.
fn days_from_now(days: i64) -> String {
    let distance = Duration::from_secs(days.unsigned_abs() * 24 * 60 * 60);
    let now = SystemTime::now();
    let time = if days < 0 { now - distance } else { now + distance };
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.chars().filter(|c| c.is_ascii_digit()).chain(['Z']).collect()
}
