//! Log lines for host names of upstreams: new addresses, failed lookups, and addresses that cannot be used.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::relay::{HostReport, HostState};
use crate::report::LogLevel;

/// The reports that were logged last.
#[derive(Debug, Default)]
pub(super) struct HostLog(HashMap<Arc<str>, HostReport>);

impl HostLog {
    /// Lines for the names whose state or addresses changed.
    pub(super) fn changes(&mut self, hosts: &[HostReport]) -> Vec<(LogLevel, String)> {
        self.0.retain(|known, _| hosts.iter().any(|host| host.name == *known));
        let mut lines = Vec::new();
        for host in hosts {
            let before = self.0.insert(Arc::clone(&host.name), host.clone());
            let is_same = before.as_ref().is_some_and(|before| {
                before.addresses == host.addresses && before.failure == host.failure
            });
            if !is_same {
                lines.push(line(before.as_ref(), host));
            }
            if !host.own.is_empty() && before.is_none_or(|before| before.own != host.own) {
                let (name, own) = (&host.name, listed(&host.own));
                let warning = format!(
                    "upstream {name} has the address {own}, where the gateway itself listens: not used, or mail would go in \
                     circles; name the MTA behind the gateway, or write another port"
                );
                lines.push((LogLevel::Error, warning));
            }
        }
        lines
    }
}

fn line(before: Option<&HostReport>, host: &HostReport) -> (LogLevel, String) {
    let (name, failure) = (&host.name, host.failure.unwrap_or("unknown"));
    let addresses = listed(&host.addresses);
    match host.state {
        HostState::Unresolved => {
            let notice =
                format!("upstream {name} has no address, no mail for it is accepted: {failure}");
            (LogLevel::Warn, notice)
        }
        HostState::Stale => {
            let notice = format!(
                "upstream {name} cannot be resolved: {failure}; its last addresses stay in use: {addresses}"
            );
            (LogLevel::Warn, notice)
        }
        HostState::Resolved => {
            let known = before.filter(|before| !before.addresses.is_empty());
            let change = match known {
                Some(before) if before.addresses == host.addresses => {
                    "can be resolved again, unchanged:"
                }
                Some(_) => "has new addresses:",
                None => "resolves to",
            };
            (LogLevel::Info, format!("upstream {name} {change} {addresses}"))
        }
    }
}

fn listed(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(state: HostState, addresses: &[&str], failure: Option<&'static str>) -> HostReport {
        HostReport {
            name: "postfix:25".into(),
            state,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            own: Vec::new(),
            failure,
            lasts: Duration::ZERO,
        }
    }

    #[test]
    fn each_change_is_logged_once() {
        let mut log = HostLog::default();
        let mut lines = |report: HostReport| -> Vec<String> {
            let once = log.changes(std::slice::from_ref(&report));
            let again = log.changes(&[report]);
            assert!(again.is_empty(), "{again:?}");
            once.into_iter().map(|(_, line)| line).collect()
        };
        let [first, both] = [&["192.0.2.1:25"][..], &["192.0.2.1:25", "[2001:db8::1]:25"]];
        let silent = Some("the DNS servers do not answer");
        assert_eq!(
            lines(report(HostState::Unresolved, &[], silent)),
            [
                "upstream postfix:25 has no address, no mail for it is accepted: the DNS servers do not answer"
            ]
        );
        let resolved = lines(report(HostState::Resolved, first, None));
        assert_eq!(resolved, ["upstream postfix:25 resolves to 192.0.2.1:25"]);
        assert_eq!(
            lines(report(HostState::Stale, first, silent)),
            [
                "upstream postfix:25 cannot be resolved: the DNS servers do not answer; its last addresses stay in use: \
              192.0.2.1:25"
            ]
        );
        let again = lines(report(HostState::Resolved, first, None));
        assert_eq!(again, ["upstream postfix:25 can be resolved again, unchanged: 192.0.2.1:25"]);
        let new = lines(report(HostState::Resolved, both, None));
        assert_eq!(new, ["upstream postfix:25 has new addresses: 192.0.2.1:25, [2001:db8::1]:25"]);
        let own = vec!["127.0.0.1:25".parse().unwrap()];
        let circle = lines(HostReport { own, ..report(HostState::Resolved, both, None) });
        assert!(circle[0].contains("127.0.0.1:25, where the gateway itself listens"), "{circle:?}");
    }
}
