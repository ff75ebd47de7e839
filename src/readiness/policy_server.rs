//! The policy service of a gateway, and how Postfix names it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::postconf::{MasterService, Postfix};

/// In the line of the documentation.
pub(super) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// The policy service of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyServer {
    pub address: PolicyServerAddress,
    /// The time after which the gateway has answered in any case; Postfix waits longer.
    pub deadline: Duration,
    /// Rules are decided at the end of a message, and Postfix's questions have what they need.
    pub decides_at_end: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyServerAddress {
    /// In full.
    Unix(PathBuf),
    Inet(SocketAddr),
}

/// Why no command can make Postfix ask. Each names its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyServerError {
    #[error("{services} in master.cf runs in a chroot, where {} does not exist; set [postfix] policy to a socket in Postfix's queue directory, \"unix:{}\", or to an address, \"inet:127.0.0.1:10040\"", path.display(), proposed.display())]
    Chroot { services: String, path: PathBuf, proposed: PathBuf },
    #[error("a path with white space, a comma, a brace or a dollar sign cannot be in a restriction list; change [postfix] policy ({})", path.display())]
    Path { path: PathBuf },
    #[error(
        "neither smtpd_relay_restrictions nor smtpd_recipient_restrictions ({place}) has reject_unauth_destination, behind which gatepost is asked; add it to smtpd_recipient_restrictions, and run this again"
    )]
    Unguarded { place: String },
    #[error(
        "smtpd_recipient_restrictions ({place}) accepts mail of clients that it permits only, and rejects all other; gatepost cannot be asked about anything there; remove [postfix] policy, or the `reject`"
    )]
    NothingToAsk { place: String },
    #[error(
        "smtpd_recipient_restrictions ({place}) has a form that no command can change; write into it, behind reject_unauth_destination: {item}"
    )]
    ByHand { place: String, item: String },
    #[error(
        "smtpd_end_of_data_restrictions ({place}) has a form that no command can change; write at its end: {item}"
    )]
    ByHandAtEnd { place: String, item: String },
}

impl PolicyServer {
    /// As main.cf has it: a path begins at the queue directory, in which smtpd(8) runs.
    pub(super) fn endpoint(&self, postfix: &Postfix) -> String {
        match &self.address {
            PolicyServerAddress::Inet(address) => {
                let ip = match address.ip() {
                    IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                    ip => ip,
                };
                format!("inet:{}", SocketAddr::new(ip, address.port()))
            }
            PolicyServerAddress::Unix(path) => {
                let queue = postfix.main("queue_directory");
                let inside = path.strip_prefix(queue).ok().filter(|_| !queue.is_empty());
                format!("unix:{}", inside.unwrap_or(path).display())
            }
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        let after = self.deadline + Duration::from_millis(500);
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        Duration::from_secs(seconds).max(DEFAULT_TIMEOUT)
    }
}

impl Postfix {
    /// Services of smtpd(8) that cannot open a path outside of the queue directory.
    pub(super) fn chrooted_listeners(&self) -> Vec<String> {
        // Postfix 3.0 changed the default, except for a configuration of an older one.
        let is_old = self.main("compatibility_level").split('.').next() == Some("0");
        let is_chrooted = |service: &&MasterService| {
            let chroot = service.chroot.as_str();
            service.command == "smtpd" && (chroot == "y" || chroot == "-" && is_old)
        };
        self.services().filter(is_chrooted).map(MasterService::key).collect()
    }

    /// Whether two endpoints are the same socket.
    pub(super) fn is_same(&self, one: &str, other: &str) -> bool {
        let full = |endpoint: &str| match endpoint.strip_prefix("unix:") {
            Some(path) => Path::new(self.main("queue_directory")).join(path).display().to_string(),
            None => endpoint.to_ascii_lowercase(),
        };
        full(one) == full(other)
    }
}
