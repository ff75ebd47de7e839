//! The paths that are compared: the direct one, HAProxy, nginx and gatepost, each configured for the same job: TCP (gatepost:
//! SMTP) from one address to one upstream, with the same number of threads and without limits.
//!
//! HAProxy runs twice. With `option splice-auto` version 2.6 spliced no byte of a long transfer, so a second one always
//! splices; each one's own counter of spliced bytes is printed.
//!
//! HAProxy and nginx do not log here; gatepost logs one line per session, as by default.

use std::fs;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::gatepost::{self, SESSIONS};
use crate::net::Lab;
use crate::process::Daemon;
use crate::sink::Sink;
use crate::smtp_client::Session;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Direct,
    /// With `option splice-auto`: the base of the ratios.
    Haproxy,
    /// With `option splice-request` and `option splice-response`.
    HaproxySplicing,
    Nginx,
    Gatepost,
    /// With a rule on DKIM, for which it reads every message.
    GatepostVerifying,
}

impl Peer {
    pub(crate) const ALL: [Self; 5] =
        [Self::Direct, Self::Haproxy, Self::HaproxySplicing, Self::Nginx, Self::Gatepost];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::HaproxySplicing => "haproxy+splice",
            Self::Nginx => "nginx",
            Self::Gatepost => "gatepost",
            Self::GatepostVerifying => "gatepost+dkim",
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Direct => 0,
            Self::Haproxy => 2525,
            Self::HaproxySplicing => 2526,
            Self::Nginx => 2527,
            Self::Gatepost => 2528,
            Self::GatepostVerifying => 2529,
        }
    }

    /// The program's version, in one line.
    pub(crate) fn version(self) -> Result<String> {
        let (program, flag) = match self {
            Self::Direct => return Ok("packets forwarded, no proxy".to_owned()),
            Self::Haproxy | Self::HaproxySplicing => ("haproxy", "-v"),
            Self::Nginx => ("nginx", "-v"),
            Self::Gatepost | Self::GatepostVerifying => {
                return Ok(format!("gatepost {}", env!("CARGO_PKG_VERSION")));
            }
        };
        let output = Command::new(program)
            .arg(flag)
            .output()
            .with_context(|| format!("{program} is needed (package of the same name)"))?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        Ok(text.lines().next().unwrap_or_default().to_owned())
    }
}

/// In shadow mode, as no key can be looked up: the messages are read and hashed, and the signature fails for lack of a key.
const VERIFYING: &str = r#"
[lookup]
dns = ["[::1]:9"]

[[policy]]
name = "signed"
require = ["dkim"]
mode = "shadow"
"#;

/// One way from client to server, ready for sessions.
pub(crate) struct Proxy {
    pub(crate) peer: Peer,
    pub(crate) address: SocketAddr,
    /// The proxy; none on the direct path.
    pub(crate) daemon: Option<Daemon>,
    folder: PathBuf,
}

impl Proxy {
    /// Starts the proxy and passes one session through it to a new sink.
    pub(crate) fn start(lab: &Arc<Lab>, peer: Peer, threads: usize, folder: &Path) -> Result<Self> {
        let folder = folder.join(peer.name());
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let sink = Sink::start(lab)?;
        let address = match peer {
            Peer::Direct => lab.sink_address(),
            _ => lab.gateway_address(peer.port()),
        };
        let place =
            Place { listen: address, upstream: lab.sink_address(), threads, folder: &folder };
        let command = match peer {
            Peer::Direct => None,
            Peer::Haproxy => Some(place.haproxy(lab, "option splice-auto")?),
            Peer::HaproxySplicing => {
                let options = "option splice-request\n    option splice-response";
                Some(place.haproxy(lab, options)?)
            }
            Peer::Nginx => Some(place.nginx(lab)?),
            Peer::Gatepost => Some(place.gatepost(lab, "")?),
            Peer::GatepostVerifying => Some(place.gatepost(lab, VERIFYING)?),
        };
        let log = folder.join("output");
        let daemon =
            command.map(|command| Daemon::start(peer.name(), command, &log)).transpose()?;
        let mut proxy = Self { peer, address, daemon, folder };
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

    /// Bytes HAProxy has moved by splice(2), from its own statistics.
    pub(crate) fn spliced(&self) -> Result<u64> {
        let mut socket = UnixStream::connect(self.folder.join("admin"))
            .context("HAProxy's statistics socket")?;
        socket.write_all(b"show info\n")?;
        let info = io::read_to_string(socket)?;
        // The name's spelling changed between HAProxy's versions (2.6: TotalSplicdedBytesOut).
        let line =
            info.lines().find(|line| line.starts_with("TotalSplic") && line.contains("BytesOut: "));
        let value = line.and_then(|line| line.split(": ").nth(1));
        Ok(value.context("HAProxy's `show info` does not count spliced bytes")?.trim().parse()?)
    }

    fn wait_ready(&mut self, lab: &Lab) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            self.check_alive()?;
            let tried = lab.client.within(|| {
                let mut session = Session::connect(self.address)?;
                session.hello()?;
                session.quit()
            });
            match tried {
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

/// The values in every configuration.
struct Place<'a> {
    listen: SocketAddr,
    upstream: SocketAddr,
    threads: usize,
    folder: &'a Path,
}

impl Place<'_> {
    fn haproxy(&self, lab: &Lab, splicing: &str) -> Result<Command> {
        let Self { listen, upstream, threads, folder } = self;
        let built_with = Command::new("haproxy").arg("-vv").output().context("haproxy")?.stdout;
        ensure!(
            String::from_utf8_lossy(&built_with).contains("+LINUX_SPLICE"),
            "this HAProxy is built without splice; the comparison needs one with it"
        );
        let folder_name = folder.display();
        let file = self.write(
            "haproxy.cfg",
            &format!(
                "global\n    nbthread {threads}\n    maxconn {SESSIONS}\n    \
                 stats socket {folder_name}/admin mode 600\n\
                 defaults\n    mode tcp\n    {splicing}\n    \
                 timeout connect 30s\n    timeout client 5m\n    timeout server 5m\n\
                 listen smtp\n    bind {listen}\n    server upstream {upstream}\n"
            ),
        )?;
        // Warnings count as errors: an option that HAProxy ignores would make the comparison wrong.
        let check = Command::new("haproxy").args(["-c", "-dW", "-f"]).arg(&file).output()?;
        let text = String::from_utf8_lossy(&check.stderr);
        ensure!(check.status.success(), "HAProxy refuses its configuration: {}", text.trim());
        let mut command = lab.gateway.command(&[], "haproxy");
        command.args(["-db", "-f"]).arg(file);
        Ok(command)
    }

    fn nginx(&self, lab: &Lab) -> Result<Command> {
        let Self { listen, upstream, threads, folder } = self;
        let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
        ensure!(Path::new(module).exists(), "{module} is needed (package libnginx-mod-stream)");
        let folder_name = folder.display();
        let file = self.write(
            "nginx.conf",
            &format!(
                "load_module {module};\ndaemon off;\nworker_processes {threads};\n\
                 pid {folder_name}/pid;\nerror_log stderr warn;\n\
                 events {{ worker_connections {}; }}\n\
                 stream {{\n    server {{\n        listen {listen} reuseport backlog=4096;\n        \
                 proxy_pass {upstream};\n        proxy_timeout 5m;\n    }}\n}}\n",
                SESSIONS * 2
            ),
        )?;
        let mut command = lab.gateway.command(&[], "nginx");
        command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(file);
        Ok(command)
    }

    fn gatepost(&self, lab: &Lab, more: &str) -> Result<Command> {
        let Self { listen, upstream, threads, folder } = self;
        gatepost::command(lab, (*listen, *upstream), *threads, folder, more)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
