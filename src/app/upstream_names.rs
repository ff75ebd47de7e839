//! `config check` for upstreams: whether host names can be resolved here, and not to the gateway itself, and whether a Unix
//! socket accepts connections.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;

use crate::addr::{Family, canonical};
use crate::config::Config;
use crate::lookup::HostNames;
use crate::policy::facts::Reason;
use crate::relay::{
    UpstreamHost, UpstreamSocket, UpstreamTarget, describe_lookup_failure, describe_socket_failure,
    is_own_listener,
};

/// Host names and Unix sockets of upstreams that a gateway with this configuration could not use.
#[derive(Debug, Default)]
pub(super) struct UpstreamProblems {
    /// Names that lead to the gateway itself only: mail would go in circles.
    pub(super) errors: Vec<String>,
    /// Names without an address at the moment, and some that also lead to the gateway: their state may change.
    pub(super) warnings: Vec<String>,
}

/// Looks up every host name of the configuration once, and connects to every Unix socket.
///
/// # Errors
/// No runtime can be created for it.
pub(super) fn check(config: &Config) -> anyhow::Result<UpstreamProblems> {
    let mut problems = UpstreamProblems::default();
    let targets = config.relay.upstreams().into_iter().flat_map(|upstream| &upstream.addresses);
    for socket in targets.filter_map(UpstreamTarget::socket) {
        problems.add_socket(socket);
    }
    let hosts = config.relay.upstream_hosts();
    if hosts.is_empty() {
        return Ok(problems);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listening: Vec<SocketAddr> = config.relay.listen_addresses().collect();
    for host in hosts {
        let (answers, _) = runtime.block_on(HostNames::default().resolve(&host.name));
        problems.add(host, answers, &listening);
    }
    Ok(problems)
}

impl UpstreamProblems {
    /// A file that is no socket is an error; the rest depends on whether the MTA runs, and on the account of the gateway.
    fn add_socket(&mut self, socket: &UpstreamSocket) {
        let Err(error) = UnixStream::connect(&socket.path) else { return };
        let detail = describe_socket_failure(&socket.path, &error);
        let is_other_file =
            fs::metadata(&socket.path).is_ok_and(|file| !file.file_type().is_socket());
        let list = if is_other_file { &mut self.errors } else { &mut self.warnings };
        list.push(format!("upstream.addresses: {socket}: {detail}"));
    }

    fn add(
        &mut self,
        host: &UpstreamHost,
        answers: [Result<Vec<IpAddr>, Reason>; Family::ALL.len()],
        listening: &[SocketAddr],
    ) {
        let failure = answers.iter().find_map(|answer| answer.as_ref().err().copied());
        let found = answers.into_iter().flatten().flatten();
        let found = found.map(|ip| canonical(SocketAddr::new(ip, host.port)));
        let (own, others): (Vec<_>, Vec<_>) = found.partition(|&at| is_own_listener(at, listening));
        if let Some(own) = own.first() {
            let problem = format!(
                "upstream.addresses: {host} has the address {own}, where the gateway itself listens; name the MTA behind the \
                 gateway, or write another port"
            );
            let list = if others.is_empty() { &mut self.errors } else { &mut self.warnings };
            list.push(problem);
        } else if others.is_empty() {
            let why = failure.map_or("the name has no address", describe_lookup_failure);
            self.warnings.push(format!(
                "upstream.addresses: {host} cannot be resolved on this host ({why}): until it can, the gateway is not ready and \
                 accepts no mail for it"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(ipv4: Result<&[&str], Reason>) -> UpstreamProblems {
        let host = UpstreamHost { name: "postfix".into(), port: 25 };
        let ipv4 = ipv4.map(|ips| ips.iter().map(|ip| ip.parse().unwrap()).collect());
        let mut problems = UpstreamProblems::default();
        problems.add(&host, [ipv4, Ok(Vec::new())], &["0.0.0.0:25".parse().unwrap()]);
        problems
    }

    #[test]
    fn only_a_name_that_leads_to_the_gateway_alone_is_an_error() {
        let circle = problems(Ok(&["127.0.0.1"]));
        let expected = "upstream.addresses: postfix:25 has the address 127.0.0.1:25, where the gateway itself listens; ";
        assert!(circle.errors[0].starts_with(expected), "{circle:?}");
        let partly = problems(Ok(&["127.0.0.1", "192.0.2.1"]));
        assert!(partly.errors.is_empty() && partly.warnings.len() == 1, "{partly:?}");
        let fine = problems(Ok(&["192.0.2.1"]));
        assert!(fine.errors.is_empty() && fine.warnings.is_empty(), "{fine:?}");
    }

    #[test]
    fn a_name_without_an_address_is_a_warning_with_the_reason() {
        for (answer, reason) in [
            (Ok(&[][..]), "(the name has no address)"),
            (Err(Reason::Timeout), "(the DNS servers do not answer)"),
        ] {
            let problems = problems(answer);
            assert!(problems.errors.is_empty());
            assert!(problems.warnings[0].contains(reason), "{problems:?}");
        }
    }
}
