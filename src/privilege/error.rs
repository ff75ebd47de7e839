//! Errors.

use rustix::io::Errno;

/// Why the process cannot switch its user or drop capabilities.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    #[error("cannot {what}: {why}; are capabilities and prctl(2) allowed for this service?")]
    Capabilities { what: &'static str, why: Errno },
    #[error(
        "the user \"{name}\" does not exist on this host: `adduser --system --group {name}` creates it"
    )]
    NoUser { name: String },
    #[error("cannot look up the user \"{name}\": {why}")]
    Lookup { name: String, why: nix::Error },
    #[error("only root can switch to the user \"{name}\"; this process runs as uid {uid}")]
    NotRoot { name: String, uid: u32 },
    #[error("cannot switch to the user \"{name}\": {why}")]
    Become { name: String, why: nix::Error },
    #[error("cannot join the group \"{name}\": {why}")]
    Join { name: String, why: nix::Error },
    #[error("cannot create {path} for the user \"{name}\": {why}")]
    Directory { path: String, name: String, why: std::io::Error },
}

/// Maps the error of an action.
pub(super) fn denied(what: &'static str) -> impl Fn(Errno) -> PrivilegeError {
    move |why| PrivilegeError::Capabilities { what, why }
}
