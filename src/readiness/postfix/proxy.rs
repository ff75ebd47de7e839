//! A listener to which gatepost can forward mail such that Postfix still sees the client address: by the PROXY protocol
//! (`identity = "proxy-v2"`), or by XCLIENT. Rule 9 of ARCHITECTURE.md.

use super::lists::trusts_loopback;
use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{MasterService, Postfix, shell_quote};

const SMTPD: &str = "smtpd_upstream_proxy_protocol";
const POSTSCREEN: &str = "postscreen_upstream_proxy_protocol";
/// The port in the documentation.
const PORT: u16 = 10025;

pub(super) fn check(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixProxy;
    for parameter in [SMTPD, POSTSCREEN] {
        let value = postfix.main(parameter);
        if !value.is_empty() {
            let seen = format!(
                "{parameter} = {value}: every listener requires a PROXY header, also those for clients"
            );
            let advice =
                "Remove it from main.cf, and set it in master.cf for the gateway's listener only.";
            let mut lines = vec![format!("postconf{} -X {parameter}", postfix.directory_option())];
            if proxy_listeners(postfix).next().is_none() {
                lines.extend(add_listener(postfix));
            }
            findings.fail(check, "main.cf", seen, advice).commands = lines;
            return;
        }
    }
    let mut found = false;
    for service in proxy_listeners(postfix) {
        let key = service.key();
        if service.host().is_some() || postfix.main("inet_interfaces") == "loopback-only" {
            findings.pass(check, &key, "listener for gatepost with identity = \"proxy-v2\"");
        } else {
            let seen = "requires a PROXY header but listens on all addresses: any host may claim any client address";
            let advice = "Let it listen where only the gateway can connect.";
            let option = postfix.directory_option();
            let mut lines = vec![format!("postconf{option} -MX {}", shell_quote(&key))];
            lines.extend(listener_commands(postfix, service.port()));
            findings.fail(check, &key, seen, advice).commands = lines;
        }
        found = true;
    }
    if found {
        return;
    }
    if trusts_loopback(postfix.main("smtpd_authorized_xclient_hosts")) {
        let seen = "gatepost may send XCLIENT, with identity = \"xclient\"";
        findings.pass(check, "main.cf", seen);
        return;
    }
    let seen = "no listener for gatepost: Postfix would see it as the client";
    let advice = "Add a listener on loopback that accepts the PROXY protocol, if gatepost is to run in front of \
                  Postfix here. Without it gatepost's clients would be trusted as this host is (mynetworks).";
    findings.warn(check, "master.cf", seen, advice).commands = add_listener(postfix);
}

/// Services for which master.cf requires a PROXY header.
fn proxy_listeners(postfix: &Postfix) -> impl Iterator<Item = &MasterService> {
    postfix.services().filter(move |service| {
        let parameter = match service.command.as_str() {
            "smtpd" => SMTPD,
            "postscreen" => POSTSCREEN,
            _ => return false,
        };
        let (value, is_override) = postfix.of(&service.key(), parameter);
        service.kind == "inet" && is_override && !value.is_empty()
    })
}

/// The commands of the documentation, with a free port.
fn add_listener(postfix: &Postfix) -> Vec<String> {
    let is_free = |port: &u16| postfix.services().all(|service| service.port() != port.to_string());
    let port = (PORT..).find(is_free).unwrap_or(PORT);
    listener_commands(postfix, &port.to_string()).to_vec()
}

fn listener_commands(postfix: &Postfix, port: &str) -> [String; 2] {
    let (option, name) = (postfix.directory_option(), format!("[::1]:{port}"));
    let service = shell_quote(&format!("{name}/inet={name} inet n - n - - smtpd"));
    let protocol = shell_quote(&format!("{name}/inet/{SMTPD}=haproxy"));
    [format!("postconf{option} -M {service}"), format!("postconf{option} -P {protocol}")]
}
