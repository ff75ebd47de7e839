//! The paths that are compared: the direct one in plaintext, and the proxies that end TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustls::NamedGroup;

use crate::auth;
use crate::ca::IssuedCertificate;
use crate::configurations::Place;
use crate::net::Lab;
use crate::process::Daemon;
use crate::server::Server;
use crate::sink::Sink;
use crate::smtp_client::{LoadClients, Security, TlsOptions, TlsVersions};

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    /// In plaintext.
    Direct,
    /// TLS from the first byte.
    Haproxy,
    Nginx,
    Stunnel,
    Gatepost,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Haproxy, Self::Nginx, Self::Stunnel, Self::Gatepost];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Stunnel => "stunnel",
            Self::Gatepost => "gatepost",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Direct => 0,
            Self::Haproxy => 2535,
            Self::Nginx => 2536,
            Self::Stunnel => 2537,
            Self::Gatepost => 2538,
        }
    }

    pub(crate) fn security(self) -> Security {
        match self {
            Self::Direct => Security::Plaintext,
            Self::Haproxy => Security::Implicit,
            Self::Nginx | Self::Stunnel | Self::Gatepost => Security::StartTls,
        }
    }

    /// How many of `sessions` it gets, one after the other on each client: fewer where each of them waits for 200 ms.
    pub(crate) fn share(self, sessions: u32) -> u32 {
        if self == Self::Stunnel { sessions.div_ceil(5) } else { sessions }
    }

    /// The program's version, in one line.
    pub(crate) fn version(self) -> Result<String> {
        let (program, flag) = match self {
            Self::Direct => return Ok("packets forwarded, no proxy, no TLS".to_owned()),
            Self::Haproxy => ("haproxy", "-v"),
            Self::Nginx => ("nginx", "-v"),
            Self::Stunnel => ("stunnel", "-version"),
            Self::Gatepost => return Ok(format!("gatepost {}", env!("CARGO_PKG_VERSION"))),
        };
        let output = Command::new(program).arg(flag).output();
        let output = output.with_context(|| format!("{program} is needed"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let line = text.lines().find(|line| line.contains(char::is_numeric));
        Ok(line.unwrap_or_default().trim().to_owned())
    }
}

/// `clients` that agree with every proxy on the same version, suite and group.
pub(crate) fn clients(peer: Peer, clients: usize, resume: bool) -> LoadClients {
    let options = TlsOptions {
        versions: TlsVersions::Only13,
        cipher: "AES_128_GCM",
        group: Some(NamedGroup::X25519),
        resume,
        ..TlsOptions::default()
    };
    LoadClients::new(clients, peer.security(), &options)
}

/// What every proxy gets.
#[derive(Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) lab: &'a Arc<Lab>,
    pub(crate) threads: usize,
    pub(crate) certificate: &'a IssuedCertificate,
    /// Of configurations and logs, a folder for each proxy.
    pub(crate) folder: &'a Path,
}

/// One way from client to server, ready for sessions.
pub(crate) struct Proxy {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    /// The proxy; none on the direct path.
    pub(crate) daemon: Option<Daemon>,
    /// Ends after the proxy.
    _auth: Option<Server>,
}

impl Proxy {
    /// Starts the proxy and passes one session through it to a new sink.
    pub(crate) fn start(site: &Site<'_>, peer: Peer) -> Result<Self> {
        let Site { lab, threads, certificate, folder } = *site;
        let folder = folder.join("tls").join(peer.name());
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let sink = Sink::start(lab)?;
        let address = match peer {
            Peer::Direct => lab.sink_address(),
            _ => lab.gateway_address(peer.port()),
        };
        let place = Place { lab, listen: address, threads, certificate, folder: &folder };
        let command = match peer {
            Peer::Direct => None,
            Peer::Haproxy => Some(place.haproxy()?),
            Peer::Nginx => Some(place.nginx()?),
            Peer::Stunnel => Some(place.stunnel()?),
            Peer::Gatepost => Some(place.gatepost()?),
        };
        let auth = (peer == Peer::Nginx).then(|| auth::start(lab)).transpose()?;
        let log = folder.join("output");
        let daemon =
            command.map(|command| Daemon::start(peer.name(), command, &log)).transpose()?;
        let mut proxy = Self { peer, address, daemon, _auth: auth };
        proxy.wait_ready(lab)?;
        drop(sink);
        Ok(proxy)
    }

    pub(crate) fn check_alive(&mut self) -> Result<()> {
        self.daemon.as_mut().map_or(Ok(()), Daemon::check_alive)
    }

    /// CPU seconds so far; zero on the direct path.
    pub(crate) fn cpu(&self) -> Result<f64> {
        Ok(self.daemon.as_ref().map(Daemon::cpu).transpose()?.unwrap_or_default().as_secs_f64())
    }

    fn wait_ready(&mut self, lab: &Lab) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let clients = clients(self.peer, 1, false);
        loop {
            self.check_alive()?;
            match lab.client.within(|| clients.connect_once(self.address)) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > deadline => {
                    let name = self.peer.name();
                    return Err(error).with_context(|| format!("{name} is not ready after 10 s"));
                }
                Err(_not_yet) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}
