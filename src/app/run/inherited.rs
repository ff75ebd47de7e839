//! Listening sockets of systemd's socket activation (sd_listen_fds(3)). systemd keeps them open while gatepost restarts,
//! and clients that connect meanwhile wait in the kernel's queue.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use socket2::SockRef;

use crate::relay::InheritedSockets;
use crate::report::LogLevel;

/// Takes the sockets out of the environment, so that child processes do not see them.
///
/// # Errors
/// One of them is not a TCP listener.
pub(super) fn take() -> anyhow::Result<InheritedSockets> {
    let mut inherited = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..inherited.len() {
        let socket: Option<TcpListener> =
            inherited.take_tcp_listener(number).with_context(|| {
                format!("inherited socket {number} is not TCP: list only SMTP listeners in the .socket unit")
            })?;
        let Some(socket) = socket else { continue };
        if !SockRef::from(&socket).is_listener().context("an inherited socket")? {
            bail!("inherited socket {number} does not listen: set Accept=no in the .socket unit");
        }
        sockets.push(socket);
    }
    InheritedSockets::new(sockets).context("an inherited socket")
}

/// Log messages about them; none without inherited sockets.
pub(super) fn notices(
    inherited: &InheritedSockets,
    listening: &[SocketAddr],
) -> Vec<(LogLevel, String)> {
    let all: Vec<SocketAddr> = inherited.addresses().collect();
    if all.is_empty() {
        return Vec::new();
    }
    let (used, unused): (Vec<_>, Vec<_>) =
        all.iter().partition(|address| listening.contains(address));
    let own: Vec<_> = listening.iter().filter(|address| !all.contains(address)).collect();
    let dual_stack: Vec<SocketAddr> = inherited.dual_stack().collect();
    let dual_stack: Vec<_> = dual_stack.iter().collect();
    let mut notices = Vec::new();
    let mut notice = |level, before: &str, addresses: &[&SocketAddr], after: &str| {
        if !addresses.is_empty() {
            let addresses = addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
            notices.push((level, format!("{before}{}{after}", addresses.join(", "))));
        }
    };
    notice(LogLevel::Info, "inherited sockets, open across restarts: ", &used, "");
    notice(
        LogLevel::Info,
        "own sockets, closed during a restart: ",
        &own,
        "; list them in the .socket unit to keep them open",
    );
    notice(
        LogLevel::Warn,
        "inherited sockets that no listener uses, where clients wait in vain: ",
        &unused,
        "; add them to the addresses of a listener, or remove them from the .socket unit",
    );
    notice(
        LogLevel::Warn,
        "",
        &dual_stack,
        " accepts IPv4 too: set BindIPv6Only=ipv6-only in the .socket unit",
    );
    notices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn used_own_and_unused_sockets_are_listed() {
        let open = |address: &str| TcpListener::bind(address).unwrap();
        let (first, second) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
        let (used, unused) = (first.local_addr().unwrap(), second.local_addr().unwrap());
        let inherited = InheritedSockets::new(vec![first, second]).unwrap();
        let own: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let expected = [
            (LogLevel::Info, format!("inherited sockets, open across restarts: {used}")),
            (
                LogLevel::Info,
                format!(
                    "own sockets, closed during a restart: {own}; list them in the .socket unit to keep them open"
                ),
            ),
            (
                LogLevel::Warn,
                format!(
                    "inherited sockets that no listener uses, where clients wait in vain: {unused}; add them to \
                     the addresses of a listener, or remove them from the .socket unit"
                ),
            ),
        ];
        assert_eq!(notices(&inherited, &[used, own]), expected);
        assert!(notices(&InheritedSockets::default(), &[own]).is_empty());
    }
}
