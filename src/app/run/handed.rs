//! Listening sockets that the service manager opened (systemd's socket activation, sd_listen_fds(3)): it keeps them over a
//! restart, and who connects meanwhile waits in the kernel.

use std::net::{SocketAddr, TcpListener};

use anyhow::{Context as _, bail};
use listenfd::ListenFd;
use socket2::SockRef;

use crate::relay::InheritedSockets;
use crate::report::LogLevel;

/// Those of this process, once: the environment tells of them no more.
///
/// # Errors
/// There is one that is no TCP listener.
pub(super) fn take() -> anyhow::Result<InheritedSockets> {
    let mut handed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for number in 0..handed.len() {
        let socket: Option<TcpListener> = handed.take_tcp_listener(number).with_context(|| {
            format!("socket {number} that the service manager hands over is not for TCP: gatepost takes listeners of SMTP only")
        })?;
        let Some(socket) = socket else { continue };
        if !SockRef::from(&socket).is_listener().context("a socket that was handed over")? {
            bail!(
                "socket {number} that the service manager hands over does not listen: set Accept=no in the .socket unit"
            );
        }
        sockets.push(socket);
    }
    InheritedSockets::new(sockets).context("a socket that was handed over")
}

/// What there is to say of them; nothing where none was handed over.
pub(super) fn notices(
    handed: &InheritedSockets,
    listening: &[SocketAddr],
) -> Vec<(LogLevel, String)> {
    let all: Vec<SocketAddr> = handed.addresses().collect();
    if all.is_empty() {
        return Vec::new();
    }
    let (taken, left): (Vec<_>, Vec<_>) =
        all.iter().partition(|address| listening.contains(address));
    let own: Vec<_> = listening.iter().filter(|address| !all.contains(address)).collect();
    let mut notices = Vec::new();
    if !taken.is_empty() {
        let words = format!("the service manager keeps {} open over a restart", listed(&taken));
        notices.push((LogLevel::Info, words));
    }
    if !own.is_empty() {
        let words = format!(
            "opened here and closed at a restart: {}; to keep it open name it in the .socket unit",
            listed(&own)
        );
        notices.push((LogLevel::Info, words));
    }
    if !left.is_empty() {
        let words = format!(
            "handed over and not in [listen] addresses: {}; who connects there waits in vain: add it there, or take it \
             out of the .socket unit",
            listed(&left)
        );
        notices.push((LogLevel::Warn, words));
    }
    let dual: Vec<SocketAddr> = handed.dual_stack().collect();
    if !dual.is_empty() {
        let words = format!(
            "{} takes IPv4 too: set BindIPv6Only=ipv6-only in the .socket unit",
            listed(&dual.iter().collect::<Vec<_>>())
        );
        notices.push((LogLevel::Warn, words));
    }
    notices
}

fn listed(addresses: &[&SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_whose_is_said() {
        let open = |address: &str| TcpListener::bind(address).unwrap();
        let (first, second) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
        let (taken, left) = (first.local_addr().unwrap(), second.local_addr().unwrap());
        let handed = InheritedSockets::new(vec![first, second]).unwrap();
        let own: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let said = notices(&handed, &[taken, own]);
        let words: Vec<_> = said.iter().map(|(level, words)| (*level, words.as_str())).collect();
        let opened = "opened here and closed at a restart: 127.0.0.1:1; to keep it open name it in the .socket unit";
        let kept = format!("the service manager keeps {taken} open over a restart");
        let vain = format!(
            "handed over and not in [listen] addresses: {left}; who connects there waits in vain: add it there, or take \
             it out of the .socket unit"
        );
        let expected =
            [(LogLevel::Info, &*kept), (LogLevel::Info, opened), (LogLevel::Warn, &*vain)];
        assert_eq!(words, expected);
        assert!(notices(&InheritedSockets::default(), &[own]).is_empty());
    }
}
