//! What lets gatepost choose the family of outbound mail: the filter of DNS replies with the service for its helper, and the table
//! that keeps messages refused over IPv6.

use crate::readiness::finding::{CheckName, FindingList};
use crate::readiness::postconf::{CLIENT, MasterService, Postfix, list_items, shell_quote};

const SERVICE: &str = "gatepost-map";
const SERVICE_KEY: &str = "gatepost-map/unix";
const FILTER: &str = "smtp_dns_reply_filter";
const FILTER_MAP: &str = "socketmap:unix:private/gatepost-map:dns";
const STATUS_FILTER: &str = "smtp_delivery_status_filter";
const TABLE: &str = "gatepost-dsn-filter";
const SESSIONS: &str = "smtp_mx_session_limit";
/// So that an attempt reaches an IPv4 address behind up to four IPv6 addresses. The default is 2.
const MIN_SESSIONS: u32 = 5;
const PREFERENCE: &str = "smtp_address_preference";

pub(super) fn check(postfix: &Postfix, findings: &mut FindingList) {
    let check = CheckName::PostfixOutbound;
    let has_filter = postfix.of(CLIENT, FILTER).0.contains(SERVICE);
    let has_table = postfix.of(CLIENT, STATUS_FILTER).0.contains(TABLE);
    let service = postfix.services().find(|service| service.key() == SERVICE_KEY);
    if !has_filter && !has_table && service.is_none() {
        let seen = "gatepost does not influence outbound mail (`gatepost postfix install --dry-run` \
                    prints what that takes)";
        findings.pass(check, "main.cf", seen);
        return;
    }
    let before = findings.len();
    let fault = service.map(fault);
    if has_filter && fault != Some(None) {
        let fault = fault.flatten().unwrap_or("missing");
        let seen =
            format!("{FILTER} needs the service {SERVICE}, which is {fault}: mail is deferred");
        let advice = "Correct the service, or remove the filter.";
        findings.fail(check, "master.cf", seen, advice).commands =
            vec![postfix.service_command("")];
    } else if let Some(Some(fault)) = fault {
        let seen = format!("the service {SERVICE} is {fault}");
        let advice = "Correct it before the filter uses it.";
        findings.warn(check, "master.cf", seen, advice).commands =
            vec![postfix.service_command("")];
    }
    if service.is_some() && !has_filter {
        let seen = format!("{FILTER} does not use the service {SERVICE}");
        let advice = "Set it, or remove the service.";
        findings.warn(check, "main.cf", seen, advice).commands = vec![filter_command(postfix)];
    }
    if !has_table {
        let seen =
            format!("{STATUS_FILTER} does not have the table of `gatepost postfix dsn-filter`");
        let advice =
            "Add it, or messages that are refused over IPv6 are returned to their senders.";
        findings.warn(check, "main.cf", seen, advice).commands = table_commands(postfix).to_vec();
    }
    let (value, _) = postfix.of(CLIENT, SESSIONS);
    if value.parse().is_ok_and(|limit: u32| limit > 0 && limit < MIN_SESSIONS) {
        let seen = format!("{SESSIONS} = {value}: IPv4 may not be reached in an attempt");
        let advice = "Allow as many sessions as a host may have addresses.";
        findings.warn(check, "main.cf", seen, advice).commands = vec![sessions_command(postfix)];
    }
    let (value, _) = postfix.of(CLIENT, PREFERENCE);
    if value == "ipv6" {
        let seen =
            format!("{PREFERENCE} = ipv6: a message refused over IPv6 is never tried over IPv4");
        findings.warn(check, "main.cf", seen, "Use any.").commands =
            vec![preference_command(postfix)];
    }
    if findings.len() == before {
        findings.pass(check, "main.cf", "gatepost chooses the family of outbound mail");
    }
}

/// Why the service cannot work, if so.
fn fault(service: &MasterService) -> Option<&'static str> {
    if service.command != "spawn" || !service.arguments.contains("postfix map") {
        Some("not `gatepost postfix map`")
    } else if service.chroot != "n" {
        Some("in a chroot, without the program")
    } else if service.process_limit != "0" {
        Some("limited in its processes, for which each smtp(8) process waits")
    } else {
        None
    }
}

/// Commands for all of it but the last reload, with a comment above the part of each file. The service comes first: the filter
/// without it defers mail. `options` are those of `gatepost postfix map`.
pub(super) fn outbound_commands(postfix: &Postfix, options: &str) -> Vec<String> {
    let [write_table, set_table] = table_commands(postfix);
    let mut lines = vec![format!("# {}", postfix.file(TABLE)), write_table];
    lines.extend([format!("# {}", postfix.file("master.cf")), postfix.service_command(options)]);
    lines.extend(postfix.activate(false));
    lines.extend([
        format!("# {}", postfix.file("main.cf")),
        sessions_command(postfix),
        preference_command(postfix),
        set_table,
        filter_command(postfix),
    ]);
    lines
}

fn sessions_command(postfix: &Postfix) -> String {
    postfix.set(CLIENT, SESSIONS, &MIN_SESSIONS.to_string())
}

fn preference_command(postfix: &Postfix) -> String {
    postfix.set(CLIENT, PREFERENCE, "any")
}

fn filter_command(postfix: &Postfix) -> String {
    postfix.set(CLIENT, FILTER, &with_item(postfix.of(CLIENT, FILTER).0, FILTER_MAP))
}

/// Writes the table, and sets it.
fn table_commands(postfix: &Postfix) -> [String; 2] {
    let file = postfix.file(TABLE);
    let program = shell_quote(postfix.program());
    let write = format!("{program} postfix dsn-filter > {}", shell_quote(&file));
    let list = with_item(postfix.of(CLIENT, STATUS_FILTER).0, &format!("regexp:{file}"));
    [write, postfix.set(CLIENT, STATUS_FILTER, &list)]
}

/// The list, with `item` before what it has: the first table that matches decides. Tables that are written in the list itself
/// (`regexp:{…}`) stay as they are.
fn with_item(list: &str, item: &str) -> String {
    if list_items(list).any(|other| other == item) {
        return list.to_owned();
    }
    format!("{item} {list}").trim_end().to_owned()
}

impl Postfix {
    /// The command that adds or replaces the service of the helper.
    fn service_command(&self, options: &str) -> String {
        let program = self.program();
        let line = format!(
            "{SERVICE_KEY}={SERVICE} unix - n n - 0 spawn user=nobody argv={program} postfix map{options}"
        );
        format!("postconf{} -M {}", self.directory_option(), shell_quote(&line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_tables_stay_behind_that_of_gatepost() {
        assert_eq!(with_item("", "b:1"), "b:1");
        assert_eq!(with_item("a:1, c:1", "b:1"), "b:1 a:1, c:1");
        assert_eq!(with_item("a:1, b:1", "b:1"), "a:1, b:1");
        assert_eq!(
            with_item("regexp:{{/a{1,2}/ IGNORE}}", "b:1"),
            "b:1 regexp:{{/a{1,2}/ IGNORE}}"
        );
    }
}
