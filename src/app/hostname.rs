//! The name of this host, for commands without a configuration.

use anyhow::Context as _;

/// `option` is the command-line option that overrides it.
pub(super) fn hostname(option: &str) -> anyhow::Result<String> {
    let name = nix::unistd::gethostname()
        .with_context(|| format!("cannot read this host's name; set it with {option}"))?;
    Ok(name.to_string_lossy().into_owned())
}
