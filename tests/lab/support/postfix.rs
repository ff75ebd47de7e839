//! A Postfix of the test's own: configuration, queue, log and mailboxes in the lab's folder, every process in one
//! namespace.
//!
//! It listens on [`port::SMTP`] and, with other settings, on further ports; it accepts any recipient of [`DOMAIN`] and
//! stores each message in a file by virtual(8). It makes no DNS lookup. Its own protection against SMTP smuggling is off,
//! so that the tests show the gateway's.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, User};

use super::{Authority, DOMAIN, Family, Host, Lab, show_when_failing, until};

/// The ports that a Postfix of the lab listens on.
pub(crate) mod port {
    /// The port that the gateway intercepts, and relays to by default.
    pub(crate) const SMTP: u16 = 25;
    /// The same service, past the gateway.
    pub(crate) const DIRECT: u16 = 2500;
    /// Expects a PROXY header first, v1 or v2 (`smtpd_upstream_proxy_protocol = haproxy`).
    pub(crate) const PROXY_PROTOCOL: u16 = 2501;
    /// Accepts XCLIENT from the gateway (`smtpd_authorized_xclient_hosts`).
    pub(crate) const XCLIENT: u16 = 2502;
    /// postscreen(8) in front of the same service.
    pub(crate) const POSTSCREEN: u16 = 2503;
    /// The same, and a PROXY header comes first (`postscreen_upstream_proxy_protocol = haproxy`).
    pub(crate) const POSTSCREEN_PROXIED: u16 = 2504;
}

/// Services on Unix sockets in its folder `queue/public`: as on [`port::DIRECT`], with a PROXY header first, and with XCLIENT.
pub(crate) const UNIX: &str = "unix-direct";
pub(crate) const UNIX_PROXIED: &str = "unix-proxied";
pub(crate) const UNIX_XCLIENT: &str = "unix-xclient";

/// The user `nobody`: virtual(8) never delivers as root.
const MAILBOX_OWNER: u32 = 65534;

pub(crate) struct Postfix<'lab> {
    host: &'lab Host,
    folder: PathBuf,
    log: PathBuf,
}

/// A message as stored in the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The header fields of the receiving Postfix: Return-Path, X-Original-To, Delivered-To and its Received.
    pub(crate) trace: String,
    /// The rest: the client's bytes, with Unix line ends.
    pub(crate) content: Vec<u8>,
}

impl<'lab> Postfix<'lab> {
    /// Starts a Postfix on a host of the lab. The lines of `main_cf` override the lab's own settings of the same name.
    pub(crate) fn start(
        lab: &Lab,
        host: &'lab Host,
        name: &str,
        authority: Option<&Authority>,
        main_cf: &str,
    ) -> Self {
        let folder = lab.folder(name);
        let log = folder.join("maillog");
        let postfix = Self { host, folder, log };
        for part in ["etc", "queue", "data", "mail"] {
            fs::create_dir(postfix.folder.join(part)).unwrap();
        }
        let owner = User::from_name("postfix").unwrap();
        let owner = owner.expect("the user `postfix` (Debian: postfix)");
        chown(postfix.folder.join("data"), Some(owner.uid.as_raw()), None).unwrap();
        chown(postfix.folder.join("mail"), Some(MAILBOX_OWNER), None).unwrap();

        let mut settings = without(&settings(&postfix.folder), main_cf);
        if let Some(authority) = authority {
            writeln!(settings, "smtpd_tls_security_level = may").unwrap();
            for (setting, file) in [
                ("smtpd_tls_cert_file", authority.server_certificate()),
                ("smtpd_tls_key_file", authority.server_key()),
            ] {
                writeln!(settings, "{setting} = {}", file.display()).unwrap();
            }
        }
        settings.push_str(main_cf);
        settings.push('\n');
        fs::write(postfix.folder.join("etc/main.cf"), settings).unwrap();
        fs::write(postfix.folder.join("etc/master.cf"), services(lab)).unwrap();
        postfix.start_again();
        postfix
    }

    /// Sets up its Cyrus SASL, before its first session: Debian's reads no other folder than this.
    pub(crate) fn set_sasl(&self, smtpd_conf: &str) {
        let folder = self.config_directory().join("sasl");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("smtpd.conf"), smtpd_conf).unwrap();
    }

    /// The receiving side of most tests: on the server, without TLS.
    pub(crate) fn receiver(lab: &'lab Lab) -> Self {
        Self::start(lab, &lab.server, "postfix", None, "")
    }

    /// The folder of its `main.cf`: `MAIL_CONFIG` for Postfix's own commands.
    pub(crate) fn config_directory(&self) -> PathBuf {
        self.folder.join("etc")
    }

    /// `queue_directory`, which is also its chroot.
    pub(crate) fn queue_directory(&self) -> PathBuf {
        self.folder.join("queue")
    }

    /// The Unix socket of a service.
    pub(crate) fn socket(&self, service: &str) -> PathBuf {
        self.folder.join("queue/public").join(service)
    }

    /// Starts it; it listens when this returns.
    pub(crate) fn start_again(&self) {
        self.control("start");
    }

    /// `postfix stop`: SIGTERM to its processes, also to those in the middle of a session.
    pub(crate) fn stop(&self) {
        let master = self.master();
        self.control("stop");
        // It waits for the master only, and the others hold the listening sockets too.
        let Some(group) = master else { return };
        until("the end of Postfix's processes", || killpg(group, None).is_err().then_some(()));
    }

    fn control(&self, command: &str) {
        let config = self.config_directory();
        self.host.run(["postfix", "-c", config.to_str().unwrap(), command]);
    }

    /// As when the machine loses power: kills every process at once.
    pub(crate) fn kill(&self) {
        let Some(master) = self.master() else { return };
        // It leads a process group of its own (master(8)), which has all its processes.
        let _ = killpg(master, Signal::SIGKILL);
        until("the end of Postfix's master", || self.master().is_none().then_some(()));
    }

    /// Kills only the processes that hold SMTP sessions.
    pub(crate) fn kill_sessions(&self) {
        let master = self.master().expect("Postfix runs");
        for pid in children(master) {
            if process_name(pid).as_deref() == Some("smtpd") {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    }

    pub(crate) fn log_file(&self) -> &Path {
        &self.log
    }

    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits for a line of the log that matches; returns the first.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        until(format_args!("{what} in Postfix's log"), || {
            self.log().lines().find(|line| wanted(line)).map(str::to_owned)
        })
    }

    /// Waits until every accepted message has left the queue.
    #[track_caller]
    pub(crate) fn wait_until_idle(&self) {
        until("an empty queue", || {
            ["maildrop", "incoming", "active", "deferred"]
                .iter()
                .all(|part| is_empty(&self.folder.join("queue").join(part)))
                .then_some(())
        });
    }

    /// Waits for the one message to a recipient, and removes it from the mailbox.
    #[track_caller]
    pub(crate) fn take_message_to(&self, recipient: &str) -> Stored {
        self.wait_for_message(recipient, |file| fs::remove_file(file).unwrap())
    }

    /// Waits for the one message to a recipient.
    #[track_caller]
    pub(crate) fn message_to(&self, recipient: &str) -> Stored {
        self.wait_for_message(recipient, |_| ())
    }

    #[track_caller]
    fn wait_for_message(&self, recipient: &str, then: impl Fn(&Path)) -> Stored {
        let mut found = until(format_args!("a message to {recipient}"), || {
            let found: Vec<_> = self.stored().filter(|(_, to, _)| to == recipient).collect();
            (!found.is_empty()).then_some(found)
        });
        assert_eq!(found.len(), 1, "messages to {recipient}");
        let (file, _, stored) = found.remove(0);
        then(&file);
        stored
    }

    /// The recipients of the messages in the mailbox now, in no order.
    pub(crate) fn recipients(&self) -> Vec<String> {
        self.stored().map(|(_, recipient, _)| recipient).collect()
    }

    /// The messages in the mailbox now, in no order.
    pub(crate) fn messages(&self) -> Vec<Stored> {
        self.stored().map(|(_, _, stored)| stored).collect()
    }

    /// The number of messages to a recipient in the mailbox now.
    pub(crate) fn count_to(&self, recipient: &str) -> usize {
        self.stored().filter(|(_, to, _)| to == recipient).count()
    }

    fn stored(&self) -> impl Iterator<Item = (PathBuf, String, Stored)> {
        let mailbox = fs::read_dir(self.folder.join("mail/inbox/new"));
        let files = mailbox.into_iter().flatten().flatten();
        files.filter_map(|file| {
            let stored = Stored::read(&file.path())?;
            let recipient = stored.delivered_to()?.to_owned();
            Some((file.path(), recipient, stored))
        })
    }

    fn master(&self) -> Option<Pid> {
        let pid = fs::read_to_string(self.folder.join("queue/pid/master.pid")).ok()?;
        let pid = Pid::from_raw(pid.trim().parse().ok()?);
        (process_name(pid).as_deref() == Some("master")).then_some(pid)
    }
}

impl Drop for Postfix<'_> {
    fn drop(&mut self) {
        self.kill();
        show_when_failing("Postfix's log", &self.log);
    }
}

impl Stored {
    fn read(file: &Path) -> Option<Self> {
        let bytes = fs::read(file).ok()?;
        let end = end_of_trace(&bytes)?;
        Some(Self {
            trace: String::from_utf8_lossy(bytes.get(..end)?).into_owned(),
            content: bytes.get(end..)?.to_vec(),
        })
    }

    fn delivered_to(&self) -> Option<&str> {
        self.header("Delivered-To: ")
    }

    /// The rest of the first line that begins so, in the trace or in the header that the client sent.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let end = self.content.windows(2).position(|two| two == b"\n\n");
        let header = self.content.get(..end.map_or(self.content.len(), |end| end + 1))?;
        let own = std::str::from_utf8(header).unwrap_or_default().lines();
        self.trace.lines().chain(own).find_map(|line| line.strip_prefix(name))
    }
}

/// The trace ends with the first Received header and its folded lines.
fn end_of_trace(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut in_received = false;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        if in_received && !line.starts_with(b"\t") {
            return Some(at);
        }
        in_received |= line.starts_with(b"Received: ");
        at += line.len();
    }
    in_received.then_some(at)
}

fn settings(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "compatibility_level = 3.7
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/maillog
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop
myhostname = mx.{DOMAIN}
mydestination =
mynetworks = 127.0.0.0/8 [::1]/128
inet_interfaces = all
inet_protocols = all
alias_maps =
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtp_host_lookup = native

virtual_mailbox_domains = {DOMAIN}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:{MAILBOX_OWNER}
virtual_gid_maps = static:{MAILBOX_OWNER}
virtual_mailbox_limit = 0
message_size_limit = 0
local_header_rewrite_clients =
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access static:{{INFO of the lab}}

smtpd_forbid_bare_newline = no
smtpd_forbid_unauth_pipelining = no
smtpd_data_restrictions =
smtpd_client_connection_count_limit = 0
smtpd_client_connection_rate_limit = 0
default_process_limit = 1100
service_throttle_time = 1s
minimal_backoff_time = 1s
"
    )
}

/// The settings without those that are overridden: Postfix warns of a name that comes twice.
fn without(settings: &str, set_again: &str) -> String {
    let name = |line: &str| line.split('=').next().unwrap_or_default().trim().to_owned();
    let again: Vec<String> = set_again.lines().map(name).collect();
    let kept = settings.lines().filter(|line| !again.contains(&name(line)));
    kept.map(|line| format!("{line}\n")).collect()
}

fn services(lab: &Lab) -> String {
    let gateways = Family::ALL.map(|family| format!("{}", lab.gateway_ip_at_server(family)));
    let (smtp, direct) = (port::SMTP, port::DIRECT);
    let (proxy_protocol, xclient) = (port::PROXY_PROTOCOL, port::XCLIENT);
    let (postscreen, postscreen_proxied) = (port::POSTSCREEN, port::POSTSCREEN_PROXIED);
    format!(
        "{smtp} inet n - n - - smtpd
{direct} inet n - n - - smtpd
{proxy_protocol} inet n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy
{xclient} inet n - n - - smtpd
  -o {{ smtpd_authorized_xclient_hosts = {} [{}] 127.0.0.1 [::1] }}
{postscreen} inet n - n - 1 postscreen
{postscreen_proxied} inet n - n - 1 postscreen
  -o postscreen_upstream_proxy_protocol=haproxy
  -o postscreen_cache_map=btree:$data_directory/postscreen_proxied
smtpd pass - - n - - smtpd
{UNIX} unix n - n - - smtpd
{UNIX_PROXIED} unix n - n - - smtpd
  -o smtpd_upstream_proxy_protocol=haproxy
{UNIX_XCLIENT} unix n - n - - smtpd
  -o smtpd_authorized_xclient_hosts=127.0.0.1
dnsblog unix - - n - 0 dnsblog
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
tlsmgr unix - - n 1000? 1 tlsmgr
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
smtp unix - - n - - smtp
postlog unix-dgram n - n - 1 postlogd
",
        gateways[1], gateways[0],
    )
}

/// The name of a running process; a zombie is not one.
fn process_name(pid: Pid) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.split_once('(')?;
    let (name, state) = rest.rsplit_once(") ")?;
    (!state.starts_with('Z')).then(|| name.to_owned())
}

fn children(parent: Pid) -> Vec<Pid> {
    let listing = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    let listing = listing.unwrap_or_default();
    let pids = listing.split_whitespace().filter_map(|pid| pid.parse().ok());
    pids.map(Pid::from_raw).collect()
}

/// Whether a queue folder, which may have subfolders (`hash_queue_names`), has no message. A queue file becomes executable
/// when it is complete; a half-written file of a killed process is no message.
fn is_empty(folder: &Path) -> bool {
    let holds_no_message = |entry: fs::DirEntry| {
        if entry.path().is_dir() {
            return is_empty(&entry.path());
        }
        let metadata = entry.metadata();
        metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o100 == 0)
    };
    let mut entries = fs::read_dir(folder).into_iter().flatten();
    entries.all(|entry| entry.is_ok_and(holds_no_message))
}
