//! Follows a hypothetical packet through a chain: every decision that it may meet, and how certain each is.

use std::fmt;

use serde_json::Value;

use super::expression::Scope;
use super::listing::{Base, Chain, Listing, TableName};
use super::packet::MailPacket;
use super::rule_text::{self, Target};
use super::truth::Truth;

/// nft allows jumps 16 deep.
const DEPTH: usize = 16;

/// A decision of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ChainDecision {
    pub(super) accepts: bool,
    /// Never `No`.
    pub(super) certainty: Truth,
    pub(super) cause: Cause,
}

/// The rule that decides, or the policy of a chain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cause {
    pub(super) table: TableName,
    pub(super) chain: String,
    /// The chain that the kernel calls.
    pub(super) base: String,
    /// `None`: the policy.
    pub(super) handle: Option<u64>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TableName { family, name } = &self.table;
        match self.handle {
            Some(handle) => write!(f, "rule {handle} of chain {family} {name} {}", self.chain),
            None => write!(f, "the policy of chain {family} {name} {}", self.chain),
        }
    }
}

enum Action {
    Accept,
    Drop,
    /// A program decides.
    Queue,
    Return,
    Jump(String),
    Goto(String),
}

pub(super) fn decisions(
    listing: &Listing,
    chain: &Chain,
    base: &Base,
    packet: &MailPacket,
) -> Vec<ChainDecision> {
    let scope = Scope { listing, table: &chain.table, packet };
    let mut walk = Walk { scope, base: &chain.name, decisions: Vec::new() };
    let end = walk.chain(chain, Truth::Yes, 0);
    let cause = walk.cause(chain, None);
    walk.decide(!base.drops, end, cause);
    walk.decisions
}

struct Walk<'a> {
    scope: Scope<'a>,
    base: &'a str,
    decisions: Vec<ChainDecision>,
}

impl Walk<'_> {
    fn cause(&self, chain: &Chain, handle: Option<u64>) -> Cause {
        let (table, chain) = (chain.table.clone(), chain.name.clone());
        Cause { table, chain, base: self.base.to_owned(), handle }
    }

    fn decide(&mut self, accepts: bool, certainty: Truth, cause: Cause) {
        if certainty != Truth::No {
            self.decisions.push(ChainDecision { accepts, certainty, cause });
        }
    }

    /// `reached` says whether the packet gets here. Returns whether it gets to the end.
    fn chain(&mut self, chain: &Chain, reached: Truth, depth: usize) -> Truth {
        // Through a return or a goto.
        let mut left = Truth::No;
        let mut reached = reached;
        for rule in &chain.rules {
            let handle = rule["handle"].as_u64();
            let cause = self.cause(chain, handle);
            for (matches, action) in self.actions(chain, rule) {
                let here = reached.and(matches);
                if here == Truth::No {
                    continue;
                }
                let goes_on = match action {
                    Action::Accept | Action::Drop => {
                        self.decide(matches!(action, Action::Accept), here, cause.clone());
                        Truth::No
                    }
                    Action::Queue => {
                        self.decide(true, Truth::Unknown, cause.clone());
                        self.decide(false, Truth::Unknown, cause.clone());
                        Truth::No
                    }
                    Action::Return => {
                        left = left.or(here);
                        Truth::No
                    }
                    Action::Jump(target) => self.follow(&target, here, depth),
                    Action::Goto(target) => {
                        left = left.or(self.follow(&target, here, depth));
                        Truth::No
                    }
                };
                if matches == Truth::Yes {
                    reached = goes_on;
                }
                if reached == Truth::No {
                    return left;
                }
            }
        }
        left.or(reached)
    }

    fn follow(&mut self, target: &str, here: Truth, depth: usize) -> Truth {
        match self.scope.listing.chain(self.scope.table, target) {
            Some(chain) if depth < DEPTH => self.chain(chain, here, depth + 1),
            _ => here,
        }
    }

    /// The actions of a rule in their order, each with whether it is taken.
    fn actions(&self, chain: &Chain, rule: &Value) -> Vec<(Truth, Action)> {
        let handle = rule["handle"].as_u64().unwrap_or_default();
        let text = self.scope.listing.text_of(&chain.table, handle).unwrap_or_default();
        let mut matches = Truth::Yes;
        let mut actions = Vec::new();
        for statement in rule["expr"].as_array().into_iter().flatten() {
            let Some((name, inner)) = statement.as_object().and_then(|one| one.iter().next())
            else {
                continue;
            };
            match name.as_str() {
                "match" => matches = matches.and(self.scope.condition(inner)),
                "xt" => match (inner["type"].as_str(), inner["name"].as_str()) {
                    (Some("match"), Some(name)) => {
                        matches = matches.and(rule_text::matches(self.scope, name, text));
                    }
                    (Some("target"), Some(name)) => match rule_text::target(name) {
                        Target::GoesOn => {}
                        Target::Accepts => actions.push((matches, Action::Accept)),
                        Target::Drops => actions.push((matches, Action::Drop)),
                        Target::Unknown => actions.push((matches, Action::Queue)),
                    },
                    // Before nft 1.0.3 it has no name, and may be the target.
                    _ => {
                        matches = matches.and(Truth::Unknown);
                        if rule["expr"].as_array().and_then(|all| all.last()) == Some(statement) {
                            actions.push((matches, Action::Queue));
                        }
                    }
                },
                "vmap" => actions.extend(self.mapped(inner, matches)),
                "counter" | "log" | "mangle" | "notrack" | "ct helper" | "ct timeout" | "set"
                | "flow" | "comment" | "secmark" => {}
                // Such as a rate: it depends on what else arrives.
                name => match action(name, inner) {
                    Some(action) => actions.push((matches, action)),
                    None => matches = matches.and(Truth::Unknown),
                },
            }
            if matches == Truth::No {
                return actions;
            }
        }
        actions
    }

    /// Of a verdict map.
    fn mapped(&self, map: &Value, matches: Truth) -> Vec<(Truth, Action)> {
        let key = self.scope.field(&map["key"]);
        let elements = match &map["data"] {
            Value::String(name) => {
                self.scope.listing.set(self.scope.table, name.trim_start_matches('@'))
            }
            data => data["set"].as_array().map(Vec::as_slice),
        };
        let mut actions = Vec::new();
        for element in elements.unwrap_or_default() {
            let verdict = element[1].as_object().and_then(|one| one.iter().next());
            let Some(action) = verdict.and_then(|(name, inner)| action(name, inner)) else {
                continue;
            };
            actions.push((matches.and(self.scope.equals(&key, &element[0])), action));
        }
        actions
    }
}

fn action(name: &str, inner: &Value) -> Option<Action> {
    let target = || inner["target"].as_str().map(str::to_owned);
    Some(match name {
        "accept" | "masquerade" | "snat" | "dnat" | "redirect" => Action::Accept,
        "drop" | "reject" => Action::Drop,
        "queue" => Action::Queue,
        "return" => Action::Return,
        "jump" => Action::Jump(target()?),
        "goto" => Action::Goto(target()?),
        _ => return None,
    })
}
