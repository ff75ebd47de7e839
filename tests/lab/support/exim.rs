//! An Exim of the test's own. It queues what it accepts, and rejects recipients whose names begin with "unknown".

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::chown;
use std::path::Path;

use nix::unistd::User;

use super::{Family, Lab, Process, cannot_run, port};

/// `make test` unpacks it there: as a package it conflicts with Postfix.
const EXIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/exim4/usr/sbin/exim4");

pub(crate) struct Exim {
    /// One for each family.
    pub(crate) addresses: [SocketAddr; 2],
    _process: Process,
}

impl Exim {
    /// On the lab's server.
    pub(crate) fn start(lab: &Lab) -> Self {
        if !Path::new(EXIM).exists() {
            cannot_run(format!("needs {EXIM}: make test unpacks it"));
        }
        let Some(user) = User::from_name("Debian-exim").unwrap() else {
            cannot_run("needs the user Debian-exim: make test creates it");
        };
        let folder = lab.folder("exim");
        for part in ["spool", "log"] {
            let part = folder.join(part);
            fs::create_dir(&part).unwrap();
            chown(&part, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
        }
        let folder = folder.display();
        let configuration = format!(
            "primary_hostname = mx.example.org
exim_user = {}
exim_group = {}
spool_directory = {folder}/spool
log_file_path = {folder}/log/%s
local_interfaces = <; 0.0.0.0 ; ::0
host_lookup =
rfc1413_query_timeout = 0s
queue_only = true
acl_smtp_rcpt = recipient
begin acl
recipient:
  deny local_parts = ^unknown
       message = unknown user
  accept
",
            user.uid, user.gid,
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
        Self { addresses, _process: process }
    }
}
