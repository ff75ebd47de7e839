//! Whether a benchmark only checks that it works.

use anyhow::{Result, bail};

/// `-- --quick` asks for that; and cargo bench passes `--bench`, without which (cargo test --benches) nothing else is meant.
///
/// # Errors
/// There is an argument that no benchmark has.
pub(crate) fn is_quick() -> Result<bool> {
    let mut quick = !std::env::args().any(|argument| argument == "--bench");
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => quick = true,
            other => bail!("unknown argument {other}: there is --quick"),
        }
    }
    Ok(quick)
}
