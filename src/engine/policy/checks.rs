//! Checks of a session apart from the policy rules: access, limits, syntax, hidden commands. The proxy enforces them, the
//! observer records what the proxy would have done, so that both give the same verdict.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::fault::CommandFault;
use crate::addr::{ClientAddr, OriginalDst};
use crate::engine::event::{Event, Refusal};
use crate::engine::options::{EarlyData, PathSyntax, Pregreet, Profile, RefuseAt, TlsMode};
use crate::engine::output::Output;
use crate::engine::record::VerdictRecord;
use crate::policy::{ClientArrival, PolicyAction};
use crate::smtp::{BareNewlines, Command, Keyword, Line, Session, TlsState, Verb};

/// The checks of one session, and its verdict so far.
#[derive(Debug)]
pub(in crate::engine) struct SessionChecks {
    profile: Arc<Profile>,
    client: IpAddr,
    destination: SocketAddr,
    /// The access rule that matched the client.
    rule: Option<Arc<str>>,
    /// Why every RCPT is rejected, if it is.
    rejection: Option<Refusal>,
    /// Since the last message that the server accepted.
    commands: u32,
    errors: u32,
    action: PolicyAction,
    reason: Option<Refusal>,
    /// The gateway would have ended the session; an observer may see more of it.
    ended: bool,
}

impl SessionChecks {
    pub(in crate::engine) fn new(
        profile: Arc<Profile>,
        client: ClientAddr,
        destination: OriginalDst,
    ) -> Self {
        let verdict = profile.access.decide(&ClientArrival {
            client: client.ip(),
            listener: profile.listener.as_deref(),
            destination: destination.socket(),
        });
        let rejection = match verdict.action {
            PolicyAction::Accept | PolicyAction::Tag => None,
            PolicyAction::Tempfail => Some(Refusal::AccessTempfail),
            PolicyAction::Reject => Some(Refusal::AccessReject),
        };
        Self {
            profile,
            client: client.ip(),
            destination: destination.socket(),
            rule: verdict.rule,
            rejection,
            commands: 0,
            errors: 0,
            action: verdict.action,
            reason: rejection,
            ended: false,
        }
    }

    /// How the client arrived, as the rules take it.
    pub(in crate::engine) fn arrival(&self) -> ClientArrival<'_> {
        let listener = self.profile.listener.as_deref();
        ClientArrival { client: self.client, listener, destination: self.destination }
    }

    /// Why the client is rejected in place of the greeting, if it is.
    pub(in crate::engine) fn at_connect(&self) -> Option<Refusal> {
        self.rejection.filter(|_| self.profile.smtp.refuse_at == RefuseAt::Connect)
    }

    /// Every RCPT is rejected.
    pub(in crate::engine) const fn reject_all(&self) -> bool {
        self.rejection.is_some()
    }

    /// The client sent before the greeting. Returns why it is rejected in its place, if it is.
    pub(in crate::engine) fn on_pregreet(&mut self) -> Option<Refusal> {
        if self.profile.smtp.pregreet == Pregreet::Accept || self.ended {
            return None;
        }
        let refusal = *self.rejection.get_or_insert(Refusal::Pregreet);
        self.merge(refusal);
        self.at_connect()
    }

    /// Why the gateway rejects a command itself, if it does. `session` stands before the command.
    pub(in crate::engine) fn on_command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        session: &Session,
    ) -> Option<Refusal> {
        if command.verb != Verb::Rcpt {
            self.commands = self.commands.saturating_add(1);
        }
        if let Some(limit) = self.over_limits(session.message_pending()) {
            return Some(limit);
        }
        let refusal = self.refusal(line, command, session);
        // A hidden or unknown command is answered by the gateway as well.
        if refusal.is_some() || command.verb == Verb::Unknown || self.hides(command.verb) {
            self.count_error();
        }
        refusal
    }

    fn refusal(&self, line: Line<'_>, command: &Command<'_>, session: &Session) -> Option<Refusal> {
        if !self.accepts_endings(line) {
            return Some(Refusal::BareNewline);
        }
        let refusal = match command.verb {
            Verb::Rcpt => self.rejection,
            // These would let a rejected client guess passwords and addresses.
            Verb::Auth | Verb::Vrfy | Verb::Expn | Verb::Etrn => self.rejection,
            // Under TLS that passes through no RCPT is visible.
            Verb::Starttls if !self.hides(Verb::Starttls) && !self.terminates_tls() => {
                self.rejection
            }
            // Only a trusted gateway may report another client, and none stands in front of this one (rule 4 of ARCHITECTURE.md).
            Verb::Xclient | Verb::Xforward => Some(Refusal::Xclient),
            Verb::Bdat if command.chunk().is_err() => Some(Refusal::CommandSyntax),
            _ => None,
        };
        let refusal = refusal.or_else(|| self.lacks_tls(command.verb, session));
        refusal.or_else(|| Some(self.fault(line, command, session)?.refusal()))
    }

    /// `tls.require`, RFC 3207 §4. A chunk's bytes follow whatever the reply to BDAT is, and without MAIL the server rejects it.
    fn lacks_tls(&self, verb: Verb, session: &Session) -> Option<Refusal> {
        use Verb::{Bdat, Ehlo, Helo, Help, Noop, Quit, Rset, Starttls, Unknown};
        let is_harmless =
            matches!(verb, Ehlo | Helo | Noop | Rset | Quit | Help | Starttls | Bdat | Unknown);
        let is_missing = self.profile.tls == TlsMode::Terminate { required: true }
            && session.state().tls() != TlsState::Established;
        (is_missing && !is_harmless).then_some(Refusal::TlsRequired)
    }

    /// What is wrong with a command line, for the server might read it in another way.
    pub(in crate::engine) fn fault(
        &self,
        line: Line<'_>,
        command: &Command<'_>,
        session: &Session,
    ) -> Option<CommandFault> {
        if self.hides(command.verb) {
            return None; // It does not reach the server.
        }
        CommandFault::find(&self.profile, self.client, line, command, session)
    }

    /// A MAIL or RCPT without a fault as the server receives it, without CRLF, where that is not the line as it came.
    pub(in crate::engine) fn rewritten(&self, line: Line<'_>) -> Option<String> {
        if self.profile.smtp.paths == PathSyntax::Lenient {
            return None;
        }
        let canonical = Command::parse(line.text).envelope().ok()?.canonical();
        // Verb and keyword in any case.
        let is_same = canonical.eq_ignore_ascii_case(std::str::from_utf8(line.text).ok()?);
        (!is_same).then_some(canonical)
    }

    /// A keyword hidden from EHLO hides its command too: a client may try it without the offer.
    pub(in crate::engine) fn hides(&self, verb: Verb) -> bool {
        let keyword = match verb {
            Verb::Starttls => Keyword::Starttls,
            Verb::Auth => Keyword::Auth,
            Verb::Vrfy => Keyword::Vrfy,
            Verb::Expn => Keyword::Expn,
            Verb::Etrn => Keyword::Etrn,
            _ => return false, // BDAT's bytes have to be read first.
        };
        self.profile.smtp.hide.contains(&keyword)
    }

    /// Whether a command that is not rejected puts a question to the policy rules: STARTTLS only where what follows it is hidden.
    pub(in crate::engine) fn asks_policy(&self, verb: Verb) -> bool {
        let is_own_tls = verb == Verb::Starttls && self.terminates_tls();
        !self.hides(verb) && !is_own_tls
    }

    /// The gateway ends TLS: what follows STARTTLS is readable.
    pub(in crate::engine) fn terminates_tls(&self) -> bool {
        self.profile.tls.terminates()
    }

    /// Why the gateway rejects a command line over the limit.
    pub(in crate::engine) fn on_long_line(&mut self, message_pending: bool) -> Refusal {
        self.commands = self.commands.saturating_add(1);
        self.over_limits(message_pending).unwrap_or_else(|| {
            self.count_error();
            Refusal::LimitLine
        })
    }

    fn over_limits(&self, message_pending: bool) -> Option<Refusal> {
        // 421 before the reply to a message would make the client send it again: a duplicate is worse than the limit.
        if message_pending {
            None
        } else if self.commands > self.profile.limits.commands {
            Some(Refusal::LimitCommands)
        } else if self.too_many_errors() {
            Some(Refusal::LimitErrors)
        } else {
            None
        }
    }

    pub(in crate::engine) fn too_many_errors(&self) -> bool {
        self.errors >= self.profile.limits.errors
    }

    pub(in crate::engine) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(in crate::engine) fn is_too_long(&self, line: Line<'_>) -> bool {
        line.len() > self.profile.limits.line_length
    }

    /// Whether the line's ending and bare CRs are acceptable.
    pub(in crate::engine) fn accepts_endings(&self, line: Line<'_>) -> bool {
        line.is_clean() || !self.rejects_bare_newlines()
    }

    /// Whether a message or line with a bare newline is rejected.
    pub(in crate::engine) fn rejects_bare_newlines(&self) -> bool {
        self.profile.smtp.bare_newlines == BareNewlines::Reject
    }

    /// Whether DATA is rejected because content came with it. `pipelining`: the server offered PIPELINING.
    pub(in crate::engine) fn rejects_early_data(&self, pipelining: bool) -> bool {
        match self.profile.smtp.early_data {
            EarlyData::Reject => true,
            EarlyData::RejectUnlessPipelining => !pipelining,
            EarlyData::Allow => false,
        }
    }

    /// Counts an error that the gateway answers. Those that upstream answers count towards upstream's limit.
    pub(in crate::engine) const fn count_error(&mut self) {
        self.errors = self.errors.saturating_add(1);
    }

    /// The server accepted a message: the counters restart.
    pub(in crate::engine) const fn on_message_accepted(&mut self) {
        (self.commands, self.errors) = (0, 0);
    }

    /// The gateway rejected something, or would have.
    pub(in crate::engine) fn on_refusal(&mut self, refusal: Refusal, out: &mut Output) {
        if !self.ended {
            out.event(Event::Refusal(refusal));
            self.merge(refusal);
        }
    }

    /// The gateway would have ended the session here: later commands are not checked.
    pub(in crate::engine) const fn end(&mut self) {
        self.ended = true;
    }

    fn merge(&mut self, refusal: Refusal) {
        let action = action_for(refusal);
        if action >= self.action {
            (self.action, self.reason) = (action, Some(refusal));
        }
    }

    /// The name of the access rule that matched.
    pub(in crate::engine) fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    pub(in crate::engine) fn verdict(&self) -> VerdictRecord {
        VerdictRecord {
            action: self.action,
            rule: self.rule().map(str::to_owned),
            reason: self.reason.map(|refusal| refusal.as_str().to_owned()),
            shadow: Vec::new(),
        }
    }
}

/// The policy's action for a refusal; accept for circumstances that are no policy.
const fn action_for(refusal: Refusal) -> PolicyAction {
    match refusal {
        Refusal::AccessReject
        | Refusal::Pregreet
        | Refusal::Junk
        | Refusal::BareNewline
        | Refusal::EarlyData
        | Refusal::CommandSyntax
        | Refusal::PathSyntax
        | Refusal::PathRouting
        | Refusal::Xclient
        | Refusal::TlsRequired
        | Refusal::LimitLine => PolicyAction::Reject,
        Refusal::AccessTempfail
        | Refusal::LimitSessions
        | Refusal::LimitClientSessions
        | Refusal::LimitClientRate
        | Refusal::LimitNetworkSessions
        | Refusal::LimitNetworkRate
        | Refusal::LimitCommands
        | Refusal::LimitErrors
        | Refusal::ProxyHeader
        | Refusal::Door => PolicyAction::Tempfail,
        // What the rules want their rulings say: see `PolicyOutcome`.
        Refusal::PolicyReject | Refusal::PolicyTempfail => PolicyAction::Accept,
        Refusal::UpstreamUnavailable
        | Refusal::Resources
        | Refusal::UpstreamLost
        | Refusal::Identity
        | Refusal::UpstreamTls
        | Refusal::Timeout
        | Refusal::Shutdown => PolicyAction::Accept,
    }
}
