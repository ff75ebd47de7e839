//! The network of the live tests: client, gateway and server, three network namespaces in a row.
//!
//! ```text
//!   client                     gateway                        server
//!   192.0.2.10        192.0.2.1       198.51.100.1     198.51.100.25
//!   2001:db8:1::10 ── 2001:db8:1::1 │ 2001:db8:2::1 ── 2001:db8:2::25
//! ```
//!
//! The gateway's host routes between both links, so the direct path works before gatepost runs. A [`Lab`] belongs to
//! one test; dropping it, also on panic, kills its processes and removes its namespaces and its folder. Namespaces need
//! root: without it [`Lab::new`] ends the test as ignored.

#![allow(
    dead_code,
    unused_imports,
    reason = "the benchmarks include this module too, and each uses its own part"
)]

mod ca;
mod exim;
mod gateway;
mod host;
mod leftovers;
mod old_kernel;
mod policy_gate;
mod postfix;
mod process;
mod requirements;
pub(crate) mod resolver;
mod reverse_proxy;
pub(crate) mod rspamd;
pub(crate) mod shared;
pub(crate) mod sites;
mod smtp;
#[path = "../../smtp_client/mod.rs"]
pub(crate) mod smtp_client;
mod tls;
pub(crate) mod watcher;
pub(crate) mod world;

use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use requirements::is_failing;

pub(crate) use ca::{Authority, CertificateRequest, IssuedCertificate, KeyType, Validity};
pub(crate) use exim::{EXIM_USER, Exim, EximSender, deliver_by_exim};
pub(crate) use gateway::{Config, Gateway, METRICS};
pub(crate) use host::Host;
pub(crate) use policy_gate::PolicyGate;
pub(crate) use postfix::{Postfix, Stored, UNIX, UNIX_PROXIED, UNIX_XCLIENT, port};
pub(crate) use process::Process;
pub(crate) use requirements::{CannotRun, cannot_run, is_root, require_program, require_root};
pub(crate) use reverse_proxy::Haproxy;
pub(crate) use smtp::{Reply, Smtp, dot_stuffed};
pub(crate) use tls::{Entrance, HOSTNAME, OwnTls, Transport};

/// Long enough for a busy machine; only a test that fails waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The domain that the receiving Postfix takes mail for.
pub(crate) const DOMAIN: &str = "example.org";

/// The IP version of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::Ipv6, Self::Ipv4];

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Ipv4 => Self::Ipv6,
            Self::Ipv6 => Self::Ipv4,
        }
    }

    /// The metric label.
    pub(crate) fn label(self) -> String {
        format!("family=\"{self}\"")
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// How the client reaches the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The client connects to the gateway.
    Proxy,
    /// The client connects to the server; the gateway intercepts.
    Tproxy,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Proxy, Self::Tproxy];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proxy => "proxy",
            Self::Tproxy => "tproxy",
        })
    }
}

/// Three hosts in a row and a folder; see the module.
pub(crate) struct Lab {
    pub(crate) client: Host,
    pub(crate) gateway: Host,
    pub(crate) server: Host,
    folder: PathBuf,
    client_link: &'static str,
}

impl Lab {
    /// Builds the lab for a test; without root the test is ignored.
    pub(crate) fn new() -> Self {
        let lab = Self::unwired("client");
        lab.client.link("gateway", &lab.gateway, "client");
        lab.server.link("gateway", &lab.gateway, "server");
        lab.client.configure(
            "addr add 192.0.2.10/24 dev gateway\n\
             addr add 2001:db8:1::10/64 dev gateway nodad\n\
             route add default via 192.0.2.1\n\
             route add default via 2001:db8:1::1\n",
        );
        lab.server.configure(
            "addr add 198.51.100.25/24 dev gateway\n\
             addr add 2001:db8:2::25/64 dev gateway nodad\n\
             route add default via 198.51.100.1\n\
             route add default via 2001:db8:2::1\n",
        );
        lab.gateway.configure(
            "addr add 192.0.2.1/24 dev client\n\
             addr add 2001:db8:1::1/64 dev client nodad\n\
             addr add 198.51.100.1/24 dev server\n\
             addr add 2001:db8:2::1/64 dev server nodad\n",
        );
        lab.gateway.forward();
        lab
    }

    /// The three hosts without links or addresses: the test wires them, with further hosts in between.
    pub(crate) fn unwired(client_link: &'static str) -> Self {
        static COUNTER: AtomicU32 = AtomicU32::new(0);

        require_root();
        leftovers::sweep();

        let name = format!(
            "{}{}-{}",
            leftovers::PREFIX,
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir(&folder).unwrap();
        let host = |role: &str| Host::new(&format!("{name}-{role}"), &folder);
        Self {
            client: host("client"),
            gateway: host("gateway"),
            server: host("server"),
            folder: folder.clone(),
            client_link,
        }
    }

    /// A further host, which the caller removes.
    pub(crate) fn another_host(&self, role: &str) -> Host {
        let name = self.folder.file_name().unwrap().to_string_lossy();
        Host::new(&format!("{name}-{role}"), &self.folder)
    }

    /// A new folder of that name inside the lab's own.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join(name);
        fs::create_dir(&folder).unwrap();
        folder
    }

    /// A path inside the lab's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub(crate) fn client_ip(&self, family: Family) -> IpAddr {
        ip(family, "192.0.2.10", "2001:db8:1::10")
    }

    /// Gives the client another address, of any network. Only [`Host::smtp_from`] uses it.
    pub(crate) fn add_client_ip(&self, ip: IpAddr) {
        // Deprecated (RFC 4862 §5.5.4): never the source of a connection that names none.
        let options = if ip.is_ipv6() { " nodad preferred_lft 0" } else { "" };
        let host = IpNet::from(ip);
        self.client.configure(&format!("addr add {host} dev gateway{options}\n"));
        self.gateway.configure(&format!("route add {host} dev client\n"));
    }

    /// The gateway's address on the client's link.
    pub(crate) fn gateway_ip(&self, family: Family) -> IpAddr {
        ip(family, "192.0.2.1", "2001:db8:1::1")
    }

    /// The gateway's address on the server's link: a plain proxy's source address.
    pub(crate) fn gateway_ip_at_server(&self, family: Family) -> IpAddr {
        ip(family, "198.51.100.1", "2001:db8:2::1")
    }

    pub(crate) fn server_ip(&self, family: Family) -> IpAddr {
        ip(family, "198.51.100.25", "2001:db8:2::25")
    }

    pub(crate) fn server_ips(&self) -> [IpAddr; 2] {
        Family::ALL.map(|family| self.server_ip(family))
    }

    /// The gateway's interface on which clients arrive.
    pub(crate) const fn client_link(&self) -> &'static str {
        self.client_link
    }

    pub(crate) fn server_socket(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.server_ip(family), port)
    }

    /// The client's destination for mail through the gateway.
    pub(crate) fn entrance(&self, mode: Mode, family: Family) -> SocketAddr {
        match mode {
            Mode::Proxy => SocketAddr::new(self.gateway_ip(family), port::SMTP),
            Mode::Tproxy => SocketAddr::new(self.server_ip(family), port::SMTP),
        }
    }

    /// The client's destination for mail past the gateway, which intercepts port 25.
    pub(crate) fn direct(&self, family: Family) -> SocketAddr {
        SocketAddr::new(self.server_ip(family), port::DIRECT)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for host in [&self.client, &self.gateway, &self.server] {
            host.remove();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn ip(family: Family, ipv4: &str, ipv6: &str) -> IpAddr {
    match family {
        Family::Ipv4 => ipv4,
        Family::Ipv6 => ipv6,
    }
    .parse()
    .unwrap()
}

/// Repeats `attempt` until it returns a value; the test fails after [`PATIENCE`].
#[track_caller]
pub(crate) fn until<T>(what: impl fmt::Display, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "timed out after {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Prints the end of a log when a test fails.
fn show_when_failing(title: &str, log: &Path) {
    if !is_failing() {
        return;
    }
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    eprintln!("--- the last lines of {title}:");
    for line in lines.iter().skip(lines.len().saturating_sub(40)) {
        eprintln!("    {line}");
    }
}
