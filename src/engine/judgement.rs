//! What the policy says of a session: decided here for the relay, which enforces it, and for the witness, which records
//! what would have been done. So the same dialogue gets the same verdict from both.

use std::net::IpAddr;
use std::sync::Arc;

use super::{BareNewlines, Event, Output, Pregreet, Profile, Refusal, RefuseAt, VerdictRecord};
use crate::policy::PolicyAction;
use crate::smtp::{Command, Keyword, Line, Verb};

/// What is decided of a client from its address on, and the verdict so far.
#[derive(Debug)]
pub(super) struct Judgement {
    profile: Arc<Profile>,
    rule: Option<Arc<str>>,
    /// Why each RCPT is refused, if it is.
    refusing: Option<Refusal>,
    /// Since the last message that the server accepted.
    commands: u32,
    errors: u32,
    action: PolicyAction,
    reason: Option<Refusal>,
    /// The session is over for the gateway; a witness may hear more of it.
    over: bool,
}

impl Judgement {
    pub(super) fn new(profile: Arc<Profile>, client: IpAddr) -> Self {
        let verdict = profile.access.decide(client);
        let refusing = match verdict.action {
            PolicyAction::Accept | PolicyAction::Tag => None,
            PolicyAction::Tempfail => Some(Refusal::AccessTempfail),
            PolicyAction::Reject => Some(Refusal::AccessReject),
        };
        Self {
            profile,
            rule: verdict.rule,
            refusing,
            commands: 0,
            errors: 0,
            action: verdict.action,
            reason: refusing,
            over: false,
        }
    }

    /// Why the client is turned away in place of the greeting, if it is.
    pub(super) fn at_connect(&self) -> Option<Refusal> {
        self.refusing.filter(|_| self.profile.smtp.refuse_at == RefuseAt::Connect)
    }

    /// The client's recipients are refused, whoever they are.
    pub(super) const fn refuses(&self) -> bool {
        self.refusing.is_some()
    }

    /// The client spoke before the greeting. Returns why it is turned away in its place, if it is.
    pub(super) fn pregreet(&mut self) -> Option<Refusal> {
        if self.profile.smtp.pregreet == Pregreet::Accept || self.over {
            return None;
        }
        let refusal = *self.refusing.get_or_insert(Refusal::Pregreet);
        self.weigh(refusal);
        self.at_connect()
    }

    /// Why the gateway refuses a command itself, if it does. `owes_message`: the fate of a message is open.
    pub(super) fn command(
        &mut self,
        line: Line<'_>,
        command: &Command<'_>,
        owes_message: bool,
    ) -> Option<Refusal> {
        self.commands = self.commands.saturating_add(1);
        if let Some(limit) = self.over_limits(owes_message) {
            return Some(limit);
        }
        if !self.endings_pass(line) {
            return Some(Refusal::BareNewline);
        }
        match command.verb {
            Verb::Rcpt => self.refusing,
            // Behind it there is no RCPT that anybody sees.
            Verb::Starttls if !self.hides(Verb::Starttls) => self.refusing,
            // Only a gateway may speak for others, and there is none in front of this one (trap 4).
            Verb::Xclient | Verb::Xforward => Some(Refusal::Xclient),
            Verb::Bdat if command.chunk().is_err() => Some(Refusal::CommandSyntax),
            _ => None,
        }
    }

    /// Whether the gateway itself answers a command with a 5xx that does not end the session.
    pub(super) fn answers_itself(&self, verb: Verb, refusal: Option<Refusal>) -> bool {
        match refusal {
            Some(refusal) => wanted(refusal) == PolicyAction::Reject,
            None => verb == Verb::Unknown || self.hides(verb),
        }
    }

    /// What is hidden from EHLO is not carried either: a client may try without having been offered it.
    pub(super) fn hides(&self, verb: Verb) -> bool {
        let keyword = match verb {
            Verb::Starttls => Keyword::Starttls,
            Verb::Auth => Keyword::Auth,
            Verb::Vrfy => Keyword::Vrfy,
            Verb::Expn => Keyword::Expn,
            Verb::Etrn => Keyword::Etrn,
            _ => return false, // BDAT's octets have to be read first.
        };
        self.profile.smtp.hide.contains(&keyword)
    }

    /// Why the gateway refuses a command line that is longer than it reads.
    pub(super) fn too_long(&mut self, owes_message: bool) -> Refusal {
        self.commands = self.commands.saturating_add(1);
        self.over_limits(owes_message).unwrap_or(Refusal::LimitLine)
    }

    fn over_limits(&self, owes_message: bool) -> Option<Refusal> {
        // A message whose fate is open is worth more than the limit: 421 now would make the client send it again.
        if owes_message {
            None
        } else if self.commands > self.profile.limits.commands {
            Some(Refusal::LimitCommands)
        } else if self.too_many_errors() {
            Some(Refusal::LimitErrors)
        } else {
            None
        }
    }

    pub(super) fn too_many_errors(&self) -> bool {
        self.errors >= self.profile.limits.errors
    }

    pub(super) fn is_too_long(&self, line: Line<'_>) -> bool {
        line.len() > self.profile.limits.line_length
    }

    /// Whether a line may pass with its ending and what CRs it has.
    pub(super) fn endings_pass(&self, line: Line<'_>) -> bool {
        line.is_clean() || !self.rejects_bare_newlines()
    }

    /// Whether a message or line with a bare newline is refused.
    pub(super) fn rejects_bare_newlines(&self) -> bool {
        self.profile.smtp.bare_newlines == BareNewlines::Reject
    }

    /// The client reads a reply, whoever wrote it.
    pub(super) const fn replied(&mut self, code: u16) {
        if code >= 500 {
            self.errors = self.errors.saturating_add(1);
        }
    }

    /// The server accepted a message: the counts begin anew.
    pub(super) const fn accepted(&mut self) {
        (self.commands, self.errors) = (0, 0);
    }

    /// Something was refused, or would have been.
    pub(super) fn refused(&mut self, refusal: Refusal, out: &mut Output) {
        if !self.over {
            out.event(Event::Refusal(refusal));
            self.weigh(refusal);
        }
    }

    /// The gateway would have ended the session here: nothing that is said later is judged.
    pub(super) const fn ends(&mut self) {
        self.over = true;
    }

    fn weigh(&mut self, refusal: Refusal) {
        let action = wanted(refusal);
        if action >= self.action {
            (self.action, self.reason) = (action, Some(refusal));
        }
    }

    pub(super) fn rule(&self) -> Option<&str> {
        self.rule.as_deref()
    }

    pub(super) fn verdict(&self) -> VerdictRecord {
        VerdictRecord {
            action: self.action,
            rule: self.rule().map(str::to_owned),
            reason: self.reason.map(|refusal| refusal.as_str().to_owned()),
            shadow: Vec::new(),
        }
    }
}

/// What the policy wants where this is the reason; accept where no policy does, but circumstances are against it.
const fn wanted(refusal: Refusal) -> PolicyAction {
    match refusal {
        Refusal::AccessReject
        | Refusal::Pregreet
        | Refusal::Junk
        | Refusal::BareNewline
        | Refusal::CommandSyntax
        | Refusal::Xclient
        | Refusal::LimitLine => PolicyAction::Reject,
        Refusal::AccessTempfail
        | Refusal::LimitSessions
        | Refusal::LimitClientSessions
        | Refusal::LimitClientRate
        | Refusal::LimitCommands
        | Refusal::LimitErrors
        | Refusal::ProxyHeader
        | Refusal::Door => PolicyAction::Tempfail,
        // What the rules want their rulings say: see `PolicyOutcome`.
        Refusal::PolicyReject | Refusal::PolicyTempfail => PolicyAction::Accept,
        Refusal::UpstreamUnavailable
        | Refusal::UpstreamLost
        | Refusal::Identity
        | Refusal::Timeout
        | Refusal::Shutdown => PolicyAction::Accept,
    }
}
