//! The nftables table as data. Its rules, in the order of evaluation:
//!
//! ```text
//! chain prerouting, after every chain of others
//!   an ICMP error about one of our connections  MARK    or it would reach the client or the MTA, and neither has that connection
//!   not TCP                                     accept
//!   mark OWN, on lo                             accept  our own connection to an upstream on this host
//!   a SYN to our listener's port of this host   reject  nobody connects to it directly
//!   for an address of this host                 accept  for its own listener or MTA
//!   belongs to a wildcard listener              intercept    a new connection, or not ours
//!   belongs to a transparent socket             MARK    of an open session: the client's packets and the upstream's replies
//!   anything else                               intercept
//! chain intercept
//!   not on an interface of clients              accept
//!   to no port or destination of ours           accept
//!   of a family                                 door_ipv4, door_ipv6
//!   a SYN                                       tproxy, MARK
//!   anything else                               tproxy, MARK  the ACK of a SYN cookie, which belongs to no socket yet
//!   the rest                                    count   no listener matched: the gateway is not running
//! chain door_ipv4, door_ipv6                    empty while that door is open
//!   from an exempt network                      return
//!   a SYN                                       tproxy, reject with tcp reset
//! chain arrived, at input, after every chain of others
//!   a SYN with MARK, by family                  count   what `tproxy` took and this misses was lost in between
//! chain spoofed, at postrouting, before the NAT of others; only where there is such
//!   from this host with a foreign source        snat to that source: a null binding, so that no other is chosen
//! ```
//!
//! The door's rule has `tproxy` because that matches only while the gateway listens: after a kill -9 it refuses nothing.
//! Sessions in progress never reach it.
//!
//! The chain `prerouting` is the last of its hook. Thus it sees addresses as translated (DNAT to a server behind this host, and
//! the replies to a connection of ours under SNAT), filters of others have decided, and no other chain restores marks after it.
//! The mark has a mask, so that the marks of others stay. Others may save the mark of our own connections with the connection and
//! restore it in the replies, so it counts on `lo` only.
//!
//! Soon after a start there are connections that are older: their packets, which belong to no socket either, are accepted,
//! unless a SYN of the same address and port was seen in the last minute.
//!
//! The sources of SYNs are remembered: if none arrives any more, their number tells a firewall that loses all mail from one
//! that bans a source.
//!
//! `socket wildcard` does not match sockets in TIME_WAIT or in a handshake. Hence it is a separate rule: those packets still
//! reach `socket transparent`. Counters follow `tproxy`, so that they count matched packets.

use std::borrow::Cow;
use std::collections::HashSet;

use ipnet::IpNet;
use nftables::batch::Batch;
use nftables::expr::{
    BinaryOperation, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload,
    PayloadField, Prefix, SetItem, Socket, SocketAttr,
};
use nftables::schema::{Chain, FlushObject, NfCmd, NfListObject, Nftables, Rule, Table};
use nftables::stmt::{
    Accept, Counter, JumpTarget, Mangle, Match, NAT, NATFamily, Operator, Reject, RejectType,
    Statement, TProxy,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::dynamic_sets::{self, opening, sources, update};
use super::settings::{InterceptSettings, TABLE};
use crate::addr::{Family, Networks};

const PREROUTING: &str = "prerouting";
const INTERCEPT: &str = "intercept";
const ARRIVED: &str = "arrived";
const SPOOFED: &str = "spoofed";

/// After the chains of others, whose highest customary priority is that of connection tracking helpers (300).
pub(super) const LAST: i32 = 1000;

/// Just before the kernel's priority "srcnat" (100): the first NAT chain that decides is the only one.
pub(super) const BEFORE_NAT: i32 = 99;

/// What the table is made from.
#[derive(Clone, Debug)]
pub(super) struct Ruleset {
    pub(super) settings: InterceptSettings,
    /// Interfaces on which clients arrive; never empty.
    pub(super) interfaces: Vec<String>,
    /// Whether this host translates addresses. A NAT chain of ours would start connection tracking on one that does not.
    pub(super) translates: bool,
    /// Whether packets of connections that are older than the interception pass by.
    pub(super) spares_earlier: bool,
    /// By family, whether its door is closed.
    pub(super) closed: [bool; 2],
    /// Networks that a closed door admits.
    pub(super) exempt: Networks,
}

impl Ruleset {
    /// A batch that replaces our table.
    pub(super) fn replace(&self) -> Nftables<'static> {
        let mut batch = Batch::new();
        // `delete` fails without a table, and nft has `destroy` only since 1.0.7.
        batch.add(table());
        batch.delete(table());
        batch.add(table());
        batch.add(base_chain(PREROUTING, NfChainType::Filter, NfHook::Prerouting, LAST));
        batch.add(base_chain(ARRIVED, NfChainType::Filter, NfHook::Input, LAST));
        batch.add(NfListObject::Chain(chain(INTERCEPT)));
        if self.translates {
            batch.add(base_chain(SPOOFED, NfChainType::NAT, NfHook::Postrouting, BEFORE_NAT));
        }
        for family in self.settings.families() {
            batch.add(NfListObject::Chain(chain(door(family))));
            batch.add(dynamic_sets::add_sources(family));
            if self.spares_earlier {
                batch.add(dynamic_sets::add_opening(family));
            }
        }
        let mut rules = self.prerouting();
        rules.extend(self.intercept());
        rules.extend(self.settings.families().map(|family| self.arrived(family)));
        if self.translates {
            rules.extend(self.settings.families().map(spoofed));
        }
        for family in self.settings.families() {
            rules.extend(self.door(family));
        }
        for rule in rules {
            batch.add(NfListObject::Rule(rule));
        }
        batch.to_nftables()
    }

    /// A batch that opens or closes the door of `family` as this says; fails without our table.
    pub(super) fn set_door(&self, family: Family) -> Nftables<'static> {
        let mut batch = Batch::new();
        batch.add_cmd(NfCmd::Flush(FlushObject::Chain(chain(door(family)))));
        for rule in self.door(family) {
            batch.add(NfListObject::Rule(rule));
        }
        batch.to_nftables()
    }

    fn prerouting(&self) -> Vec<Rule<'static>> {
        let one = || Expression::Number(1);
        let zero = Expression::Number(0);
        let mut rules = vec![
            rule(
                PREROUTING,
                "ICMP errors about connections of the gateway: to the gateway",
                vec![
                    is(meta(MetaKey::L4proto), set(["icmp", "ipv6-icmp"].map(text).into_iter())),
                    is(socket(&SocketAttr::Wildcard), zero),
                    is(socket(&SocketAttr::Transparent), one()),
                    self.set_mark(),
                    counter(),
                    accept(),
                ],
            ),
            rule(
                PREROUTING,
                "not TCP: ignored",
                vec![not(meta(MetaKey::L4proto), text("tcp")), counter(), accept()],
            ),
            rule(
                PREROUTING,
                "connections of the gateway to an upstream of this host: ignored",
                vec![
                    is(meta(MetaKey::Iifname), text("lo")),
                    self.has_mark(self.settings.own_mark()),
                    counter(),
                    accept(),
                ],
            ),
        ];
        for family in self.settings.families() {
            let Some(port) = self.settings.listen(family) else { continue };
            rules.push(rule(
                PREROUTING,
                "to the gateway's listener itself: refused",
                vec![
                    of_family(family),
                    is(destination_type(), text("local")),
                    is(field("tcp", "dport"), Expression::Number(port.into())),
                    is(syn(), text("syn")),
                    counter(),
                    Statement::Reject(Some(Reject::new(Some(RejectType::TCPReset), None))),
                ],
            ));
        }
        rules.extend([
            rule(
                PREROUTING,
                "to an address of this host: ignored",
                vec![is(destination_type(), text("local")), counter(), accept()],
            ),
            rule(
                PREROUTING,
                "new connections to a listener: to chain intercept",
                vec![is(socket(&SocketAttr::Wildcard), one()), counter(), goto(INTERCEPT)],
            ),
            rule(
                PREROUTING,
                "open sessions, from client or upstream: to the gateway",
                vec![
                    is(socket(&SocketAttr::Transparent), one()),
                    self.set_mark(),
                    counter(),
                    accept(),
                ],
            ),
            rule(PREROUTING, "all others: to chain intercept", vec![counter(), goto(INTERCEPT)]),
        ]);
        rules
    }

    fn intercept(&self) -> Vec<Rule<'static>> {
        let names = self.interfaces.iter().map(|name| text(name.clone()));
        let mut rules = vec![
            rule(
                INTERCEPT,
                "arrived on another interface: ignored",
                vec![not(meta(MetaKey::Iifname), set(names)), counter(), accept()],
            ),
            rule(
                INTERCEPT,
                "to another port: ignored",
                vec![not(field("tcp", "dport"), self.ports()), counter(), accept()],
            ),
        ];
        for family in self.settings.families() {
            let destinations = networks(&self.settings.destinations, family);
            rules.push(rule(
                INTERCEPT,
                "to another destination: ignored",
                match destinations {
                    Some(destinations) => {
                        let other = not(field(protocol(family), "daddr"), destinations);
                        vec![of_family(family), other, counter(), accept()]
                    }
                    None => vec![of_family(family), counter(), accept()],
                },
            ));
        }
        for family in self.settings.families() {
            let jump = Statement::Jump(JumpTarget { target: door(family).into() });
            rules.push(rule(
                INTERCEPT,
                "to the chain of the door",
                vec![of_family(family), counter(), jump],
            ));
        }
        for family in self.settings.families() {
            let Some(port) = self.settings.listen(family) else { continue };
            let accepted = |comment, mut conditions: Vec<Statement<'static>>| {
                conditions.insert(0, of_family(family));
                let take = [tproxy(family, port), self.set_mark(), counter(), accept()];
                conditions.extend(take);
                rule(INTERCEPT, comment, conditions)
            };
            // Only what is taken: without a listener, connections pass by that are older than the next one.
            let remembered =
                |set| vec![of_family(family), is(syn(), text("syn")), tproxy(family, port), set];
            // A rule of its own: a full set ends it.
            let source = update(sources(family), field(protocol(family), "saddr"));
            rules.push(rule(INTERCEPT, "mail: its source is remembered", remembered(source)));
            if self.spares_earlier {
                let opening = remembered(update(opening(family), sender(family)));
                rules.push(rule(INTERCEPT, "mail: remembered until its handshake", opening));
            }
            rules.push(accepted(TAKEN, vec![is(syn(), text("syn"))]));
            let by_cookie = "mail, accepted by SYN cookie: to the gateway";
            if self.spares_earlier {
                rules.push(accepted(
                    by_cookie,
                    vec![is(sender(family), text(format!("@{}", opening(family))))],
                ));
                let earlier = vec![of_family(family), not(syn(), text("syn")), counter(), accept()];
                rules.push(rule(INTERCEPT, EARLIER, earlier));
            } else {
                rules.push(accepted(by_cookie, Vec::new()));
            }
        }
        for family in self.settings.families() {
            rules.push(rule(INTERCEPT, bypassed(family), vec![of_family(family), counter()]));
        }
        rules
    }

    /// Of a closed door.
    fn door(&self, family: Family) -> Vec<Rule<'static>> {
        let mut rules = Vec::new();
        let Some(port) = self.settings.listen(family).filter(|_| self.closed[family as usize])
        else {
            return rules;
        };
        if let Some(exempt) = networks(&self.exempt, family) {
            let exempt = is(field(protocol(family), "saddr"), exempt);
            let leave = Statement::Return(None);
            rules.push(rule(door(family), "exempt from the door", vec![exempt, counter(), leave]));
        }
        let reset = Reject::new(Some(RejectType::TCPReset), None);
        rules.push(rule(
            door(family),
            REFUSED,
            vec![
                is(syn(), text("syn")),
                tproxy(family, port),
                counter(),
                Statement::Reject(Some(reset)),
            ],
        ));
        rules
    }

    fn arrived(&self, family: Family) -> Rule<'static> {
        rule(
            ARRIVED,
            arrived(family),
            vec![
                of_family(family),
                self.has_mark(self.settings.mark),
                is(meta(MetaKey::L4proto), text("tcp")),
                is(syn(), text("syn")),
                counter(),
            ],
        )
    }

    fn ports(&self) -> Expression<'static> {
        set(self.settings.ports.iter().map(|&port| Expression::Number(port.into())))
    }

    /// Leaves the bits outside the mask.
    fn set_mark(&self) -> Statement<'static> {
        let others = and(meta(MetaKey::Mark), Expression::Number(!self.settings.mask));
        let operands = vec![others, Expression::Number(self.settings.mark)];
        let value = Expression::BinaryOperation(Box::new(BinaryOperation::OR(operands)));
        Statement::Mangle(Mangle { key: meta(MetaKey::Mark), value })
    }

    fn has_mark(&self, mark: u32) -> Statement<'static> {
        let ours = and(meta(MetaKey::Mark), Expression::Number(self.settings.mask));
        is(ours, Expression::Number(mark))
    }
}

/// A batch that removes our table; fails without one.
pub(super) fn delete() -> Nftables<'static> {
    let mut batch = Batch::new();
    batch.delete(table());
    batch.to_nftables()
}

/// Kernel modules, each with a batch that only a kernel with the module accepts; to be checked, never applied.
pub(super) fn probes() -> [(&'static str, Nftables<'static>); 3] {
    let probe = |statements: Vec<Statement<'static>>| {
        let mut batch = Batch::new();
        batch.add(table());
        batch.add(base_chain("probe", NfChainType::Filter, NfHook::Prerouting, LAST));
        batch.add(NfListObject::Rule(rule("probe", "probe", statements)));
        batch.to_nftables()
    };
    let tcp = || is(meta(MetaKey::L4proto), text("tcp"));
    [
        ("nft_tproxy", probe(vec![tcp(), tproxy(Family::Ipv6, 1)])),
        ("nft_socket", probe(vec![is(socket(&SocketAttr::Transparent), Expression::Number(1))])),
        ("nft_fib_inet", probe(vec![is(destination_type(), text("local"))])),
    ]
}

/// The client's address and port.
fn sender(family: Family) -> Expression<'static> {
    let parts = vec![field(protocol(family), "saddr"), field("tcp", "sport")];
    Expression::Named(NamedExpression::Concat(parts))
}

/// The chain of a family's door.
pub(super) const fn door(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "door_ipv4",
        Family::Ipv6 => "door_ipv6",
    }
}

/// The comment of the rules that take new connections.
pub(super) const TAKEN: &str = "mail: to the gateway";

/// The comment of the rule of a closed door.
pub(super) const REFUSED: &str = "door closed: refused";

/// The comment of the rule that counts SYNs on their way to the listener.
pub(super) const fn arrived(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4 mail that reached the gateway",
        Family::Ipv6 => "IPv6 mail that reached the gateway",
    }
}

/// The comment of the rules by which connections that are older than the interception pass.
pub(super) const EARLIER: &str = "of a connection older than the interception: ignored";

/// The comment of the rule that counts packets which `tproxy` did not take.
pub(super) const fn bypassed(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4 mail that bypassed the gateway, which was not listening",
        Family::Ipv6 => "IPv6 mail that bypassed the gateway, which was not listening",
    }
}

/// Sent by this host, from an address that is not its own: only the gateway's connections are, on behalf of clients.
fn spoofed(family: Family) -> Rule<'static> {
    let translation = NAT {
        addr: Some(field(protocol(family), "saddr")),
        family: Some(match family {
            Family::Ipv4 => NATFamily::IP,
            Family::Ipv6 => NATFamily::IP6,
        }),
        port: None,
        flags: None,
    };
    rule(
        SPOOFED,
        "connections of the gateway in a client's name: not translated",
        vec![
            of_family(family),
            is(meta(MetaKey::Iif), Expression::Number(0)),
            is(meta(MetaKey::L4proto), text("tcp")),
            not(source_type(), text("local")),
            counter(),
            Statement::SNAT(Some(translation)),
        ],
    )
}

/// Those of `family`, as a set; `None` if there are none.
pub(super) fn networks(networks: &Networks, family: Family) -> Option<Expression<'static>> {
    // nft rejects sets with overlapping elements.
    let networks: Vec<IpNet> =
        networks.iter().filter(|network| Family::of(network.addr()) == family).collect();
    let networks = IpNet::aggregate(&networks);
    let prefixes = networks.iter().map(|network| {
        let addr = Box::new(text(network.addr().to_string()));
        let len = network.prefix_len().into();
        Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
    });
    (!networks.is_empty()).then(|| set(prefixes))
}

const fn protocol(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    }
}

/// The flags that make a SYN, with ACK to tell it from the answer.
pub(super) fn syn() -> Expression<'static> {
    let flags = ["fin", "syn", "rst", "ack"].map(text).to_vec();
    and(field("tcp", "flags"), Expression::List(flags))
}

fn and(left: Expression<'static>, right: Expression<'static>) -> Expression<'static> {
    Expression::BinaryOperation(Box::new(BinaryOperation::AND(left, right)))
}

fn base_chain(
    name: &'static str,
    kind: NfChainType,
    hook: NfHook,
    priority: i32,
) -> NfListObject<'static> {
    NfListObject::Chain(Chain {
        _type: Some(kind),
        hook: Some(hook),
        prio: Some(priority),
        policy: Some(NfChainPolicy::Accept),
        ..chain(name)
    })
}

pub(super) fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(PayloadField {
        protocol: protocol.into(),
        field: field.into(),
    })))
}

fn table() -> NfListObject<'static> {
    NfListObject::Table(Table { family: NfFamily::INet, name: TABLE.into(), handle: None })
}

fn chain(name: &'static str) -> Chain<'static> {
    Chain { family: NfFamily::INet, table: TABLE.into(), name: name.into(), ..Chain::default() }
}

/// nft accepts comments of at most 128 bytes.
fn rule(
    chain: &'static str,
    comment: &'static str,
    expr: Vec<Statement<'static>>,
) -> Rule<'static> {
    Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: expr.into(),
        comment: Some(comment.into()),
        ..Rule::default()
    }
}

pub(super) fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

fn of_family(family: Family) -> Statement<'static> {
    is(meta(MetaKey::Nfproto), text(family.as_str()))
}

fn tproxy(family: Family, port: u16) -> Statement<'static> {
    Statement::TProxy(TProxy { family: Some(protocol(family).into()), port, addr: None })
}

fn counter() -> Statement<'static> {
    Statement::Counter(Counter::Anonymous(None))
}

fn accept() -> Statement<'static> {
    Statement::Accept(Some(Accept {}))
}

fn goto(chain: &'static str) -> Statement<'static> {
    Statement::Goto(JumpTarget { target: chain.into() })
}

pub(super) fn text(value: impl Into<Cow<'static, str>>) -> Expression<'static> {
    Expression::String(value.into())
}

pub(super) fn set(items: impl Iterator<Item = Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(items.map(SetItem::Element).collect()))
}

pub(super) fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn socket(key: &'static SocketAttr) -> Expression<'static> {
    Expression::Named(NamedExpression::Socket(Socket { key: Cow::Borrowed(key) }))
}

fn destination_type() -> Expression<'static> {
    address_type(FibFlag::Daddr)
}

fn source_type() -> Expression<'static> {
    address_type(FibFlag::Saddr)
}

fn address_type(of: FibFlag) -> Expression<'static> {
    let flags = HashSet::from([of]);
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags }))
}
