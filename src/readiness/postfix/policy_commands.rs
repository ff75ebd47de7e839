//! Commands that make smtpd(8) ask gatepost's policy service: about each recipient, and about the end of each message if rules
//! are decided there.
//!
//! The question has its place behind `reject_unauth_destination`: what this site does not deliver needs no lookups. Where only
//! `smtpd_relay_restrictions` has that item, the list refers to them. So clients that may relay are not asked about either. At
//! the end of a message the items that permit them come first as well.

use std::path::Path;

use super::restrictions::{ListEnd, RestrictionList, question};
use crate::readiness::policy_server::{PolicyServer, PolicyServerAddress, PolicyServerError};
use crate::readiness::postconf::{MasterService, Postfix, RESTRICTIONS};

pub(super) const RECIPIENT: &str = "smtpd_recipient_restrictions";
const RELAY: &str = "smtpd_relay_restrictions";
pub(super) const END_OF_DATA: &str = "smtpd_end_of_data_restrictions";
pub(super) const MAIN: &str = "main.cf";
/// Items that permit clients by what is known of them at the end of a message too.
const PERMITS: [&str; 4] = [
    "permit_mynetworks",
    "permit_sasl_authenticated",
    "permit_tls_clientcerts",
    "permit_tls_all_clientcerts",
];

/// Commands that make Postfix ask, each with its parameter; none where it does. In each list only items are added.
///
/// # Errors
/// Where no command can.
pub(super) fn policy_commands(
    postfix: &Postfix,
    server: &PolicyServer,
) -> Result<Vec<(&'static str, String)>, PolicyServerError> {
    let endpoint = server.endpoint(postfix);
    if let PolicyServerAddress::Unix(path) = &server.address {
        let text = path.to_string_lossy();
        if text.contains(|c: char| c.is_whitespace() || matches!(c, ',' | '{' | '}' | '$')) {
            return Err(PolicyServerError::Path { path: path.clone() });
        }
        let chrooted = postfix.chrooted_listeners();
        if endpoint.starts_with("unix:/") && !chrooted.is_empty() {
            let proposed = Path::new(postfix.main("queue_directory")).join("private/gatepost");
            let services = chrooted.join(", ");
            return Err(PolicyServerError::Chroot { services, path: path.clone(), proposed });
        }
    }
    let mut commands = Vec::new();
    let asks_in = |place: &str, parameter: &str| {
        let list = RestrictionList::new(postfix.of(place, parameter).0);
        let mut checks = list.policy_checks().into_iter();
        checks.any(|check| postfix.is_same(check.endpoint, &endpoint))
    };
    let item = question(&endpoint, server.timeout(), &[]);
    for place in postfix.places(RECIPIENT) {
        let mut before_the_end = RESTRICTIONS.iter().filter(|one| **one != END_OF_DATA);
        if !before_the_end.any(|parameter| asks_in(&place, parameter)) {
            commands.push((RECIPIENT, add_question(postfix, &place, &item)?));
        }
    }
    let at_end = if server.decides_at_end { postfix.places(END_OF_DATA) } else { Vec::new() };
    for place in at_end.into_iter().filter(|place| !asks_in(place, END_OF_DATA)) {
        commands.push((END_OF_DATA, add_question_at_end(postfix, &place, &item)?));
    }
    Ok(commands)
}

/// Behind the operator's list, and the items that permit the clients about whose recipients Postfix does not ask either.
fn add_question_at_end(
    postfix: &Postfix,
    place: &str,
    item: &str,
) -> Result<String, PolicyServerError> {
    let permits = postfix.relaying_clients();
    let expanded = RestrictionList::new(postfix.of(place, END_OF_DATA).0);
    let is_missing =
        |permit: &&str| expanded.items().all(|item| !item.eq_ignore_ascii_case(permit));
    let permits: Vec<&str> = permits.into_iter().filter(is_missing).collect();
    let list = RestrictionList::new(postfix.unexpanded(place, END_OF_DATA));
    let by_hand = || {
        let item = [&permits[..], &[item]].concat().join(", ");
        PolicyServerError::ByHandAtEnd { place: place.to_owned(), item }
    };
    let end = match (expanded.end(), list.end()) {
        (Some((_, ListEnd::Permit)), Some((at, ListEnd::Permit))) => at,
        (None, None) => list.text.len(),
        _ => return Err(by_hand()),
    };
    let (before, after) = list.text.split_at(end);
    let parts = [&[separated(before)], &permits[..], &[item, after]].concat();
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    set_list(postfix, place, END_OF_DATA, &parts.join(", ")).ok_or_else(by_hand)
}

fn add_question(postfix: &Postfix, place: &str, item: &str) -> Result<String, PolicyServerError> {
    let by_hand = || PolicyServerError::ByHand { place: place.to_owned(), item: item.to_owned() };
    let nothing = || PolicyServerError::NothingToAsk { place: place.to_owned() };
    let expanded = RestrictionList::new(postfix.of(place, RECIPIENT).0);
    let list = RestrictionList::new(postfix.unexpanded(place, RECIPIENT));
    let end = match (expanded.end(), list.end()) {
        (Some((_, ListEnd::Reject)), _) => return Err(nothing()),
        (Some((_, ListEnd::Permit)), Some((at, ListEnd::Permit))) => at,
        (None, None) => list.text.len(),
        _ => return Err(by_hand()),
    };
    let relay = RestrictionList::new(postfix.of(place, RELAY).0);
    let relay_end = relay.end();
    let guard = if expanded.guards() || list.items().any(|item| item == format!("${RELAY}")) {
        None
    } else if relay.guards() {
        Some(match relay_end {
            None => format!("${RELAY}"),
            // Not the part behind which nothing is evaluated.
            Some((at, _)) => separated(relay.text.get(..at).unwrap_or_default()).to_owned(),
        })
    } else if relay_end.is_some_and(|(_, end)| end == ListEnd::Reject) {
        return Err(nothing());
    } else {
        return Err(PolicyServerError::Unguarded { place: place.to_owned() });
    };
    let (before, after) = list.text.split_at(end);
    let parts = [separated(before), guard.as_deref().unwrap_or_default(), item, after];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    set_list(postfix, place, RECIPIENT, &parts.join(", ")).ok_or_else(by_hand)
}

/// Without the separator at its end.
fn separated(list: &str) -> &str {
    list.trim_end_matches(|c: char| c == ',' || c.is_whitespace())
}

/// postconf(1) accepts no white space in a parameter of master.cf.
pub(super) fn set_list(
    postfix: &Postfix,
    place: &str,
    parameter: &str,
    list: &str,
) -> Option<String> {
    if place == MAIN {
        return Some(postfix.set_main(parameter, list));
    }
    let inner = |item: &'_ str| -> Option<String> {
        let inner = item.strip_prefix('{')?.strip_suffix('}')?;
        let items: Vec<&str> = RestrictionList::new(inner).items().collect();
        Some(format!("{{{}}}", items.join(",")))
    };
    let parsed = RestrictionList::new(list);
    let items: Vec<String> =
        parsed.items().map(|item| inner(item).unwrap_or_else(|| item.to_owned())).collect();
    let list = items.join(",");
    (!list.contains(char::is_whitespace)).then(|| postfix.set(place, parameter, &list))
}

impl Postfix {
    /// The items of both lists at RCPT that permit clients to relay, in the order of the lists.
    fn relaying_clients(&self) -> Vec<&'static str> {
        let mut permits = Vec::new();
        for parameter in [RECIPIENT, RELAY] {
            for place in self.places(parameter) {
                let list = RestrictionList::new(self.of(&place, parameter).0);
                for item in list.items() {
                    let known = PERMITS.into_iter().find(|known| known.eq_ignore_ascii_case(item));
                    permits.extend(known.filter(|known| !permits.contains(known)));
                }
            }
        }
        permits
    }

    /// Where a list of the services is that receive mail: `main.cf`, or a service that overrides it.
    fn places(&self, parameter: &str) -> Vec<String> {
        let receives = |service: &&MasterService| {
            let behind_postscreen = service.kind == "pass";
            service.command == "smtpd" && (service.receives_internet_mail() || behind_postscreen)
        };
        let place = |service: &MasterService| match self.of(&service.key(), parameter).1 {
            true => service.key(),
            false => MAIN.to_owned(),
        };
        let mut places: Vec<String> = self.services().filter(receives).map(place).collect();
        if places.is_empty() {
            places.push(MAIN.to_owned());
        }
        places.sort();
        places.dedup();
        places
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SOCKET: &str = "/var/spool/postfix/private/gatepost";
    const ITEM: &str =
        "check_policy_service { unix:private/gatepost, timeout=2s, default_action=DUNNO }";
    /// Postfix's own default, expanded.
    const RELAY_DEFAULT: &str =
        "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination";

    fn server(address: &str) -> PolicyServer {
        let address = match address.parse() {
            Ok(address) => PolicyServerAddress::Inet(address),
            Err(_) => PolicyServerAddress::Unix(address.into()),
        };
        PolicyServer { address, deadline: Duration::from_millis(1500), decides_at_end: false }
    }

    fn postfix(settings: &str, master: &str, overrides: &str) -> Postfix {
        let main = format!(
            "queue_directory = /var/spool/postfix\ncompatibility_level = 3.6\n\
             smtpd_policy_service_timeout = 100s\n\
             smtpd_policy_service_default_action = 451 4.3.5 Server configuration problem\n{settings}\n"
        );
        Postfix::new(None, &main, master, overrides)
    }

    fn commands_for(postfix: &Postfix, server: &PolicyServer) -> Result<Vec<String>, String> {
        let found = policy_commands(postfix, server).map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|(_, command)| command).collect())
    }

    fn commands(postfix: &Postfix) -> Result<Vec<String>, String> {
        commands_for(postfix, &server(SOCKET))
    }

    /// The list that is set.
    fn set(relay: &str, recipient: &str) -> Result<String, String> {
        let settings = format!("{RELAY} = {relay}\n{RECIPIENT} = {recipient}");
        let commands = commands(&postfix(&settings, "", ""))?;
        let [command] = &commands[..] else { panic!("{commands:?}") };
        let set = command.strip_prefix("postconf -e 'smtpd_recipient_restrictions = ").unwrap();
        Ok(set.strip_suffix('\'').unwrap().replace(ITEM, "ASK"))
    }

    #[test]
    fn the_question_is_behind_the_operators_list_and_a_guard() {
        for (relay, recipient, expected) in [
            (RELAY_DEFAULT, "", "$smtpd_relay_restrictions, ASK"),
            (
                RELAY_DEFAULT,
                "reject_non_fqdn_sender, ",
                "reject_non_fqdn_sender, $smtpd_relay_restrictions, ASK",
            ),
            (
                "",
                "permit_mynetworks reject_unauth_destination",
                "permit_mynetworks reject_unauth_destination, ASK",
            ),
            (
                RELAY_DEFAULT,
                "reject_unauth_destination,a,permit",
                "reject_unauth_destination,a, ASK, permit",
            ),
            (RELAY_DEFAULT, "a, permit", "a, $smtpd_relay_restrictions, ASK, permit"),
            (
                "permit_mynetworks, reject_unauth_destination, permit",
                "",
                "permit_mynetworks, reject_unauth_destination, ASK",
            ),
            (
                RELAY_DEFAULT,
                "warn_if_reject reject_unauth_destination",
                "warn_if_reject reject_unauth_destination, $smtpd_relay_restrictions, ASK",
            ),
            // Another service of the same kind stays.
            (
                "",
                "reject_unauth_destination, check_policy_service inet:127.0.0.1:10023",
                "reject_unauth_destination, check_policy_service inet:127.0.0.1:10023, ASK",
            ),
        ] {
            assert_eq!(set(relay, recipient).as_deref(), Ok(expected), "{relay} / {recipient}");
        }
        for (relay, recipient, problem) in [
            ("", "permit_mynetworks", "neither smtpd_relay_restrictions nor"),
            ("", "permit, reject_unauth_destination", "neither smtpd_relay_restrictions nor"),
            ("", "permit_mynetworks, reject", "rejects all other"),
            ("permit_mynetworks, reject", "", "rejects all other"),
        ] {
            let error = set(relay, recipient).unwrap_err();
            assert!(error.contains(problem), "{relay} / {recipient}: {error}");
        }
    }

    #[test]
    fn the_operators_macros_stay() {
        let settings =
            format!("{RELAY} = {RELAY_DEFAULT}\n{RECIPIENT} = reject_unauth_destination, a");
        let with = |list: &str| {
            let written = format!("{RECIPIENT} = {list}\n");
            commands(&postfix(&settings, "", "").with_unexpanded(&written))
        };
        let set = with("reject_unauth_destination, $mine").unwrap().remove(0);
        assert!(set.contains("= reject_unauth_destination, $mine, check_policy_service"), "{set}");
        let settings = format!("{RECIPIENT} = reject_unauth_destination, permit");
        let written = format!("{RECIPIENT} = reject_unauth_destination, $mine\n");
        let error = commands(&postfix(&settings, "", "").with_unexpanded(&written)).unwrap_err();
        assert!(error.contains("no command can change") && error.contains(ITEM), "{error}");
    }

    #[test]
    fn what_is_there_is_not_added() {
        for list in [
            format!("{RECIPIENT} = reject_unauth_destination, {ITEM}"),
            format!("{RECIPIENT} = check_policy_service unix:{SOCKET}"),
            "smtpd_data_restrictions = check_policy_service unix:private/gatepost".to_owned(),
        ] {
            assert_eq!(commands(&postfix(&list, "", "")), Ok(Vec::new()), "{list}");
        }
    }

    #[test]
    fn a_list_of_a_service_is_changed_in_master_cf() {
        let master = "smtp inet n - n - - smtpd\nsubmission inet n - n - - smtpd\n";
        let overrides = "smtp/inet/smtpd_recipient_restrictions = permit_mynetworks, reject_unauth_destination\n";
        let found = commands(&postfix("", master, overrides)).unwrap();
        let expected = "postconf -P 'smtp/inet/smtpd_recipient_restrictions=permit_mynetworks,\
                        reject_unauth_destination,check_policy_service,{unix:private/gatepost,timeout=2s,\
                        default_action=DUNNO}'";
        assert_eq!(found, [expected]);
        let overrides =
            "smtp/inet/smtpd_recipient_restrictions = reject_unauth_destination, static:{a b}\n";
        assert!(commands(&postfix("", master, overrides)).unwrap_err().contains("no command"));
    }

    #[test]
    fn a_socket_elsewhere_cannot_be_reached_from_a_chroot() {
        let guard = "smtpd_recipient_restrictions = reject_unauth_destination";
        let ask = |settings: &str, master: &str, address: &str| {
            commands_for(&postfix(settings, master, ""), &server(address))
                .map(|lines| lines.concat())
        };
        let free = "smtp inet n - n - - smtpd\n";
        let chroot = "smtp inet n - y - - smtpd\n";
        let default = "smtp inet n - - - - smtpd\n";
        let elsewhere = "/run/gatepost/policy";
        let found = ask(guard, free, elsewhere).unwrap();
        assert!(found.contains("{ unix:/run/gatepost/policy, timeout"), "{found}");
        assert!(ask(guard, default, elsewhere).is_ok());
        let old = format!("{guard}\ncompatibility_level = 0");
        for (settings, master) in [(guard, chroot), (&*old, default)] {
            let error = ask(settings, master, elsewhere).unwrap_err();
            assert!(error.starts_with("smtp/inet in master.cf runs in a chroot"), "{error}");
            assert!(error.contains("\"unix:/var/spool/postfix/private/gatepost\""), "{error}");
            assert!(ask(settings, master, SOCKET).unwrap().contains("unix:private/gatepost"));
        }
        let found = ask(guard, chroot, "[::]:10040").unwrap();
        assert!(found.contains("{ inet:[::1]:10040, timeout"), "{found}");
        assert!(ask(guard, free, "/run/a b").unwrap_err().contains("change [postfix] policy"));
    }

    /// The commands for rules that are decided at the end of a message, where RCPT asks already.
    fn at_end(settings: &str, master: &str, overrides: &str) -> Result<Vec<String>, String> {
        let recipient = format!("{RECIPIENT} = reject_unauth_destination, {ITEM}");
        let server = PolicyServer { decides_at_end: true, ..server(SOCKET) };
        commands_for(&postfix(&format!("{recipient}\n{settings}"), master, overrides), &server)
    }

    #[test]
    fn the_end_of_a_message_has_a_question_behind_the_operators_list_and_relaying_clients() {
        let relay = format!("{RELAY} = {RELAY_DEFAULT}\n");
        for (settings, expected) in [
            (String::new(), "ASK"),
            (relay.clone(), "permit_mynetworks, permit_sasl_authenticated, ASK"),
            (
                format!("{relay}{END_OF_DATA} = permit_mynetworks, check_client_access cdb:a"),
                "permit_mynetworks, check_client_access cdb:a, permit_sasl_authenticated, ASK",
            ),
            (format!("{END_OF_DATA} = a,permit"), "a, ASK, permit"),
            // Another service of the same kind stays.
            (
                format!("{END_OF_DATA} = check_policy_service inet:127.0.0.1:10031"),
                "check_policy_service inet:127.0.0.1:10031, ASK",
            ),
        ] {
            let found = at_end(&settings, "", "").unwrap().remove(0).replace(ITEM, "ASK");
            let expected = format!("postconf -e 'smtpd_end_of_data_restrictions = {expected}'");
            assert_eq!(found, expected, "{settings}");
        }
        let there = format!("{relay}{END_OF_DATA} = {ITEM}");
        assert_eq!(at_end(&there, "", ""), Ok(Vec::new()));
        let error = at_end(&format!("{relay}{END_OF_DATA} = reject"), "", "").unwrap_err();
        assert!(error.contains("write at its end: permit_mynetworks, permit_sasl_"), "{error}");
        assert!(error.contains(ITEM), "{error}");
    }

    #[test]
    fn the_end_of_a_message_is_asked_about_only_for_rules_that_are_decided_there() {
        let recipient = format!("{RECIPIENT} = reject_unauth_destination, {ITEM}");
        assert_eq!(commands(&postfix(&recipient, "", "")), Ok(Vec::new()));
        // A question there is none about recipients.
        let only = format!("{RECIPIENT} = reject_unauth_destination\n{END_OF_DATA} = {ITEM}");
        let [command] = &commands(&postfix(&only, "", "")).unwrap()[..] else { panic!("{only}") };
        assert!(command.contains(RECIPIENT), "{command}");
    }

    #[test]
    fn the_list_of_a_service_at_the_end_is_changed_in_master_cf() {
        let master = "smtp inet n - n - - smtpd\n";
        let overrides = "smtp/inet/smtpd_end_of_data_restrictions = a,b\n";
        let expected = "postconf -P 'smtp/inet/smtpd_end_of_data_restrictions=a,b,check_policy_service,\
                        {unix:private/gatepost,timeout=2s,default_action=DUNNO}'";
        assert_eq!(at_end("", master, overrides).unwrap(), [expected]);
    }

    #[test]
    fn postfix_waits_longer_than_the_gateway() {
        for (deadline, timeout) in [(100, 2), (1500, 2), (1600, 3), (60_000, 61)] {
            let deadline = Duration::from_millis(deadline);
            let server = PolicyServer { deadline, ..server(SOCKET) };
            assert_eq!(server.timeout(), Duration::from_secs(timeout), "{deadline:?}");
        }
    }
}
