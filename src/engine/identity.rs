//! Telling upstream who the client is by XCLIENT, between the client's first command and its being forwarded.
//!
//! Upstream must offer XCLIENT and take it. If it does not, the session ends with 421: an MTA that takes the gateway for the
//! client would apply its `mynetworks` to the whole world.

use std::collections::VecDeque;

use super::{Action, Engine, Outcome, Output, Refusal};
use crate::addr::{ClientAddr, OriginalDst};
use crate::smtp::{
    Command, EnhancedCode, ExpectedReply, OwnCommand, Reply, Verb, XclientAttributes,
};

#[derive(Debug)]
pub(super) enum Identity {
    /// Nothing to tell, or told.
    Settled,
    Due(XclientAttributes),
    Telling(Box<Telling>),
}

#[derive(Debug)]
pub(super) struct Telling {
    attributes: XclientAttributes,
    helo: Option<String>,
    esmtp: bool,
    /// Commands not sent yet.
    commands: VecDeque<Vec<u8>>,
}

impl Identity {
    pub(super) fn new(xclient: bool, client: ClientAddr, destination: OriginalDst) -> Self {
        if !xclient {
            return Self::Settled;
        }
        Self::Due(XclientAttributes { client: client.socket(), destination: destination.socket() })
    }
}

impl Engine {
    /// Starts the exchange if it is due. Returns whether the client's command has to wait for it.
    pub(super) fn introduce(&mut self, first: &Command<'_>, out: &mut Output) -> bool {
        let Identity::Due(attributes) = &self.identity else {
            return false;
        };
        let helo = matches!(first.verb, Verb::Helo | Verb::Ehlo)
            .then(|| String::from_utf8_lossy(first.argument).into_owned());
        self.identity = Identity::Telling(Box::new(Telling {
            attributes: attributes.clone(),
            helo,
            esmtp: first.verb == Verb::Ehlo,
            commands: VecDeque::new(),
        }));
        let ehlo = format!("EHLO {}\r\n", self.profile.smtp.hostname);
        out.act(Action::ToUpstream(ehlo.into_bytes()));
        self.session.ask(ExpectedReply::Own(OwnCommand::Ehlo));
        true
    }

    /// Upstream answered a command of the exchange.
    pub(super) fn introduced(&mut self, own: OwnCommand, reply: &Reply<'_>, out: &mut Output) {
        let Identity::Telling(telling) = &mut self.identity else {
            return;
        };
        match own {
            OwnCommand::Ehlo => {
                let offered =
                    reply.texts().find_map(offered_attributes).filter(|_| reply.is_positive());
                let commands = offered.and_then(|offered| {
                    telling.attributes.commands(offered, telling.helo.as_deref(), telling.esmtp)
                });
                let Some(commands) = commands else {
                    return self.not_introduced(out);
                };
                telling.commands = commands.into();
            }
            OwnCommand::Xclient if reply.code == 220 => {}
            OwnCommand::Xclient => return self.not_introduced(out),
        }
        if let Some(command) = telling.commands.pop_front() {
            out.act(Action::ToUpstream(command));
            self.session.ask(ExpectedReply::Own(OwnCommand::Xclient));
        } else {
            self.identity = Identity::Settled;
            self.session.resume();
        }
    }

    fn not_introduced(&mut self, out: &mut Output) {
        let text = "the mail server behind this gateway does not take XCLIENT from it";
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
