//! dkimpy's `dkimsign`, a signer that mail servers use.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::require_program;

pub(crate) struct Signer {
    key: PathBuf,
    public: String,
}

impl Signer {
    /// With a key of its own in `folder`.
    pub(crate) fn new(folder: &Path) -> Self {
        require_program("dkimsign", "python3-dkim");
        let key = folder.join("key.pem");
        let path = key.to_str().unwrap();
        openssl(&["genrsa", "-traditional", "-out", path, "2048"]);
        let public = openssl(&["rsa", "-in", path, "-pubout", "-outform", "PEM"]);
        let public = public.lines().filter(|line| !line.starts_with('-')).collect();
        Self { key, public }
    }

    /// The TXT record's data, in strings of at most 255 octets.
    pub(crate) fn key_record(&self) -> String {
        let record = format!("v=DKIM1; k=rsa; p={}", self.public);
        let (first, second) = record.split_at(200);
        format!("\"{first}\" \"{second}\"")
    }

    pub(crate) fn key_file(&self) -> &Path {
        &self.key
    }

    pub(crate) fn sign(&self, domain: &str, selector: &str, message: &[u8]) -> Vec<u8> {
        // Debian's Python has dkimpy; another may come first in the path.
        let mut signer = Command::new("/usr/bin/python3")
            .arg("/usr/bin/dkimsign")
            .args([selector, domain, self.key.to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        signer.stdin.take().unwrap().write_all(message).unwrap();
        let output = signer.wait_with_output().unwrap();
        assert!(output.status.success(), "dkimsign: {}", output.status);
        output.stdout
    }
}

fn openssl(words: &[&str]) -> String {
    let output = Command::new("openssl").args(words).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
