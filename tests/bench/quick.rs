//! The quick mode of a benchmark: it only checks that the benchmark works.

use anyhow::{Result, bail};

/// True with `-- --quick`, and without the `--bench` that cargo bench passes (cargo test --benches).
///
/// # Errors
/// For an unknown argument.
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
