//! The XCLIENT exchange: reports the client's address to upstream, before the client's first command is forwarded.
//!
//! Upstream must offer and accept XCLIENT. Otherwise the session ends with 421: an MTA that takes the gateway for the client
//! would apply its `mynetworks` to the whole world.

use std::collections::VecDeque;

use super::Proxy;
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::event::{Outcome, Refusal};
use crate::engine::output::{Action, Output};
use crate::smtp::{
    Command, EnhancedCode, ExpectedReply, OwnCommand, Reply, Verb, XclientAttributes,
};

#[derive(Debug)]
pub(super) enum ClientIdentity {
    /// Nothing to send, or sent.
    Done,
    Pending(XclientAttributes),
    Sending(Box<Exchange>),
}

#[derive(Debug)]
pub(super) struct Exchange {
    attributes: XclientAttributes,
    helo: Option<String>,
    esmtp: bool,
    /// Commands not sent yet.
    commands: VecDeque<Vec<u8>>,
}

impl ClientIdentity {
    pub(super) fn new(xclient: bool, client: ClientAddr, destination: OriginalDst) -> Self {
        if !xclient {
            return Self::Done;
        }
        Self::Pending(XclientAttributes {
            client: client.socket(),
            destination: destination.socket(),
        })
    }
}

impl Proxy {
    /// Begins the exchange if it is pending. Returns whether the client's command has to wait for it.
    pub(super) fn begin_xclient(&mut self, first: &Command<'_>, out: &mut Output) -> bool {
        let ClientIdentity::Pending(attributes) = &self.identity else {
            return false;
        };
        let helo = matches!(first.verb, Verb::Helo | Verb::Ehlo)
            .then(|| String::from_utf8_lossy(first.argument).into_owned());
        self.identity = ClientIdentity::Sending(Box::new(Exchange {
            attributes: attributes.clone(),
            helo,
            esmtp: first.verb == Verb::Ehlo,
            commands: VecDeque::new(),
        }));
        let ehlo = format!("EHLO {}\r\n", self.profile.smtp.hostname);
        out.act(Action::ToUpstream(ehlo.into_bytes()));
        self.session.expect(ExpectedReply::Own(OwnCommand::Ehlo));
        true
    }

    /// Upstream answered a command of the exchange.
    pub(super) fn on_xclient_reply(
        &mut self,
        command: OwnCommand,
        reply: &Reply<'_>,
        out: &mut Output,
    ) {
        let ClientIdentity::Sending(exchange) = &mut self.identity else {
            return;
        };
        match command {
            OwnCommand::Ehlo => {
                let offered =
                    reply.texts().find_map(offered_attributes).filter(|_| reply.is_positive());
                let commands = offered.and_then(|offered| {
                    exchange.attributes.commands(offered, exchange.helo.as_deref(), exchange.esmtp)
                });
                let Some(commands) = commands else {
                    return self.fail_xclient(out);
                };
                exchange.commands = commands.into();
            }
            OwnCommand::Xclient if reply.code == 220 => {}
            OwnCommand::Xclient => return self.fail_xclient(out),
        }
        if let Some(command) = exchange.commands.pop_front() {
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
