//! Runs the tests of this binary: in parallel, then alone those that measure time, rate or memory.
//!
//! libtest decides at compile time which tests are ignored. Here a test is ignored, with its reason, when it calls
//! [`cannot_run`](crate::support::cannot_run): without root, a program, a capture or a kernel feature that it needs.

use std::any::Any;
use std::process::ExitCode;
use std::thread;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::support::CannotRun;

/// The tests wait for timers and other processes more than they compute.
const THREADS_PER_CORE: usize = 2;

/// One test: see [`tests`].
#[derive(Clone, Copy)]
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) run: fn(),
    pub(crate) schedule: Schedule,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Schedule {
    /// Beside other tests.
    Parallel,
    /// After all others, with no other test beside it.
    Alone,
    /// On request only (`--ignored`): it writes files of the repository.
    OnRequest,
}

/// Declares `TESTS`, the tests of a module. The compiler reports a function that is missing here as unused.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => { $crate::harness::tests! { Parallel: $($name),+ } };
    ($($schedule:ident: $($name:ident),+);+ $(;)?) => {
        pub(crate) const TESTS: &[$crate::harness::Test] = &[$($($crate::harness::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
            schedule: $crate::harness::Schedule::$schedule,
        }),+),+];
    };
}
pub(crate) use tests;

/// The exit status is 0 if no test failed.
pub(crate) fn run(modules: &[&[Test]]) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads.get_or_insert(cores * THREADS_PER_CORE);
    let (alone, parallel): (Vec<Test>, Vec<Test>) =
        modules.iter().copied().flatten().partition(|test| test.schedule == Schedule::Alone);
    let mut failed = libtest_mimic::run(&arguments, trials(&parallel)).has_failed();
    arguments.test_threads = Some(1);
    failed |= libtest_mimic::run(&arguments, trials(&alone)).has_failed();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn trials(tests: &[Test]) -> Vec<Trial> {
    let trial = |test: &Test| {
        // Without the name of the binary, as libtest prints it.
        let name = test.name.split_once("::").map_or(test.name, |(_, name)| name);
        let Test { run, schedule, .. } = *test;
        Trial::ignorable_test(name, move || in_thread(name, run))
            .with_ignored_flag(schedule == Schedule::OnRequest)
    };
    tests.iter().map(trial).collect()
}

/// A thread of the test's own: its panic message has the test's name, and a namespace or user ID that it takes ends with it.
fn in_thread(name: &str, run: fn()) -> Result<Completion, Failed> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
    match thread.join() {
        Ok(()) => Ok(Completion::Completed),
        Err(panic) => match panic.downcast_ref::<CannotRun>() {
            Some(CannotRun(reason)) => Ok(Completion::ignored_with(reason)),
            None => Err(message(&*panic).into()),
        },
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("panicked")
}
