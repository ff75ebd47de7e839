//! The fuzz targets' bodies over their seed corpus, without cargo-fuzz.
#[path = "../fuzz/bodies/mod.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// Of one seed.
const MAX_CUTS: usize = 500;

fn over_seeds(target: &str, body: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let seeds: Vec<_> =
        fs::read_dir(dir.join(target)).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "no seeds for {target}");
    for seed in seeds {
        let input = fs::read(&seed).unwrap();
        println!("{}", seed.display());
        body(&input);
        // The seeds of `capture` include recordings; most of their prefixes behave alike.
        for cut in (0..input.len()).step_by(1 + input.len() / MAX_CUTS) {
            body(&input[..cut]);
        }
    }
}

#[test]
fn command() {
    over_seeds("command", bodies::command);
}

#[test]
fn path() {
    over_seeds("path", bodies::path);
}

#[test]
fn reply() {
    over_seeds("reply", bodies::reply);
}

#[test]
fn data() {
    over_seeds("data", bodies::data);
}

#[test]
fn engine() {
    over_seeds("engine", bodies::engine);
}

#[test]
fn session() {
    over_seeds("session", bodies::session);
}

#[test]
fn wire() {
    over_seeds("wire", bodies::wire);
}

#[test]
fn file() {
    over_seeds("file", bodies::file);
}

#[test]
fn stream() {
    over_seeds("stream", bodies::stream);
}

#[test]
fn capture() {
    over_seeds("capture", bodies::capture);
}

#[test]
fn dns() {
    over_seeds("dns", bodies::dns);
}

#[test]
fn tls() {
    over_seeds("tls", bodies::tls);
}

#[test]
fn socketmap() {
    over_seeds("socketmap", bodies::socketmap);
}

#[test]
fn mail_log() {
    over_seeds("mail_log", bodies::mail_log);
}

#[test]
fn policy_request() {
    over_seeds("policy_request", bodies::policy_request);
}

#[test]
fn dkim() {
    over_seeds("dkim", bodies::dkim);
}

#[test]
fn canary() {
    over_seeds("canary", bodies::canary);
}
