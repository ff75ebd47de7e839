//! The proxies' configurations: the same number of threads and the same certificate, no limits, no tuning of TLS.
//!
//! HAProxy, nginx and stunnel do not log here; gatepost logs one line per session, as by default. stunnel has a thread for each
//! session, and no setting for it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::auth::AUTH_ADDRESS;
use crate::ca::IssuedCertificate;
use crate::gatepost::{self, SESSIONS};
use crate::net::Lab;

/// The values in every configuration.
pub(crate) struct Place<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) listen: SocketAddr,
    pub(crate) threads: usize,
    pub(crate) certificate: &'a IssuedCertificate,
    pub(crate) folder: &'a Path,
}

impl Place<'_> {
    pub(crate) fn haproxy(&self) -> Result<Command> {
        let Self { lab, listen, threads, certificate, .. } = self;
        // HAProxy reads certificates and key from one file.
        let chain = fs::read_to_string(&certificate.fullchain)?;
        let pem =
            self.write("chain-and-key.pem", &(chain + &fs::read_to_string(&certificate.key)?))?;
        let (upstream, pem) = (lab.sink_address(), pem.display());
        let file = self.write(
            "haproxy.cfg",
            &format!(
                "global\n    nbthread {threads}\n    maxconn {SESSIONS}\n\
                 defaults\n    mode tcp\n    \
                 timeout connect 30s\n    timeout client 5m\n    timeout server 5m\n\
                 listen smtps\n    bind {listen} ssl crt {pem}\n    server upstream {upstream}\n"
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

    pub(crate) fn nginx(&self) -> Result<Command> {
        let Self { lab, listen, threads, certificate, folder } = self;
        let module = "/usr/lib/nginx/modules/ngx_mail_module.so";
        ensure!(Path::new(module).exists(), "{module} is needed (package libnginx-mod-mail)");
        let (chain, key) = (certificate.fullchain.display(), certificate.key.display());
        let (folder_name, connections) = (folder.display(), SESSIONS * 2);
        // Without server_name each session would be refused in a namespace whose host name is not resolved.
        let file = self.write(
            "nginx.conf",
            &format!(
                "load_module {module};\ndaemon off;\nworker_processes {threads};\n\
                 pid {folder_name}/pid;\nerror_log stderr warn;\n\
                 events {{ worker_connections {connections}; }}\n\
                 mail {{\n    server_name mx.example.org;\n    auth_http {AUTH_ADDRESS}/;\n    \
                 timeout 5m;\n    proxy_timeout 5m;\n    \
                 ssl_certificate {chain};\n    ssl_certificate_key {key};\n    \
                 ssl_protocols TLSv1.2 TLSv1.3;\n    \
                 server {{\n        listen {listen} backlog=4096;\n        protocol smtp;\n        \
                 smtp_auth none;\n        starttls on;\n        xclient off;\n        \
                 smtp_capabilities 8BITMIME \"SIZE 104857600\";\n    }}\n}}\n"
            ),
        )?;
        let mut command = lab.gateway.command(&[], "nginx");
        command.arg("-p").arg(folder).args(["-e", "stderr", "-c"]).arg(file);
        Ok(command)
    }

    pub(crate) fn stunnel(&self) -> Result<Command> {
        let Self { lab, listen, certificate, .. } = self;
        let (chain, key) = (certificate.fullchain.display(), certificate.key.display());
        // Its addresses have no brackets.
        let upstream = lab.sink_address();
        let address = |address: SocketAddr| format!("{}:{}", address.ip(), address.port());
        let file = self.write(
            "stunnel.conf",
            &format!(
                "foreground = yes\nsyslog = no\ndebug = crit\npid =\n\
                 [smtp]\naccept = {}\nconnect = {}\nprotocol = smtp\ncert = {chain}\nkey = {key}\n",
                address(*listen),
                address(upstream),
            ),
        )?;
        let mut command = lab.gateway.command(&[], "stunnel");
        command.arg(file);
        Ok(command)
    }

    pub(crate) fn gatepost(&self) -> Result<Command> {
        let Self { lab, listen, threads, certificate, folder } = self;
        let (chain, key) = (certificate.fullchain.display(), certificate.key.display());
        let tls = format!("[tls]\ncertificate = \"{chain}\"\nkey = \"{key}\"\n");
        gatepost::command(lab, (*listen, lab.sink_address()), *threads, folder, &tls)
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}
