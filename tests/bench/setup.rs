//! The process of a benchmark: its limits, its folder, and how it ends early.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Two sockets for each of the sessions that the proxies allow, pipes for splicing, and room.
const OPEN_FILES: u64 = 20_000;

/// Set by SIGINT and SIGTERM; the run ends before its next step, and everything is cleaned up on the way out.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Of a run that returns whether it is complete.
pub(crate) fn exit_code(run: Result<bool>) -> ExitCode {
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Sets the limit of open files, for this process and the proxies, which inherit it.
pub(crate) fn raise_open_files() -> Result<()> {
    let found = getrlimit(Resource::Nofile).maximum;
    // None means unlimited.
    let maximum = found.map(|found| found.max(OPEN_FILES));
    setrlimit(Resource::Nofile, Rlimit { current: Some(OPEN_FILES), maximum })
        .with_context(|| format!("open files: {OPEN_FILES} needed, at most {found:?} allowed"))
}

/// `target/bench`, which also keeps the proxies' configurations and logs of the last run.
pub(crate) fn folder() -> Result<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let folder = target.join("bench");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

pub(crate) fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}

pub(crate) fn check_interrupted() -> Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted: the figures above are incomplete");
    Ok(())
}
