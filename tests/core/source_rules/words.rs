//! Code reports, sends, receives and records; it does not tell, say or hear.

use std::fs;
use std::path::Path;

const WORDS: [&str; 3] = ["told", "said", "heard"];
/// Folders, each with a limit for the count of these words, as whole words in code and comments.
const FEWER_THAN: [(&str, usize); 2] = [("src", 60), ("tests", 10)];
/// `cargo fuzz` builds in `tests/fuzz/target`.
const SKIPPED: &str = "target";
/// Postfix's own word in its log: `host mx.example[192.0.2.1] said: …`.
const OF_POSTFIX: &str = "said:";
const RECORDED_LOG: &str = "log";

fn count(path: &Path) -> usize {
    if path.ends_with(SKIPPED) || path.extension().is_some_and(|kind| kind == RECORDED_LOG) {
        return 0;
    }
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| count(&entry.unwrap().path())).sum();
    }
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).replace(OF_POSTFIX, "");
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| WORDS.contains(word)).count()
}

#[test]
fn code_reports_and_records() {
    for (folder, limit) in FEWER_THAN {
        let found = count(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
        assert!(found < limit, "{found} times one of {WORDS:?} in {folder}/");
    }
}
