//! Whether the filters of this host let intercepted mail reach the gateway, the gateway reach the servers, and whether they
//! would have forwarded that mail.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use super::evaluator::{Cause, ChainDecision, decisions};
use super::finding::{InterceptCheckName, InterceptCheckReport};
use super::host::{Host, InterceptUpstream};
use super::listing::{Hook, Listing};
use super::packet::MailPacket;
use super::remedy;
use super::truth::Truth;
use crate::addr::Family;
use crate::humanize;
use crate::readiness::CheckStatus;

/// What a chain does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    Accepted,
    /// Of some clients it is dropped.
    DroppedForSome,
    /// Of some clients only it is accepted.
    AcceptedForSome,
    /// A rule that was not evaluated may drop it.
    PerhapsDropped,
    Dropped,
}

/// With the rule to blame, unless it is accepted.
pub(super) fn fate(decisions: &[ChainDecision]) -> (Fate, Option<Cause>) {
    let (accepts, drops): (Vec<&ChainDecision>, Vec<&ChainDecision>) =
        decisions.iter().partition(|decision| decision.accepts);
    let sure = |of: &[&ChainDecision]| of.iter().any(|one| one.certainty == Truth::Yes);
    let only_some =
        |of: &[&ChainDecision]| of.iter().all(|one| one.certainty == Truth::SomeClients);
    let Some(first) = drops.first() else { return (Fate::Accepted, None) };
    let blamed = |certainty: Truth| {
        let found = drops.iter().find(|one| one.certainty == certainty);
        found.unwrap_or(first).cause.clone()
    };
    let (fate, cause) = if accepts.is_empty() && sure(&drops) {
        (Fate::Dropped, blamed(Truth::Yes))
    } else if sure(&accepts) && only_some(&drops) {
        (Fate::DroppedForSome, blamed(Truth::SomeClients))
    } else if sure(&drops) && only_some(&accepts) {
        (Fate::AcceptedForSome, blamed(Truth::Yes))
    } else if sure(&drops) {
        // The rule that may save it.
        let saving = accepts.iter().find(|one| one.certainty == Truth::Unknown);
        (Fate::PerhapsDropped, saving.map_or_else(|| blamed(Truth::Yes), |one| one.cause.clone()))
    } else {
        (Fate::PerhapsDropped, blamed(Truth::Unknown))
    };
    (fate, Some(cause))
}

/// The packets that met one fate by one rule.
#[derive(Default)]
struct Group {
    families: BTreeSet<Family>,
    destinations: BTreeSet<IpNet>,
    ports: BTreeSet<u16>,
    interfaces: BTreeSet<String>,
}

/// Adds findings about the chains at INPUT, OUTPUT and FORWARD.
pub(super) fn check(host: &Host<'_>, listing: &Listing, report: &mut InterceptCheckReport) {
    check_hook(host, listing, Hook::Input, report);
    if host.upstream == InterceptUpstream::Destinations {
        check_hook(host, listing, Hook::Output, report);
    }
    check_hook(host, listing, Hook::Forward, report);
}

fn check_hook(host: &Host<'_>, listing: &Listing, hook: Hook, report: &mut InterceptCheckReport) {
    let mut groups: BTreeMap<(Fate, Cause), Group> = BTreeMap::new();
    let mut chains = BTreeSet::new();
    for (packet, interface, destination, port) in packets(host, hook) {
        for (chain, base) in listing.at(hook, packet.family) {
            chains.insert((&chain.table, &chain.name));
            let (fate, Some(cause)) = fate(&decisions(listing, chain, base, &packet)) else {
                continue;
            };
            let group = groups.entry((fate, cause)).or_default();
            group.families.insert(packet.family);
            group.destinations.insert(destination);
            group.ports.insert(port);
            group.interfaces.extend(interface.clone());
        }
    }
    let name = match hook {
        Hook::Input => InterceptCheckName::Input,
        Hook::Output => InterceptCheckName::Output,
        _ => InterceptCheckName::Forward,
    };
    let mut is_fine = true;
    for ((fate, cause), group) in groups {
        let finding = match hook {
            Hook::Input | Hook::Output => own_packets(host, hook, fate, &cause, &group),
            _ => forward(fate, &cause, &group),
        };
        if let Some((outcome, seen, commands)) = finding {
            is_fine = false;
            report.add(name, outcome, seen, commands);
        }
    }
    if is_fine {
        report.pass(name, fine(hook, chains.len()));
    }
}

fn fine(hook: Hook, chains: usize) -> String {
    let what = match hook {
        Hook::Input => "intercepted mail reaches the gateway",
        Hook::Output => "the gateway's connections reach the servers",
        _ => "mail to intercept.destinations would be forwarded",
    };
    match chains {
        0 => format!("{what}: no chain at {hook}"),
        1 => format!("{what}: 1 chain at {hook}"),
        _ => format!("{what}: {chains} chains at {hook}"),
    }
}

type Found = (CheckStatus, String, Vec<String>);

/// At INPUT and OUTPUT.
fn own_packets(
    host: &Host<'_>,
    hook: Hook,
    fate: Fate,
    cause: &Cause,
    group: &Group,
) -> Option<Found> {
    let (what, clients, lost) = match hook {
        Hook::Output => {
            let what = format!("the gateway's connections to {}", destinations(group));
            (what, "for clients", "each session gets a 421")
        }
        _ => (mail(host, group), "of clients", "it would time out"),
    };
    let (outcome, seen) = match fate {
        Fate::Accepted | Fate::DroppedForSome => return None,
        Fate::Dropped => (CheckStatus::Fail, format!("{cause} drops {what}: {lost}")),
        Fate::AcceptedForSome => {
            let seen = format!("{cause} drops {what} {clients} that no earlier rule accepts");
            (CheckStatus::Warn, seen)
        }
        Fate::PerhapsDropped => {
            let seen = format!("{cause} decides on {what}, and could not be evaluated");
            (CheckStatus::Warn, seen)
        }
    };
    let commands = group.families.iter().flat_map(|&family| {
        remedy::accept_marked(host.settings, cause, hook, family, &group.ports)
    });
    Some((outcome, seen, without_repetition(commands)))
}

fn forward(fate: Fate, cause: &Cause, group: &Group) -> Option<Found> {
    let to = destinations(group);
    let list = || vec![remedy::list(cause)];
    Some(match fate {
        Fate::Accepted => return None,
        Fate::Dropped => {
            let seen = format!(
                "{cause} does not forward mail to {to}, and the gateway would take it: remove it from \
                 intercept.destinations, or forward it"
            );
            (CheckStatus::Fail, seen, remedy::forward(cause, &group.destinations, &group.ports))
        }
        Fate::DroppedForSome | Fate::AcceptedForSome => {
            let seen = format!(
                "{cause} drops mail to {to} of some clients: FORWARD does not apply to intercepted mail, so \
                 put such rules into INPUT or prerouting as well"
            );
            (CheckStatus::Warn, seen, list())
        }
        Fate::PerhapsDropped => {
            let seen = format!(
                "{cause} decides whether mail to {to} is forwarded, and could not be evaluated: FORWARD does \
                 not apply to intercepted mail"
            );
            (CheckStatus::Warn, seen, list())
        }
    })
}

/// Each with the interface on which clients arrive, if it is about one.
fn packets(host: &Host<'_>, hook: Hook) -> Vec<(MailPacket, Option<String>, IpNet, u16)> {
    let mut packets = Vec::new();
    for destination in &host.destinations {
        let (network, outgoing) = (destination.network, destination.outgoing.clone());
        for &port in &host.settings.ports {
            match hook {
                Hook::Input => {
                    for name in &host.interfaces {
                        let packet = MailPacket::arriving(host.settings, name, network, port);
                        packets.push((packet, Some(name.clone()), network, port));
                    }
                    if host.upstream == InterceptUpstream::Configured {
                        continue;
                    }
                    let reply =
                        MailPacket::from_server(host.settings, network, port, outgoing.clone());
                    packets.push((reply, None, network, port));
                }
                Hook::Output => {
                    let packet =
                        MailPacket::to_server(host.settings, network, port, outgoing.clone());
                    packets.push((packet, None, network, port));
                }
                _ => {
                    for name in &host.interfaces {
                        let outgoing = outgoing.clone();
                        let packet =
                            MailPacket::forwarded(host.settings, name, network, port, outgoing);
                        packets.push((packet, Some(name.clone()), network, port));
                    }
                }
            }
        }
    }
    packets
}

fn mail(host: &Host<'_>, group: &Group) -> String {
    if group.interfaces.is_empty() {
        return format!("the replies of {}", destinations(group));
    }
    let families = match group.families.iter().collect::<Vec<_>>().as_slice() {
        [family] => format!(" over {}", humanize::family(**family)),
        _ => String::new(),
    };
    if group.interfaces.len() == host.interfaces.len() {
        format!("intercepted mail{families}")
    } else {
        let names: Vec<&str> = group.interfaces.iter().map(String::as_str).collect();
        format!("intercepted mail{families} from {}", names.join(", "))
    }
}

fn destinations(group: &Group) -> String {
    let networks: Vec<String> = group.destinations.iter().map(remedy::address).collect();
    networks.join(", ")
}

fn without_repetition(commands: impl Iterator<Item = String>) -> Vec<String> {
    let mut distinct = Vec::new();
    for command in commands {
        if !distinct.contains(&command) {
            distinct.push(command);
        }
    }
    distinct
}
