//! The order of a benchmark: the paths take turns within each measure, so that other load affects all of them.

use anyhow::Result;

use crate::proxies::{Peer, Proxy};
use crate::report;
use crate::results::{Figures, Results};
use crate::setup::check_interrupted;

/// Measures every path in turn, round by round. A path that fails is left out of this measure's later rounds.
///
/// # Errors
/// An interruption; a failure of `work` is recorded.
pub(crate) fn rounds(
    results: &mut Results,
    count: u32,
    measure: &'static str,
    proxies: &mut [Proxy],
    mut work: impl FnMut(&Proxy) -> Result<Figures>,
) -> Result<()> {
    for round in 1..=count {
        println!("{measure}: round {round} of {count}");
        for proxy in &mut *proxies {
            check_interrupted()?;
            if results.failed(measure, proxy.peer) {
                continue;
            }
            let load = report::load();
            match proxy.check_alive().and_then(|()| work(proxy)) {
                Ok(figures) => results.add(measure, proxy.peer, round, load, figures),
                Err(error) => results.fail(measure, proxy.peer, &error),
            }
        }
    }
    Ok(())
}

/// As [`rounds`], for a measure that starts a proxy of its own each time; not for the direct path.
///
/// # Errors
/// An interruption; a failure of `work` is recorded.
pub(crate) fn rounds_of_new_proxies(
    results: &mut Results,
    count: u32,
    measure: &'static str,
    peers: &[Peer],
    mut work: impl FnMut(Peer) -> Result<Figures>,
) -> Result<()> {
    for round in 1..=count {
        println!("{measure}: round {round} of {count}");
        for &peer in peers.iter().filter(|peer| **peer != Peer::Direct) {
            check_interrupted()?;
            if results.failed(measure, peer) {
                continue;
            }
            let load = report::load();
            match work(peer) {
                Ok(figures) => results.add(measure, peer, round, load, figures),
                Err(error) => results.fail(measure, peer, &error),
            }
        }
    }
    Ok(())
}
