//! The XCLIENT exchange: reports the client to upstream, before the client's first command is forwarded.
//!
//! Upstream must offer and accept XCLIENT. Otherwise the session ends with 421: an MTA that takes the gateway for the client
//! would apply its `mynetworks` to the whole world.

use std::collections::VecDeque;

use super::Proxy;
use super::client_name::ClientName;
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::event::{Outcome, Refusal};
use crate::engine::output::{Action, Output};
use crate::policy::facts::{Lookup, LookupResult};
use crate::smtp::{
    Command, EnhancedCode, ExpectedReply, OwnCommand, Reply, Verb, XclientAttributes, XclientNames,
    XclientOffer,
};
use crate::time::Timestamp;

#[derive(Debug)]
pub(super) enum ClientIdentity {
    /// Nothing to send, or sent.
    Done,
    Exchange(Box<Exchange>),
}

#[derive(Debug)]
pub(super) struct Exchange {
    attributes: XclientAttributes,
    name: ClientName,
    helo: Option<String>,
    esmtp: bool,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// The client has not sent a command.
    Idle,
    AwaitsEhlo,
    /// Upstream accepts these attributes, and the client's name is not known yet.
    AwaitsName(String),
    /// Commands not sent yet.
    Sending(VecDeque<Vec<u8>>),
}

impl ClientIdentity {
    pub(super) fn new(xclient: bool, client: ClientAddr, destination: OriginalDst) -> Self {
        if !xclient {
            return Self::Done;
        }
        Self::Exchange(Box::new(Exchange {
            attributes: XclientAttributes {
                client: client.socket(),
                destination: destination.socket(),
            },
            name: ClientName::new(client),
            helo: None,
            esmtp: false,
            step: Step::Idle,
        }))
    }

    /// The session begins: the lookup of the client's name starts.
    pub(super) fn look_up(&mut self, out: &mut Output) {
        if let Self::Exchange(exchange) = self {
            exchange.name.look_up(out);
        }
    }

    /// When the exchange stops waiting for the client's name.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::Exchange(exchange) => exchange.name.deadline(),
            Self::Done => None,
        }
    }
}

impl Proxy {
    /// Begins the exchange if it is pending. Returns whether the client's command has to wait for it.
    pub(super) fn begin_xclient(&mut self, first: &Command<'_>, out: &mut Output) -> bool {
        let ClientIdentity::Exchange(exchange) = &mut self.identity else {
            return false;
        };
        if matches!(exchange.step, Step::Idle) {
            exchange.helo = matches!(first.verb, Verb::Helo | Verb::Ehlo)
                .then(|| String::from_utf8_lossy(first.argument).into_owned());
            exchange.esmtp = first.verb == Verb::Ehlo;
            exchange.step = Step::AwaitsEhlo;
            let ehlo = format!("EHLO {}\r\n", self.profile.smtp.hostname);
            out.act(Action::ToUpstream(ehlo.into_bytes()));
            self.session.expect(ExpectedReply::Own(OwnCommand::Ehlo));
        }
        true
    }

    /// Upstream answered a command of the exchange.
    pub(super) fn on_xclient_reply(
        &mut self,
        command: OwnCommand,
        reply: &Reply<'_>,
        out: &mut Output,
    ) {
        let ClientIdentity::Exchange(exchange) = &mut self.identity else {
            return;
        };
        match command {
            OwnCommand::Ehlo => {
                let offered = reply.texts().find_map(offered_attributes);
                let offered = offered.filter(|_| reply.is_positive());
                let Some(offered) = offered.filter(|offered| XclientOffer::new(offered).is_some())
                else {
                    return self.fail_xclient(out);
                };
                exchange.step = Step::AwaitsName(offered.to_owned());
                self.send_xclient(out);
            }
            OwnCommand::Xclient if reply.code == 220 => self.send_xclient(out),
            OwnCommand::Xclient => self.fail_xclient(out),
            OwnCommand::Noop | OwnCommand::Starttls => {} // Not of this exchange.
        }
    }

    /// Answers to any lookups of the session.
    pub(super) fn on_name_answers(&mut self, answers: &[(Lookup, LookupResult)], out: &mut Output) {
        if let ClientIdentity::Exchange(exchange) = &mut self.identity {
            let waited = exchange.name.deadline().is_some();
            exchange.name.on_answers(answers, out);
            if waited {
                self.end_name_wait(out);
            }
        }
    }

    /// The client's name is not known in time.
    pub(super) fn on_name_timeout(&mut self, out: &mut Output) {
        if let ClientIdentity::Exchange(exchange) = &mut self.identity {
            exchange.name.give_up();
            self.end_name_wait(out);
        }
    }

    fn end_name_wait(&mut self, out: &mut Output) {
        self.send_xclient(out);
        if self.identity.deadline().is_none() {
            self.active = self.now; // The wait was the gateway's; neither side's timeout includes it.
        }
    }

    /// Sends the next command; after the last one the client is read again. Waits for the client's name if upstream accepts it.
    fn send_xclient(&mut self, out: &mut Output) {
        let ClientIdentity::Exchange(exchange) = &mut self.identity else {
            return;
        };
        let Exchange { attributes, name, helo, esmtp, step } = &mut **exchange;
        if let Step::AwaitsName(offered) = step
            && let Some(offer) = XclientOffer::new(offered)
        {
            let names = if offer.has_names() {
                name.names(self.now)
            } else {
                Some(XclientNames::default())
            };
            let Some(names) = names else { return };
            let commands = attributes.commands(offer, &names, helo.as_deref(), *esmtp);
            *step = Step::Sending(commands.into());
        }
        let Step::Sending(commands) = step else { return };
        if let Some(command) = commands.pop_front() {
            out.act(Action::ToUpstream(command));
            self.session.expect(ExpectedReply::Own(OwnCommand::Xclient));
        } else {
            self.identity = ClientIdentity::Done;
            self.session.resume();
        }
    }

    fn fail_xclient(&mut self, out: &mut Output) {
        let text = "mail server does not accept XCLIENT from this gateway";
        let code = EnhancedCode::new(4, 3, 5);
        self.fail(code, text, Refusal::Identity, Outcome::Protocol, out);
    }
}

/// The argument of the XCLIENT keyword in a line of an EHLO reply.
fn offered_attributes(text: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(text).ok()?;
    let (word, attributes) = text.split_once(' ')?;
    word.eq_ignore_ascii_case("XCLIENT").then_some(attributes)
}
