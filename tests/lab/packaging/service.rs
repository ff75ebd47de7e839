//! A gateway under a service manager: its notifications, its inherited sockets, and restarts that lose no client.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use super::manager::{Manager, listener};
use crate::harness::tests;
use crate::support::{Config, Family, Lab, Mode, Postfix};
use nix::sys::signal::Signal;

tests![
    nothing_is_lost_over_a_restart,
    reloads_and_watchdog_messages_are_notified,
    an_inherited_socket_is_used_when_the_configuration_names_it,
    inherited_sockets_take_intercepted_mail,
    inherited_sockets_that_do_not_listen_are_an_error,
];

fn entrances(lab: &Lab) -> [SocketAddr; 2] {
    Family::ALL.map(|family| lab.entrance(Mode::Proxy, family))
}

fn file(lab: &Lab, config: &Config) -> PathBuf {
    let path = lab.path("gatepost.toml");
    fs::write(&path, config.toml()).unwrap();
    path
}

/// The manager keeps the sockets: a session in progress ends normally, and a client that connects while no gateway runs is
/// served by the next one.
fn nothing_is_lost_over_a_restart() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let sockets = entrances(&lab).map(|address| listener(&lab.gateway, address));
    let handed = || sockets.each_ref().map(|socket| Some(socket.try_clone().unwrap().into()));
    let config = file(&lab, &Config::new(&lab, Mode::Proxy).set("listen", "threads = 2"));
    let manager = Manager::new(&lab, &lab.gateway);

    let mut first = manager.start(&config, handed());
    let ready = manager.wait_for("READY=1");
    assert_eq!(
        ready,
        "READY=1\nSTATUS=doors: IPv6 always open, IPv4 always open; upstream accepts connections\n"
    );
    let [v6, v4] = entrances(&lab);
    first.wait_for_log(&format!("info inherited sockets, open across restarts: {v6}, {v4}"));

    let mut in_progress = lab.client.smtp(v6);
    in_progress.begin("sender@example.net", "before@example.org");
    in_progress.dialogue("C: DATA\n S: 354");
    first.signal(Signal::SIGTERM);
    assert_eq!(
        manager.wait_for("STOPPING=1"),
        "STOPPING=1\nSTATUS=stopping: 1 sessions in progress\n"
    );
    in_progress.raw(b"Subject: before\r\n\r\nhello\r\n.\r\n").unwrap();
    in_progress.dialogue("S: 250");
    assert!(first.wait().success());

    // No gateway runs.
    let mut waiting = [v6, v4].map(|entrance| lab.client.smtp(entrance));
    let second = manager.start(&config, handed());
    for (number, smtp) in waiting.iter_mut().enumerate() {
        let recipient = format!("waited-{number}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: waited\r\n\r\nhello\r\n").code, 250);
        postfix.message_to(&recipient);
    }
    postfix.message_to("before@example.org");
    drop(second);
}

fn reloads_and_watchdog_messages_are_notified() {
    let lab = Lab::new();
    let config = Config::new(&lab, Mode::Proxy).set("door", "refuse = \"smtp\"");
    let path = file(&lab, &config);
    let mut manager = Manager::new(&lab, &lab.gateway);
    manager.watchdog(Duration::from_secs(2));
    let mut service = manager.start(&path, [None, None]);
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("STATUS=doors: IPv6 opening, IPv4 always open; "), "{ready}");
    for _ in 0..2 {
        assert_eq!(manager.wait_for("WATCHDOG=1"), "WATCHDOG=1\n");
    }

    service.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1");
    let (_, time) = reloading.trim().split_once("\nMONOTONIC_USEC=").expect(&reloading);
    assert!(time.parse::<u64>().unwrap() > 0);
    manager.wait_for("READY=1");

    // After a failed reload it is ready again, with the old configuration.
    fs::write(&path, config.clone().set("smtp", "no_such_key = true").toml()).unwrap();
    service.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1");
    manager.wait_for("READY=1");
    service.wait_for_log("configuration not reloaded, the old one stays in force");

    // Nothing accepts the upstream connection: the status follows by itself.
    lab.client.smtp(entrances(&lab)[0]).expect_last_reply("421 4.3.2");
    manager.wait_for("; no upstream accepts connections\n");
    service.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    assert!(service.wait().success());
}

/// An inherited socket without a configured address is logged; a reload with that address uses it, although the gateway can
/// no longer bind it.
fn an_inherited_socket_is_used_when_the_configuration_names_it() {
    let lab = Lab::new();
    let _postfix = Postfix::receiver(&lab);
    let [v6, v4] = entrances(&lab);
    let sockets = [v6, v4].map(|address| Some(listener(&lab.gateway, address).into()));
    let own: SocketAddr = "[::1]:2600".parse().unwrap();
    let config = Config::new(&lab, Mode::Proxy);
    let path = file(&lab, &config.clone().listen(&[v6, own]));
    let manager = Manager::new(&lab, &lab.gateway);
    let service = manager.start(&path, sockets);
    manager.wait_for("READY=1");
    service.wait_for_log("info own sockets, closed during a restart: [::1]:2600; ");
    service.wait_for_log(&format!(
        "warn inherited sockets that no listener uses, where clients wait in vain: {v4}; add"
    ));
    lab.client.smtp(v6).dialogue("S: 220");

    fs::write(&path, config.listen(&[v6, v4]).toml()).unwrap();
    service.signal(Signal::SIGHUP);
    service.wait_for_log("configuration reloaded");
    for entrance in [v6, v4] {
        lab.client.smtp(entrance).dialogue("S: 220\n C: QUIT\n S: 221");
    }
}

/// The gateway makes inherited sockets transparent, before it drops the capability.
fn inherited_sockets_take_intercepted_mail() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let sockets = ["[::]:2525", "0.0.0.0:2525"]
        .map(|address| Some(listener(&lab.gateway, address.parse().unwrap()).into()));
    let config = file(&lab, &Config::new(&lab, Mode::Tproxy));
    let manager = Manager::new(&lab, &lab.gateway);
    let mut service = manager.start(&config, sockets);
    let ready = manager.wait_for("READY=1");
    assert!(ready.contains("; relaying to original destinations\n"), "{ready}");
    for family in Family::ALL {
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Tproxy, family));
        let recipient = format!("{family}@example.org");
        smtp.begin("sender@example.net", &recipient);
        assert_eq!(smtp.data(b"Subject: tproxy\r\n\r\nhello\r\n").code, 250);
        postfix.message_to(&recipient);
    }
    service.signal(Signal::SIGTERM);
    assert!(service.wait().success());
}

fn inherited_sockets_that_do_not_listen_are_an_error() {
    let lab = Lab::new();
    let config = file(&lab, &Config::new(&lab, Mode::Proxy));
    let manager = Manager::new(&lab, &lab.gateway);
    let udp = lab.gateway.in_thread(|| UdpSocket::bind("[::1]:0").unwrap());
    let mut service = manager.start(&config, [Some(udp.into()), None]);
    assert!(!service.wait().success());
    service.wait_for_log("inherited socket 0 is not TCP");

    // As with Accept=yes: a connection in place of a listener.
    let there = listener(&lab.gateway, "[::1]:2601".parse().unwrap());
    let client = lab.gateway.connect(there.local_addr().unwrap()).unwrap();
    let mut service = manager.start(&config, [Some(client.into()), None]);
    assert!(!service.wait().success());
    service.wait_for_log("does not listen: set Accept=no in the .socket unit");
}
