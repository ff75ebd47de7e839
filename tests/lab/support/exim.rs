//! An Exim of the test's own: a server that queues what it accepts and rejects recipients whose names begin with "unknown",
//! a client that delivers one message, and an MTA that finds the hosts of its mail in DNS.

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use nix::unistd::User;

use super::{Authority, Family, HOSTNAME, Host, Lab, Process, cannot_run, port, until};

/// `make test` unpacks it there: as a package it conflicts with Postfix.
const EXIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/exim4/usr/sbin/exim4");

/// The chain is verified, not the name: the client's route is an address.
const VERIFIED: &str =
    "tls_verify_hosts = *\n  tls_verify_cert_hostnames = :\n  hosts_require_tls = *";

pub(crate) struct Exim {
    /// One for each family.
    pub(crate) addresses: [SocketAddr; 2],
    log: PathBuf,
    _process: Process,
}

impl Exim {
    /// On the lab's server; with an authority, whose certificate it has, it offers STARTTLS with the version `1.2` or `1.3`.
    pub(crate) fn start(lab: &Lab, tls: Option<(&Authority, &str)>) -> Self {
        let folder = Folder::new(lab, "exim");
        let tls = tls.map(|(authority, version)| folder.offer_tls(authority, version));
        let tls = tls.unwrap_or_default();
        let configuration = format!(
            "{}primary_hostname = mx.example.org
local_interfaces = <; 0.0.0.0 ; ::0
host_lookup =
rfc1413_query_timeout = 0s
queue_only = true
acl_smtp_rcpt = recipient
{tls}
begin acl
recipient:
  deny local_parts = ^unknown
       message = unknown user
  accept
",
            folder.settings(),
        );
        let file = lab.path("exim.conf");
        fs::write(&file, configuration).unwrap();
        let addresses = Family::ALL.map(|family| lab.server_socket(family, port::SMTP));
        let port = port::SMTP.to_string();
        let file = file.to_str().unwrap();
        let process = lab.server.spawn([EXIM, "-C", file, "-bdf", "-oX", &port]);
        for address in addresses {
            lab.gateway.wait_for_listener(address);
        }
        Self { addresses, log: folder.log(), _process: process }
    }

    /// Waits for a line of its log.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, wanted: &str) -> String {
        wait_for_log(&self.log, wanted)
    }
}

/// Delivers a message from the lab's client to the server at `to`, under TLS of `version` (`1.2` or `1.3`) with a certificate
/// of the authority. Returns Exim's line about the delivery.
#[track_caller]
pub(crate) fn deliver_by_exim(
    lab: &Lab,
    to: SocketAddr,
    (authority, version): (&Authority, &str),
    recipient: &str,
    message: &str,
) -> String {
    let folder = Folder::new(lab, &format!("exim-{recipient}"));
    let configuration = format!(
        "{}primary_hostname = client.example.net
begin routers
gateway:
  driver = manualroute
  transport = gateway
  route_list = * \"<+ {}\"
begin transports
gateway:
  driver = smtp
  port = {}
  {VERIFIED}
  tls_sni = {HOSTNAME}
  tls_verify_certificates = {}
  {}
",
        folder.settings(),
        to.ip(),
        to.port(),
        authority.certificate().display(),
        only_version(version),
    );
    let (file, text) = (folder.path.join("exim.conf"), folder.path.join("message"));
    fs::write(&file, configuration).unwrap();
    fs::write(&text, message).unwrap();
    // In two steps: a delivery at once would start Exim again as its own user, which may name no configuration.
    let script = format!(
        "{EXIM} -C {file} -odq -oi -f sender@example.net {recipient} <{text} && {EXIM} -C {file} -qff",
        file = file.display(),
        text = text.display(),
    );
    lab.client.run(["sh", "-c", &script]);
    wait_for_log(&folder.log(), &format!(" => {recipient} "))
}

/// The account of every Exim of the lab.
pub(crate) const EXIM_USER: &str = "Debian-exim";

/// An MTA that sends mail over both families, IPv6 first, to the exchange hosts that DNS names.
pub(crate) struct EximSender<'lab> {
    host: &'lab Host,
    folder: Folder,
    sent: Cell<u32>,
}

impl<'lab> EximSender<'lab> {
    /// On a host of the lab that has a resolver.
    pub(crate) fn new(lab: &Lab, host: &'lab Host) -> Self {
        let folder = Folder::new(lab, "exim-sender");
        let configuration = format!(
            "{}primary_hostname = mta.sender.example
begin routers
others:
  driver = dnslookup
  transport = others
begin transports
others:
  driver = smtp
  connect_timeout = 2s
  command_timeout = 5s
  hosts_avoid_tls = *
begin retry
* * F,1h,1s
",
            folder.settings(),
        );
        fs::write(folder.path.join("exim.conf"), configuration).unwrap();
        Self { host, folder, sent: Cell::new(0) }
    }

    /// Sends one message, whatever failed before; returns Exim's line about the delivery.
    #[track_caller]
    pub(crate) fn send(&self, domain: &str) -> String {
        let recipient = self.try_to_send(domain);
        wait_for_log(&self.folder.log(), &format!(" => {recipient} "))
    }

    /// Tries to deliver a message, and all that are waiting. Returns its recipient.
    #[track_caller]
    pub(crate) fn try_to_send(&self, domain: &str) -> String {
        self.sent.set(self.sent.get() + 1);
        let recipient = format!("bob{}@{domain}", self.sent.get());
        let file = self.folder.path.join("exim.conf");
        let file = file.display();
        let script = format!(
            "echo text | {EXIM} -C {file} -odq -oi -f sender@example.net {recipient} && {EXIM} -C {file} -qff",
        );
        self.host.run(["sh", "-c", &script]);
        recipient
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.log()).unwrap_or_default()
    }
}

/// A priority string of GnuTLS.
fn only_version(version: &str) -> String {
    format!("tls_require_ciphers = NORMAL:-VERS-ALL:+VERS-TLS{version}")
}

fn wait_for_log(log: &Path, wanted: &str) -> String {
    until(format_args!("{wanted:?} in Exim's log"), || {
        let log = fs::read_to_string(log).unwrap_or_default();
        log.lines().find(|line| line.contains(wanted)).map(str::to_owned)
    })
}

/// The folder of one Exim, with its queue and log.
struct Folder {
    path: PathBuf,
    user: User,
}

impl Folder {
    fn new(lab: &Lab, name: &str) -> Self {
        if !Path::new(EXIM).exists() {
            cannot_run(format!("needs {EXIM}: make test unpacks it"));
        }
        let Some(user) = User::from_name(EXIM_USER).unwrap() else {
            cannot_run("needs the user Debian-exim: make test creates it");
        };
        let folder = Self { path: lab.folder(name), user };
        for part in ["spool", "log"] {
            fs::create_dir(folder.path.join(part)).unwrap();
            folder.hand_over(part);
        }
        folder
    }

    fn hand_over(&self, part: &str) {
        let User { uid, gid, .. } = &self.user;
        chown(self.path.join(part), Some(uid.as_raw()), Some(gid.as_raw())).unwrap();
    }

    /// Main settings of every Exim of the lab.
    fn settings(&self) -> String {
        let User { uid, gid, .. } = &self.user;
        format!(
            "exim_path = {EXIM}\nexim_user = {uid}\nexim_group = {gid}\nkeep_environment =\n\
             spool_directory = {folder}/spool\nlog_file_path = {folder}/log/%s\n\
             log_selector = +tls_cipher +tls_certificate_verified\n",
            folder = self.path.display()
        )
    }

    /// Settings that offer STARTTLS, with a copy of the key for Exim's user.
    fn offer_tls(&self, authority: &Authority, version: &str) -> String {
        fs::copy(authority.server_key(), self.path.join("key")).unwrap();
        self.hand_over("key");
        format!(
            "tls_advertise_hosts = *\ntls_certificate = {}\ntls_privatekey = {}/key\n{}",
            authority.server_certificate().display(),
            self.path.display(),
            only_version(version),
        )
    }

    fn log(&self) -> PathBuf {
        self.path.join("log/main")
    }
}
