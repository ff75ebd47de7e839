//! Three network namespaces and two veth pairs: client — gateway — server.
//!
//! The namespaces have no name: each lives as long as a file descriptor of this process or a process inside holds it, so
//! nothing is left behind however the benchmark ends. Programs enter by `nsenter` through `/proc/PID/fd/N`, our own
//! threads by setns(2). The gateway forwards packets, so that the direct path crosses the same two links.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// The port of smtp-sink and of our own sink; above 1024, so that smtp-sink needs no privilege.
pub(crate) const SINK_PORT: u16 = 2500;

/// A network namespace held open by this process.
pub(crate) struct Netns {
    handle: File,
}

impl Netns {
    fn new() -> Result<Self> {
        // A thread of its own unshares and ends; its namespace stays with the handle.
        let handle = thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("cannot make a network namespace: run the benchmark as root")?;
            File::open("/proc/thread-self/ns/net").context("/proc/thread-self/ns/net")
        })
        .join()
        .map_err(|_panic| anyhow!("the thread that makes a namespace panicked"))??;
        Ok(Self { handle })
    }

    /// Moves the calling thread, and no other, into this namespace.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.handle, CloneFlags::CLONE_NEWNET).context("setns into a benchmark namespace")
    }

    /// Runs `work` on a thread inside this namespace and waits for it.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
                .map_err(|_panic| anyhow!("a thread of the benchmark panicked"))?
        })
    }

    /// A command line that runs in this namespace and gets SIGTERM when the benchmark dies.
    pub(crate) fn command(&self, identity: &[&str], program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path()))
            .args(["--", "setpriv", "--pdeathsig", "TERM"])
            .args(identity)
            .args(["--", program]);
        command
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let output = Command::new("nsenter")
            .args([&format!("--net={}", self.path()), "--", "ip"])
            .args(arguments.split_whitespace())
            .output()
            .context("nsenter and ip (packages util-linux, iproute2) are needed")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`ip {arguments}`: {}", stderr.trim());
        Ok(())
    }

    /// Writes settings below `/proc/sys/net`, which shows each thread its own namespace.
    fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.within(|| {
            for (name, value) in settings {
                let path = format!("/proc/sys/net/{name}");
                fs::write(&path, value).with_context(|| format!("writing {value} to {path}"))?;
            }
            Ok(())
        })
    }
}

/// The family of the benchmark's traffic.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4,
    Ipv6,
}

impl Family {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }

    fn prefix(self) -> u8 {
        match self {
            Self::Ipv4 => 24,
            Self::Ipv6 => 64,
        }
    }

    fn address(self, link: u8, host: u8) -> IpAddr {
        match self {
            Self::Ipv4 => Ipv4Addr::new(10, 67, link, host).into(),
            Self::Ipv6 => Ipv6Addr::new(0xfd67, link.into(), 0, 0, 0, 0, 0, host.into()).into(),
        }
    }
}

/// The three hosts and their addresses.
pub(crate) struct Lab {
    pub(crate) family: Family,
    pub(crate) client: Netns,
    pub(crate) gateway: Netns,
    pub(crate) server: Netns,
}

impl Lab {
    pub(crate) fn new(family: Family) -> Result<Self> {
        let lab =
            Self { family, client: Netns::new()?, gateway: Netns::new()?, server: Netns::new()? };
        for host in [&lab.client, &lab.gateway, &lab.server] {
            host.ip("link set lo up")?;
            host.sysctl(&[
                // Ten thousand sessions a round would use up the default range through TIME_WAIT.
                ("ipv4/ip_local_port_range", "10000 65535"),
                ("ipv4/tcp_tw_reuse", "1"),
                ("core/somaxconn", "4096"),
                ("ipv4/tcp_max_syn_backlog", "4096"),
            ])?;
        }
        lab.link(&lab.client, 1)?;
        lab.link(&lab.server, 2)?;
        lab.gateway.sysctl(&[("ipv4/ip_forward", "1"), ("ipv6/conf/all/forwarding", "1")])?;
        Ok(lab)
    }

    /// Joins `host` (…2) to the gateway (…1) by a veth pair and routes everything through it.
    fn link(&self, host: &Netns, link: u8) -> Result<()> {
        let (near, far) = (self.family.address(link, 1), self.family.address(link, 2));
        let prefix = self.family.prefix();
        // Without duplicate address detection the address is usable at once.
        let nodad = if self.family == Family::Ipv6 { "nodad" } else { "" };
        let gateway = self.gateway.path();
        host.ip(&format!("link add eth0 type veth peer name eth{link} netns {gateway}"))?;
        host.ip(&format!("address add {far}/{prefix} dev eth0 {nodad}"))?;
        self.gateway.ip(&format!("address add {near}/{prefix} dev eth{link} {nodad}"))?;
        host.ip("link set eth0 up")?;
        self.gateway.ip(&format!("link set eth{link} up"))?;
        host.ip(&format!("route add default via {near}"))
    }

    pub(crate) fn client_address(&self) -> IpAddr {
        self.family.address(1, 2)
    }

    /// The gateway's address on the client's side, where the proxies listen.
    pub(crate) fn gateway_address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.family.address(1, 1), port)
    }

    /// The gateway's address on the server's side, the source of the proxies' connections.
    pub(crate) fn proxied_address(&self) -> IpAddr {
        self.family.address(2, 1)
    }

    pub(crate) fn sink_address(&self) -> SocketAddr {
        SocketAddr::new(self.family.address(2, 2), SINK_PORT)
    }
}
