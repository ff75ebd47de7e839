//! Code reports, sends, receives and records; it does not tell, say or hear.

use std::fs;
use std::path::Path;

const WORDS: [&str; 3] = ["told", "said", "heard"];
/// In code and comments of `src/`, as whole words.
const FEWER_THAN: usize = 60;

fn count(path: &Path) -> usize {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().map(|entry| count(&entry.unwrap().path())).sum();
    }
    let text = String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.split(|c| !is_part(c)).filter(|word| WORDS.contains(word)).count()
}

#[test]
fn code_reports_and_records() {
    let found = count(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(found < FEWER_THAN, "{found} times one of {WORDS:?} in src/");
}
