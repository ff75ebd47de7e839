//! HAProxy in tcp mode on the gateway host: a relay that does not understand SMTP. A test that fails with it in gatepost's
//! place shows that the test works.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::{Family, Lab, Process, cannot_run, port};

pub(crate) struct Haproxy {
    process: Process,
}

impl Haproxy {
    /// Relays [`port::SMTP`] of the gateway to the same port of the server, in both families.
    pub(crate) fn start(lab: &Lab) -> Self {
        if !Path::new("/usr/sbin/haproxy").exists() {
            cannot_run("needs haproxy (Debian package haproxy)");
        }
        let mut configuration = String::from(
            "defaults\n  mode tcp\n  timeout connect 30s\n  timeout client 5m\n  timeout server 5m\n",
        );
        for family in Family::ALL {
            let listen = SocketAddr::new(lab.gateway_ip(family), port::SMTP);
            let server = SocketAddr::new(lab.server_ip(family), port::SMTP);
            configuration
                .push_str(&format!("listen {family}\n  bind {listen}\n  server mx {server}\n"));
        }
        let file = lab.path("haproxy.cfg");
        fs::write(&file, configuration).unwrap();
        let process = lab.gateway.spawn(["haproxy", "-db", "-f", file.to_str().unwrap()]);
        for family in Family::ALL {
            let at = SocketAddr::new(lab.gateway_ip(family), port::SMTP);
            lab.gateway.wait_for_listener(at);
        }
        Self { process }
    }
}
