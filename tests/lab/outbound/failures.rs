//! Whatever becomes of the daemon, mail is sent at the first attempt.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::destinations::{Destination, Sender, prepare_chroot, warnings};
use crate::harness::tests;
use crate::support::{Family, Gateway, Lab};

// Alone, since the helper answers by itself after 300 ms.
tests![
    Alone: mail_flows_without_the_daemon, mail_flows_from_a_chroot
];

/// The family over which a message to the pinned host is sent at the first attempt.
#[track_caller]
fn sent_over(sender: &Sender<'_>, user: &str) -> Family {
    let line = sender.send(user, "pinned");
    assert!(line.contains("status=sent"), "{line}");
    let over = |family: &Family| line.contains(&Destination::of("pinned").relay(*family));
    Family::ALL.into_iter().find(over).unwrap()
}

fn signal(gateway: &Gateway<'_>, signal: Signal) {
    kill(Pid::from_raw(gateway.id().try_into().unwrap()), signal).unwrap();
}

/// The filter works; then the daemon fails in every way, and each time Postfix sends as without a filter.
fn fail_in_every_way(sender: &Sender<'_>) {
    assert_eq!(sent_over(sender, "no-daemon-yet"), Family::Ipv6);
    let mut gateway = sender.gateway(&["pinned"]);
    assert_eq!(sent_over(sender, "running"), Family::Ipv4);
    gateway.kill();
    assert_eq!(sent_over(sender, "killed"), Family::Ipv6);
    gateway.start_again();
    assert_eq!(sent_over(sender, "restarted"), Family::Ipv4);
    signal(&gateway, Signal::SIGSTOP);
    assert_eq!(sent_over(sender, "hung"), Family::Ipv6);
    signal(&gateway, Signal::SIGCONT);
    gateway.terminate();
    gateway.wait();
    assert_eq!(sent_over(sender, "stopped"), Family::Ipv6);
    gateway.start_again();
    fs::set_permissions(sender.socket(), Permissions::from_mode(0o600)).unwrap();
    // A helper that has a connection keeps it.
    sender.reload();
    assert_eq!(sent_over(sender, "unreadable"), Family::Ipv6);
    fs::set_permissions(sender.socket(), Permissions::from_mode(0o666)).unwrap();
    assert_eq!(sent_over(sender, "readable"), Family::Ipv4);
    gateway.kill();
    fs::remove_file(sender.socket()).unwrap();
    fs::write(sender.socket(), "no socket").unwrap();
    assert_eq!(sent_over(sender, "a-file"), Family::Ipv6);

    let log = sender.postfix.log();
    for trouble in ["status=deferred", "status=bounced", "socketmap"] {
        assert!(!log.contains(trouble), "{trouble}: {log}");
    }
    assert!(warnings(&log).is_empty(), "{log}");
}

fn mail_flows_without_the_daemon() {
    let lab = Lab::new();
    let sender = Sender::new(&lab, "");
    sender.filter();
    fail_in_every_way(&sender);
}

fn mail_flows_from_a_chroot() {
    let lab = Lab::new();
    let sender = Sender::new(&lab, "");
    prepare_chroot(&sender.postfix);
    sender.postconf(&["-F", "smtp/unix/chroot = y"]);
    sender.filter();
    fail_in_every_way(&sender);
}
