//! What a test needs of the machine. A test that lacks it is ignored with the reason; see `harness`.

use std::cell::Cell;
use std::fmt::Display;
use std::panic::resume_unwind;
use std::process::{Command, Stdio};
use std::thread;

/// The panic of a test that cannot run here, with the reason.
pub(crate) struct CannotRun(pub(crate) String);

thread_local! {
    static IS_LEAVING: Cell<bool> = const { Cell::new(false) };
}

/// Ends the test; it counts as ignored.
pub(crate) fn cannot_run(reason: impl Display) -> ! {
    IS_LEAVING.set(true);
    // Without the panic hook, which would print a message and a backtrace.
    resume_unwind(Box::new(CannotRun(reason.to_string())))
}

/// Whether the current thread unwinds because of a failed assertion.
pub(super) fn is_failing() -> bool {
    thread::panicking() && !IS_LEAVING.get()
}

pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

pub(crate) fn require_root() {
    if !is_root() {
        cannot_run("needs root, for network namespaces");
    }
}

/// `package` is Debian's, which `make test` installs.
pub(crate) fn require_program(program: &str, package: &str) {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if command.status().is_err() {
        cannot_run(format_args!("needs {program} (Debian package {package})"));
    }
}
