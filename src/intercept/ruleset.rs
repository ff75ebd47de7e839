//! The nftables table as data. Its rules, in the order of evaluation:
//!
//! ```text
//! chain prerouting, at priority mangle
//!   not TCP                           accept
//!   mark MARK+1                       accept       our own connection to an upstream on this host, over loopback
//!   for an address of this host       accept       for its own listener or MTA
//!   belongs to a wildcard listener    intercept    a new connection, or not ours
//!   belongs to a transparent socket   MARK         of an open session: the client's packets and the upstream's replies
//!   anything else                     intercept
//! chain intercept
//!   not on a named interface          accept
//!   of a family                       door_ipv4, door_ipv6
//!   to an intercepted port            tproxy, MARK
//!   to an intercepted port            count        no listener matched: the gateway is not running
//! chain door_ipv4, door_ipv6           empty while that door is open
//!   from an exempt network            return
//!   a SYN to an intercepted port      tproxy, reject with tcp reset
//! ```
//!
//! The door's rule has `tproxy` because that matches only while the gateway listens: after a kill -9 it refuses nothing.
//! Sessions in progress never reach it.
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
    Accept, Counter, JumpTarget, Mangle, Match, Operator, Reject, RejectType, Statement, TProxy,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};

use super::settings::{InterceptSettings, TABLE};
use crate::addr::{Family, Networks};

const PREROUTING: &str = "prerouting";
const INTERCEPT: &str = "intercept";

/// The kernel's priority "mangle" in prerouting: after conntrack (-200), before DNAT (-100).
const MANGLE: i32 = -150;

/// A batch that replaces our table.
pub(super) fn replace(settings: &InterceptSettings) -> Nftables<'static> {
    let mut batch = Batch::new();
    // `delete` fails without a table, and nft has `destroy` only since 1.0.7.
    batch.add(table());
    batch.delete(table());
    batch.add(table());
    batch.add(NfListObject::Chain(Chain {
        _type: Some(NfChainType::Filter),
        hook: Some(NfHook::Prerouting),
        prio: Some(MANGLE),
        policy: Some(NfChainPolicy::Accept),
        ..chain(PREROUTING)
    }));
    batch.add(NfListObject::Chain(chain(INTERCEPT)));
    for family in settings.families() {
        batch.add(NfListObject::Chain(chain(door(family))));
    }
    for rule in prerouting(settings).into_iter().chain(intercept(settings)) {
        batch.add(NfListObject::Rule(rule));
    }
    batch.to_nftables()
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
        batch.add(NfListObject::Chain(Chain {
            _type: Some(NfChainType::Filter),
            hook: Some(NfHook::Prerouting),
            prio: Some(MANGLE),
            ..chain("probe")
        }));
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

fn prerouting(settings: &InterceptSettings) -> Vec<Rule<'static>> {
    let one = Expression::Number(1);
    // InterceptSettings::check rejects u32::MAX.
    let upstream = Expression::Number(settings.mark.saturating_add(1));
    vec![
        rule(
            PREROUTING,
            "not TCP: ignored",
            vec![not(meta(MetaKey::L4proto), text("tcp")), counter(), accept()],
        ),
        rule(
            PREROUTING,
            "connections of the gateway to an upstream: ignored",
            vec![is(meta(MetaKey::Mark), upstream), counter(), accept()],
        ),
        rule(
            PREROUTING,
            "to an address of this host: ignored",
            vec![is(destination_type(), text("local")), counter(), accept()],
        ),
        rule(
            PREROUTING,
            "new connections to a listener: to chain intercept",
            vec![is(socket(&SocketAttr::Wildcard), one.clone()), counter(), goto(INTERCEPT)],
        ),
        rule(
            PREROUTING,
            "open sessions, from client or upstream: to the gateway",
            vec![
                is(socket(&SocketAttr::Transparent), one),
                set_mark(settings.mark),
                counter(),
                accept(),
            ],
        ),
        rule(PREROUTING, "all others: to chain intercept", vec![counter(), goto(INTERCEPT)]),
    ]
}

fn intercept(settings: &InterceptSettings) -> Vec<Rule<'static>> {
    let ports = || to_ports(settings);
    let (elsewhere, comment) = if settings.interfaces.is_empty() {
        (is(meta(MetaKey::Iifname), text("lo")), "arrived on loopback: ignored")
    } else {
        let names = settings.interfaces.iter().map(|name| text(name.clone()));
        (not(meta(MetaKey::Iifname), set(names)), "arrived on another interface: ignored")
    };
    let mut rules = vec![rule(INTERCEPT, comment, vec![elsewhere, counter(), accept()])];
    for family in settings.families() {
        let jump = Statement::Jump(JumpTarget { target: door(family).into() });
        rules.push(rule(
            INTERCEPT,
            "to the chain of the door",
            vec![of_family(family), counter(), jump],
        ));
    }
    for family in settings.families() {
        let Some(port) = settings.listen(family) else {
            continue;
        };
        rules.push(rule(
            INTERCEPT,
            "mail: to the gateway",
            vec![
                of_family(family),
                ports(),
                tproxy(family, port),
                set_mark(settings.mark),
                counter(),
                accept(),
            ],
        ));
    }
    for family in settings.families() {
        let comment = match family {
            Family::Ipv4 => "IPv4 mail that bypassed the gateway, which was not listening",
            Family::Ipv6 => "IPv6 mail that bypassed the gateway, which was not listening",
        };
        rules.push(rule(INTERCEPT, comment, vec![of_family(family), ports(), counter()]));
    }
    rules
}

/// The chain of a family's door.
pub(super) const fn door(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "door_ipv4",
        Family::Ipv6 => "door_ipv6",
    }
}

/// A batch that opens or closes the door of `family` for all networks but `exempt`; fails without our table.
pub(super) fn set_door(
    settings: &InterceptSettings,
    family: Family,
    admits: bool,
    exempt: &Networks,
) -> Nftables<'static> {
    let chain_of = chain(door(family));
    let mut batch = Batch::new();
    batch.add_cmd(NfCmd::Flush(FlushObject::Chain(chain_of)));
    if let (false, Some(port)) = (admits, settings.listen(family)) {
        for rule in closed(settings, family, port, exempt) {
            batch.add(NfListObject::Rule(rule));
        }
    }
    batch.to_nftables()
}

fn closed(
    settings: &InterceptSettings,
    family: Family,
    port: u16,
    exempt: &Networks,
) -> Vec<Rule<'static>> {
    let protocol = match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    };
    // nft rejects sets with overlapping elements.
    let networks: Vec<IpNet> =
        exempt.iter().filter(|network| Family::of(network.addr()) == family).collect();
    let networks = IpNet::aggregate(&networks);
    let mut rules = Vec::new();
    if !networks.is_empty() {
        let prefixes = networks.iter().map(|network| {
            let addr = Box::new(text(network.addr().to_string()));
            let len = network.prefix_len().into();
            Expression::Named(NamedExpression::Prefix(Prefix { addr, len }))
        });
        let exempt = is(field(protocol, "saddr"), set(prefixes));
        let leave = Statement::Return(None);
        rules.push(rule(door(family), "exempt from the door", vec![exempt, counter(), leave]));
    }
    let flags = ["fin", "syn", "rst", "ack"].map(text).to_vec();
    let syn = Expression::BinaryOperation(Box::new(BinaryOperation::AND(
        field("tcp", "flags"),
        Expression::List(flags),
    )));
    let reset = Reject::new(Some(RejectType::TCPReset), None);
    rules.push(rule(
        door(family),
        "door closed: refused",
        vec![
            to_ports(settings),
            is(syn, text("syn")),
            tproxy(family, port),
            counter(),
            Statement::Reject(Some(reset)),
        ],
    ));
    rules
}

fn to_ports(settings: &InterceptSettings) -> Statement<'static> {
    let ports = settings.ports.iter().map(|&port| Expression::Number(port.into()));
    is(field("tcp", "dport"), set(ports))
}

fn field(protocol: &'static str, field: &'static str) -> Expression<'static> {
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

fn is(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::EQ })
}

fn not(left: Expression<'static>, right: Expression<'static>) -> Statement<'static> {
    Statement::Match(Match { left, right, op: Operator::NEQ })
}

fn of_family(family: Family) -> Statement<'static> {
    is(meta(MetaKey::Nfproto), text(family.as_str()))
}

fn tproxy(family: Family, port: u16) -> Statement<'static> {
    let family = match family {
        Family::Ipv4 => "ip",
        Family::Ipv6 => "ip6",
    };
    Statement::TProxy(TProxy { family: Some(family.into()), port, addr: None })
}

fn set_mark(mark: u32) -> Statement<'static> {
    Statement::Mangle(Mangle { key: meta(MetaKey::Mark), value: Expression::Number(mark) })
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

fn text(value: impl Into<Cow<'static, str>>) -> Expression<'static> {
    Expression::String(value.into())
}

fn set(items: impl Iterator<Item = Expression<'static>>) -> Expression<'static> {
    Expression::Named(NamedExpression::Set(items.map(SetItem::Element).collect()))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn socket(key: &'static SocketAttr) -> Expression<'static> {
    Expression::Named(NamedExpression::Socket(Socket { key: Cow::Borrowed(key) }))
}

fn destination_type() -> Expression<'static> {
    let flags = HashSet::from([FibFlag::Daddr]);
    Expression::Named(NamedExpression::Fib(Fib { result: FibResult::Type, flags }))
}
