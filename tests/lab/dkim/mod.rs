//! The DKIM verifier against dkimpy and Mail::DKIM, over messages that `messages.py` generates, signs and changes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::harness::tests;
use crate::support::{cannot_run, require_program};
use gatepost::dkim::{DkimLimits, DkimOutcome, MessageVerifier, SignatureCheck, SignedMessage};

tests![other_verifiers_accept_the_same_signatures,];

/// Debian's; others on the path do not find its modules.
const PYTHON: &str = "/usr/bin/python3";
/// One of them has 50 MB.
const MESSAGES: &str = "600";
const SEED: &str = "6376";
/// Seconds of Unix time; as in `messages.py`.
const NOW: u64 = 1_700_000_000;

/// A line of `results.jsonl`.
#[derive(Deserialize)]
struct DkimpyResult {
    file: String,
    /// How the message was changed, and its signatures.
    about: String,
    /// Of each signature, from the top.
    passes: Vec<bool>,
}

/// Removed with the messages at the end of the test.
struct MessageFolder(PathBuf);

impl MessageFolder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("gatepost-dkim-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.0.join(file)).unwrap()
    }
}

impl Drop for MessageFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn other_verifiers_accept_the_same_signatures() {
    require_program("openssl", "openssl");
    require_module(PYTHON, &["-c", "import dkim, nacl"], "python3-dkim and python3-nacl");
    require_module("perl", &["-MMail::DKIM::Verifier", "-e", "1"], "libmail-dkim-perl");
    let folder = MessageFolder::new();
    run(Command::new(PYTHON).arg(script("messages.py")).arg(&folder.0).args([MESSAGES, SEED]));
    let of_mail_dkim = run(Command::new("perl").arg(script("mail_dkim.pl")).arg(&folder.0));

    let keys = serde_json::from_slice(&folder.read("keys.json")).unwrap();
    let results = String::from_utf8(folder.read("results.jsonl")).unwrap();
    let mut differences = Vec::new();
    let mut counts: BTreeMap<(String, bool), usize> = BTreeMap::new();
    let mut compared_with_mail_dkim = [0, 0];
    for (number, (line, of_mail_dkim)) in results.lines().zip(of_mail_dkim.lines()).enumerate() {
        let of_dkimpy: DkimpyResult = serde_json::from_str(line).unwrap();
        let mut of_mail_dkim = of_mail_dkim.split(' ');
        let file = of_mail_dkim.next().unwrap();
        let about = format!("{} {}", of_dkimpy.file, of_dkimpy.about);
        assert_eq!(file, of_dkimpy.file);
        let bytes = folder.read(file);
        let message = read(&bytes, number);
        let passes = |one| passes(one, &keys);
        let covered = |one| passes(one) && SignatureCheck::covers_every_from(one);
        let ours: Vec<bool> = message.signatures.iter().map(covered).collect();
        if ours != of_dkimpy.passes {
            differences.push(format!("{about}: {ours:?}, dkimpy {:?}", of_dkimpy.passes));
        }
        if has_crlf_only(&bytes) {
            assert_eq!(of_mail_dkim.clone().count(), message.signatures.len(), "{about}");
            for (one, theirs) in message.signatures.iter().zip(of_mail_dkim) {
                let ours = passes(one);
                if is_known_to_mail_dkim(one) {
                    compared_with_mail_dkim[usize::from(ours)] += 1;
                    if ours != (theirs == "1") {
                        differences.push(format!("{about}: {ours}, Mail::DKIM {theirs}"));
                    }
                }
            }
        }
        let change = of_dkimpy.about.split(':').next().unwrap().to_owned();
        for passes in of_dkimpy.passes {
            *counts.entry((change.clone(), passes)).or_default() += 1;
        }
    }
    println!("{counts:#?}\nMail::DKIM: {compared_with_mail_dkim:?}");
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(results.lines().count().to_string(), MESSAGES);
    // Of most changes some signatures pass and some do not.
    let with = |result| counts.keys().filter(|(_, passes)| *passes == result).count();
    assert!(with(true) > 15 && with(false) > 15, "{counts:#?}");
    assert!(compared_with_mail_dkim.iter().all(|count| *count > 50), "{compared_with_mail_dkim:?}");
}

/// Mail::DKIM reads no other lines, and ignores a last line without CRLF.
fn has_crlf_only(message: &[u8]) -> bool {
    message.split_inclusive(|byte| *byte == b'\n').all(|line| line.ends_with(b"\r\n"))
}

/// That of Debian 12 has no Ed25519 and no bare RSAPublicKey, accepts short keys, and takes `l=0` for no limit.
fn is_known_to_mail_dkim(signature: &SignatureCheck) -> bool {
    let limit = signature.signature().ok().and_then(|tags| tags.body_limit);
    matches!(signature.selector(), Some("rsa1024" | "rsa2048")) && limit != Some(0)
}

fn require_module(program: &str, arguments: &[&str], packages: &str) {
    require_program(program, program);
    if !Command::new(program).args(arguments).output().unwrap().status.success() {
        cannot_run(format_args!("needs Debian's {packages}"));
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/dkim").join(name)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// In chunks, whose size depends on the message.
fn read(message: &[u8], number: usize) -> SignedMessage {
    let mut verifier = MessageVerifier::new(DkimLimits::default());
    let size = if message.len() > 1_000_000 { 16_384 } else { 1 + number % 97 };
    message.chunks(size).for_each(|chunk| verifier.write(chunk));
    verifier.finish().unwrap()
}

/// dkimpy also wants [`SignatureCheck::covers_every_from`].
fn passes(signature: &SignatureCheck, keys: &BTreeMap<String, String>) -> bool {
    let key = signature.key_name().and_then(|name| keys.get(&name));
    let records: Vec<Vec<u8>> = key.map(|text| text.clone().into_bytes()).into_iter().collect();
    signature.verify(&records, NOW).outcome == DkimOutcome::Pass
}
