//! What others do to a running interception: it is repaired, adapted to the host, or given up so that mail still passes.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::harness::tests;
use crate::support::{Config, Family, Gateway, Lab, Mode, Postfix, Smtp, until};
use socket2::{Domain, Socket, Type};

tests![
    removed_rules_are_installed_again_and_the_door_stays_closed,
    removed_routes_and_changed_chains_are_repaired_in_both_families,
    interception_follows_default_routes_nat_and_ipv6,
    a_table_that_cannot_be_kept_is_given_up_and_mail_passes,
    when_all_mail_is_lost_it_passes_uninspected,
    a_second_gateway_does_not_start_and_names_the_first,
    sessions_from_before_a_start_end_unharmed,
];

const GATEPOST: &str = env!("CARGO_BIN_EXE_gatepost");
const REPAIRS: &str = "gatepost_intercept_repairs_total";
const INSTALLED: &str = "gatepost_intercept_installed";

fn removed_rules_are_installed_again_and_the_door_stays_closed() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Tproxy).set("door.ipv6", "grace = \"1m\"");
    let gateway = Gateway::start(&lab, &config);
    let socket = config.socket().to_str().unwrap();
    let door = |words: &[&str]| {
        let command = [&[GATEPOST, "door", "--socket", socket], words].concat();
        lab.gateway.run(command)
    };
    assert!(door(&["ipv6", "close"]).contains("CLOSED, manual: refuses"));
    let v6 = lab.entrance(Mode::Tproxy, Family::Ipv6);
    let is_refused = || {
        let error = lab.client.connect(v6).err()?;
        (error.kind() == std::io::ErrorKind::ConnectionRefused).then_some(())
    };
    until("the closed door", is_refused);

    let damages = ["nft flush ruleset", "nft delete table inet gatepost"];
    for (repairs, damage) in (1_u32..).zip(damages) {
        sh(&lab, damage);
        gateway.wait_for_metric(REPAIRS, &[], repairs.into());
        until(format_args!("the closed door after {damage}"), is_refused);
        wait_until_intercepted(&lab, &gateway, Family::Ipv4);
    }
    let line = gateway.wait_for_log("interception repaired");
    assert!(line.contains("the nftables table inet gatepost is missing"), "{line}");
    for family in Family::ALL {
        gateway.wait_for_metric(INSTALLED, &[&family.label()], 1.0);
    }
    deliver(&lab, &postfix, &gateway, Family::Ipv4, true);
    // The counts of the replaced rules are not lost.
    let refused = gateway.metric("gatepost_door_refused_total", &["ipv6", "syn"]);
    until("refused sessions", || {
        is_refused()?;
        let now = gateway.metric("gatepost_door_refused_total", &["ipv6", "syn"]);
        (now > refused && now >= 3.0).then_some(())
    });
}

fn removed_routes_and_changed_chains_are_repaired_in_both_families() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let mut gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    // A third repair within a minute would be one too many.
    let rounds = [
        [
            (
                "for f in -4 -6; do ip $f rule del fwmark 0x40/0xc0 table 26480; done",
                "fwmark 0x40/0xc0",
            ),
            ("for f in -4 -6; do ip $f route flush table 26480; done", "local default dev lo"),
        ],
        [
            ("nft flush chain inet gatepost prerouting", "chain prerouting lacks rules"),
            (
                "for f in -4 -6; do ip $f rule del fwmark 0x40/0xc0 table 26480
                   ip $f rule add fwmark 0x40/0xc0 table 26480 priority 40000; done",
                "is missing",
            ),
        ],
    ];
    for damages in rounds {
        for (repairs, (damage, found)) in (1_u32..).zip(damages) {
            sh(&lab, damage);
            gateway.wait_for_metric(REPAIRS, &[], repairs.into());
            gateway.wait_for_log(found);
            for family in Family::ALL {
                wait_until_intercepted(&lab, &gateway, family);
                gateway.wait_for_metric(INSTALLED, &[&family.label()], 1.0);
            }
        }
        for family in Family::ALL {
            deliver(&lab, &postfix, &gateway, family, true);
        }
        gateway.kill_and_start_again();
    }
}

fn interception_follows_default_routes_nat_and_ipv6() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    sh(&lab, "ip route add default via 192.0.2.10; ip route add default via 2001:db8:1::10");
    let destinations = format!("destinations = {:?}", lab.server_ips().map(|ip| ip.to_string()));
    let config =
        Config::new(&lab, Mode::Tproxy).without("intercept").set("intercept", &destinations);
    let gateway = Gateway::start(&lab, &config);
    deliver(&lab, &postfix, &gateway, Family::Ipv6, true);

    // Another uplink, and back.
    sh(&lab, "ip route replace default via 198.51.100.25; ip route del default via 2001:db8:1::10");
    gateway.wait_for_log("the default routes lead over server, earlier over client");
    deliver(&lab, &postfix, &gateway, Family::Ipv6, false);
    sh(&lab, "ip route replace default via 192.0.2.10");
    gateway.wait_for_log("the default routes lead over client, earlier over server");
    wait_until_intercepted(&lab, &gateway, Family::Ipv6);

    sh(
        &lab,
        "nft add table ip nat
              nft add chain ip nat post '{ type nat hook postrouting priority 100; }'
              nft add rule ip nat post oifname server masquerade",
    );
    gateway.wait_for_log("this host translates addresses now");
    assert!(sh(&lab, "nft list table inet gatepost").contains("chain spoofed"));
    wait_until_intercepted(&lab, &gateway, Family::Ipv4);

    // Without IPv6 on lo its route cannot exist: IPv6 mail passes, IPv4 mail is intercepted. Nor is there ::1 for the metrics.
    sh(&lab, "echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    gateway.wait_for_log("IPv6 was disabled on this host");
    for family in Family::ALL {
        lab.client.smtp(lab.entrance(Mode::Tproxy, family)).dialogue("S: 220\n C: QUIT\n S: 221");
    }
    sh(&lab, "echo 0 > /proc/sys/net/ipv6/conf/lo/disable_ipv6");
    gateway.wait_for_log("IPv6 was enabled again on this host");
    for family in Family::ALL {
        wait_until_intercepted(&lab, &gateway, family);
    }
    assert_eq!(gateway.metric(REPAIRS, &[]), 0.0, "{}", gateway.log());
}

fn a_table_that_cannot_be_kept_is_given_up_and_mail_passes() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Tproxy).set("door.ipv6", "grace = \"1m\"");
    let gateway = Gateway::start(&lab, &config);
    let socket = config.socket().to_str().unwrap();
    lab.gateway.run([GATEPOST, "door", "--socket", socket, "ipv6", "close"]);

    let opponent = lab.gateway.spawn([
        "sh",
        "-c",
        "while :; do nft delete table inet gatepost 2>/dev/null; sleep 0.1; done",
    ]);
    let line = gateway.wait_for_log("mail is no longer intercepted");
    assert!(line.contains("it was repaired, and is broken again"), "{line}");
    gateway.wait_for_readiness(503);
    for family in Family::ALL {
        gateway.wait_for_metric(INSTALLED, &[&family.label()], 0.0);
        deliver(&lab, &postfix, &gateway, family, false);
    }
    let doors = lab.gateway.run([GATEPOST, "door", "--socket", socket]);
    assert!(doors.contains("CLOSED, manual, not enforced: mail is not intercepted"), "{doors}");
    gateway.wait_for_metric("gatepost_door_enforced", &["ipv6"], 0.0);
    drop(opponent);

    // The operator has removed the cause: no need to wait for the next attempt.
    gateway.reload(&config.toml());
    wait_until_intercepted(&lab, &gateway, Family::Ipv4);
    let doors = lab.gateway.run([GATEPOST, "door", "--socket", socket]);
    assert!(doors.contains("CLOSED, manual: refuses new sessions"), "{doors}");
    let log = gateway.log();
    assert_eq!(log.matches("no longer intercepted").count(), 1, "{log}");
}

fn when_all_mail_is_lost_it_passes_uninspected() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let config = Config::new(&lab, Mode::Tproxy);
    let gateway = Gateway::start(&lab, &config);
    // A hardened router: whatever is not for its own services is dropped.
    sh(&lab, "nft add table inet firewall
              nft add chain inet firewall input '{ type filter hook input priority 0; policy drop; }'
              nft add rule inet firewall input iif lo accept
              nft add rule inet firewall input meta l4proto ipv6-icmp accept
              nft add rule inet firewall input ct state established accept");
    // Several clients, so that their first repeated SYN passes already.
    for family in Family::ALL {
        let to = lab.entrance(Mode::Tproxy, family);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| lab.client.smtp(to).dialogue("S: 220\n C: QUIT\n S: 221"));
            }
        });
        deliver(&lab, &postfix, &gateway, family, false);
    }
    let line = gateway.wait_for_log("mail is no longer intercepted");
    assert!(line.contains("none reached the gateway: an INPUT chain drops them"), "{line}");
    assert!(line.contains("`gatepost intercept check`"), "{line}");
    gateway.wait_for_readiness(503);
    assert!(gateway.metric("gatepost_intercept_lost_syns_total", &[]) >= 3.0);

    sh(&lab, "nft delete table inet firewall");
    gateway.reload(&config.toml());
    for family in Family::ALL {
        wait_until_intercepted(&lab, &gateway, family);
    }
    gateway.wait_for_log("mail is intercepted again");
    gateway.wait_for_readiness(200);

    // A firewall that bans one source is no loss of all mail.
    let banned: IpAddr = "192.0.2.66".parse().unwrap();
    lab.add_client_ip(banned);
    sh(
        &lab,
        "nft add table inet bans
              nft add chain inet bans input '{ type filter hook input priority 0; }'
              nft add rule inet bans input ip saddr 192.0.2.66 drop",
    );
    let lost = gateway.metric("gatepost_intercept_lost_syns_total", &["ipv4"]);
    for _ in 0..5 {
        knock(&lab, banned, lab.entrance(Mode::Tproxy, Family::Ipv4));
    }
    until("lost SYNs in the metrics", || {
        let now = gateway.metric("gatepost_intercept_lost_syns_total", &["ipv4"]);
        (now >= lost + 5.0).then_some(())
    });
    deliver(&lab, &postfix, &gateway, Family::Ipv4, true);
    gateway.wait_for_readiness(200);
    assert_eq!(gateway.log().matches("no longer intercepted").count(), 1, "{}", gateway.log());
}

fn a_second_gateway_does_not_start_and_names_the_first() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    let gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    let rules = || sh(&lab, "nft -s -t list table inet gatepost; ip -4 rule; ip -6 rule");
    let before = rules();
    let second = lab.path("second.toml");
    let config = Config::new(&lab, Mode::Tproxy).metrics("[::1]:9626");
    std::fs::write(&second, config.toml()).unwrap();
    let output = lab.gateway.output([GATEPOST, "run", "--config", second.to_str().unwrap()]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{error}");
    let owner = format!("another gatepost (process {}) intercepts", gateway.id());
    assert!(error.contains(&owner), "{error}");
    assert_eq!(rules(), before);
    for family in Family::ALL {
        deliver(&lab, &postfix, &gateway, family, true);
    }
}

fn sessions_from_before_a_start_end_unharmed() {
    let lab = Lab::new();
    let postfix = Postfix::receiver(&lab);
    // The ACK of a SYN cookie looks as one of an earlier connection.
    sh(&lab, "echo 2 > /proc/sys/net/ipv4/tcp_syncookies");
    let mut earlier = Family::ALL.map(|family| half_sent(&lab, family, "start"));
    let mut gateway = Gateway::start(&lab, &Config::new(&lab, Mode::Tproxy));
    for family in Family::ALL {
        deliver(&lab, &postfix, &gateway, family, true);
    }
    earlier.iter_mut().for_each(finish);

    gateway.kill();
    let mut earlier = Family::ALL.map(|family| half_sent(&lab, family, "kill"));
    gateway.start_again();
    for family in Family::ALL {
        deliver(&lab, &postfix, &gateway, family, true);
    }
    earlier.iter_mut().for_each(finish);
    for family in Family::ALL {
        for time in ["start", "kill"] {
            let stored = postfix.message_to(&format!("{time}-{family}@example.org"));
            assert!(stored.content.ends_with(b"one half\nand the other\n"));
        }
    }
    gateway.terminate();
    assert!(gateway.wait().success());
    gateway.wait_for_log("new mail goes to the servers directly from now on");
}

/// A session in the middle of its message.
fn half_sent(lab: &Lab, family: Family, time: &str) -> Smtp {
    // A child that a killed gateway was starting holds its listener for a moment, and resets who connects then.
    let mut smtp = until("a greeting", || {
        let mut smtp = lab.client.smtp(lab.entrance(Mode::Tproxy, family));
        smtp.reply().is_ok_and(|greeting| greeting.code == 220).then_some(smtp)
    });
    smtp.dialogue(&format!(
        "C: EHLO client.example.net
         S: 250
         C: MAIL FROM:<sender@example.net>
         S: 250
         C: RCPT TO:<{time}-{family}@example.org>
         S: 250
         C: DATA
         S: 354"
    ));
    smtp.raw(b"Subject: slow\r\n\r\none half\r\n").unwrap();
    smtp
}

fn finish(smtp: &mut Smtp) {
    smtp.raw(b"and the other\r\n.\r\n").unwrap();
    smtp.dialogue("S: 250\n C: QUIT\n S: 221");
}

/// A SYN or two without an answer.
fn knock(lab: &Lab, from: IpAddr, to: SocketAddr) {
    lab.client.in_thread(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
        let connected = socket.connect_timeout(&to.into(), Duration::from_millis(100));
        assert!(connected.is_err(), "a banned source was answered");
    });
}

fn sh(lab: &Lab, script: &str) -> String {
    lab.gateway.run(["sh", "-e", "-c", script])
}

/// A session, and whether it came to the gateway.
fn session(lab: &Lab, gateway: &Gateway<'_>, family: Family) -> (Smtp, bool) {
    let sessions = || {
        gateway.metric("gatepost_sessions_open", &[&family.label()])
            + gateway.metric("gatepost_sessions_total", &[&family.label()])
    };
    // An earlier session may end meanwhile, but the sum does not change by that.
    let before = sessions();
    let mut smtp = lab.client.smtp(lab.entrance(Mode::Tproxy, family));
    smtp.dialogue("S: 220\n C: EHLO client.example.net\n S: 250");
    (smtp, sessions() > before)
}

#[track_caller]
fn wait_until_intercepted(lab: &Lab, gateway: &Gateway<'_>, family: Family) {
    until(format_args!("intercepted {family} mail; log:\n{}", gateway.log()), || {
        let (mut smtp, intercepted) = session(lab, gateway, family);
        smtp.dialogue("C: QUIT\n S: 221");
        intercepted.then_some(())
    });
}

/// A message, through the gateway or past it.
#[track_caller]
fn deliver(
    lab: &Lab,
    postfix: &Postfix<'_>,
    gateway: &Gateway<'_>,
    family: Family,
    intercepted: bool,
) {
    static MESSAGES: AtomicU32 = AtomicU32::new(0);
    let number = MESSAGES.fetch_add(1, Ordering::Relaxed);
    let recipient = format!("{family}-{number}@example.org");
    let (mut smtp, came_to_gateway) = session(lab, gateway, family);
    assert_eq!(came_to_gateway, intercepted, "{family}: {}", gateway.log());
    smtp.dialogue(&format!(
        "C: MAIL FROM:<sender@example.net>\n S: 250\n C: RCPT TO:<{recipient}>\n S: 250"
    ));
    assert_eq!(smtp.data(b"Subject: one\r\n\r\nhello\r\n").code, 250);
    smtp.dialogue("C: QUIT\n S: 221");
    postfix.message_to(&recipient);
}
