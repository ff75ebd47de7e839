//! Whether the kernel finds a socket to hand intercepted connections to.

use std::fs;

use super::finding::{InterceptCheckName, InterceptCheckReport};
use crate::addr::Family;
use crate::humanize;
use crate::intercept::report::{InterceptReport, TproxyReport};

pub(super) fn check(installed: &InterceptReport, report: &mut InterceptCheckReport) {
    for family in Family::ALL {
        // Several rules may hand over connections of one family.
        if let Some(tproxy) = installed.tproxies().find(|tproxy| tproxy.family == family) {
            check_listener(tproxy, report);
        }
    }
}

fn check_listener(tproxy: &TproxyReport, report: &mut InterceptCheckReport) {
    // /proc/net belongs to the first thread of the process, which may be in another namespace.
    let (file, any) = match tproxy.family {
        Family::Ipv4 => ("/proc/thread-self/net/tcp", "00000000"),
        Family::Ipv6 => ("/proc/thread-self/net/tcp6", "00000000000000000000000000000000"),
    };
    let Ok(sockets) = fs::read_to_string(file) else { return };
    let wanted = format!("{any}:{:04X}", tproxy.listen);
    let listens = sockets.lines().any(|line| {
        // sl local_address rem_address st; state 0A is LISTEN
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some(&wanted) && words.nth(1) == Some("0A")
    });
    if !listens {
        let seen = format!(
            "no socket listens on port {} of the {} wildcard address: mail bypasses the gateway and goes to \
             the servers directly; start the gateway, or remove its rules",
            tproxy.listen,
            humanize::family(tproxy.family)
        );
        report.warn(InterceptCheckName::Gateway, seen, "gatepost intercept clean");
    }
}
