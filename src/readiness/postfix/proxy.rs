//! An entrance that gatepost can hand mail to, so that Postfix goes on seeing the client: by the PROXY protocol
//! (`identity = "proxy-v2"`), or by XCLIENT.

use super::lists::trusts_loopback;
use super::{Postfix, Service, bare, quoted};
use crate::readiness::finding::{CheckName, Findings};

const SMTPD: &str = "smtpd_upstream_proxy_protocol";
const POSTSCREEN: &str = "postscreen_upstream_proxy_protocol";
/// Where the README puts it.
const PORT: u16 = 10025;

pub(super) fn judge(postfix: &Postfix, findings: &mut Findings) {
    let check = CheckName::PostfixProxy;
    for parameter in [SMTPD, POSTSCREEN] {
        let everywhere = postfix.main(parameter);
        if !everywhere.is_empty() {
            let seen = format!(
                "{parameter} = {everywhere}: each entrance wants a PROXY header, also those for clients"
            );
            let advice =
                "Take it out of main.cf, and set it in master.cf for the gateway's entrance only.";
            let mut lines = vec![format!("postconf{} -X {parameter}", postfix.at())];
            if entrances(postfix, true).next().is_none() {
                lines.extend(entrance(postfix));
            }
            findings.fail(check, "main.cf", seen, advice).commands = lines;
            return;
        }
    }
    let mut passed = false;
    for service in entrances(postfix, true) {
        let key = service.key();
        let local = service.host().and_then(bare).is_some_and(|ip| ip.is_loopback())
            || postfix.main("inet_interfaces") == "loopback-only";
        let named = service.host().is_some();
        if local || named {
            findings.pass(check, &key, "an entrance for gatepost, with identity = \"proxy-v2\"");
        } else {
            let seen = "it wants a PROXY header, and listens on every address: whoever connects may claim to be any client";
            let advice = "Let it listen where only the gateway comes.";
            let at = postfix.at();
            let port = service.port();
            let lines = vec![
                format!("postconf{at} -MX {}", quoted(&key)),
                format!(
                    "postconf{at} -M {}",
                    quoted(&format!("[::1]:{port}/inet=[::1]:{port} inet n - n - - smtpd"))
                ),
                format!(
                    "postconf{at} -P {}",
                    quoted(&format!("[::1]:{port}/inet/{SMTPD}=haproxy"))
                ),
            ];
            findings.fail(check, &key, seen, advice).commands = lines;
        }
        passed = true;
    }
    if passed {
        return;
    }
    let list = postfix.main("smtpd_authorized_xclient_hosts");
    if trusts_loopback(list) {
        findings.pass(
            check,
            "main.cf",
            "gatepost may name the client by XCLIENT, with identity = \"xclient\"",
        );
        return;
    }
    let advice = "Give gatepost an entrance that only this host can reach and that believes the PROXY protocol, if it is \
                  to stand in front of Postfix here.";
    let seen = "no entrance for gatepost: Postfix would take it for the client";
    findings.warn(check, "master.cf", seen, advice).commands = entrance(postfix);
}

/// Services that want a PROXY header by master.cf, or all that take mail.
fn entrances(postfix: &Postfix, with_header: bool) -> impl Iterator<Item = &Service> {
    postfix.services.iter().filter(move |service| {
        let parameter = match service.command.as_str() {
            "smtpd" => SMTPD,
            "postscreen" => POSTSCREEN,
            _ => return false,
        };
        let (value, own) = postfix.of(&service.key(), parameter);
        service.kind == "inet" && (!with_header || own && !value.is_empty())
    })
}

/// The lines of the README, at a port that nothing else has.
fn entrance(postfix: &Postfix) -> Vec<String> {
    let is_free =
        |port: &u16| postfix.services.iter().all(|service| service.port() != port.to_string());
    let port = (PORT..).find(is_free).unwrap_or(PORT);
    let (at, name) = (postfix.at(), format!("[::1]:{port}"));
    vec![
        format!("postconf{at} -M {}", quoted(&format!("{name}/inet={name} inet n - n - - smtpd"))),
        format!("postconf{at} -P {}", quoted(&format!("{name}/inet/{SMTPD}=haproxy"))),
    ]
}
