//! Rules and features that do not apply to sessions whose TLS passes through: the gateway sees nothing of them after STARTTLS.

use super::Config;
use crate::engine::{BareNewlines, PathSyntax};
use crate::policy::PolicyAction;
use crate::policy::rules::{PolicyRule, PolicyStage};
use crate::relay::{ListenerSettings, ListenerTls};
use crate::smtp::Keyword;

impl Config {
    /// The TLS of clients of at least one listener ends at the MTA.
    pub fn passes_tls_through(&self) -> bool {
        self.passthrough_listeners().next().is_some()
    }

    fn passthrough_listeners(&self) -> impl Iterator<Item = &ListenerSettings> {
        let is_hidden = self.relay.smtp.hide.contains(&Keyword::Starttls);
        let listeners = self.relay.listeners.iter();
        listeners.filter(move |one| one.tls == ListenerTls::Passthrough && !is_hidden)
    }

    /// Rules that are not evaluated in sessions under TLS: they need the envelope.
    pub fn rules_without_envelope(&self) -> Vec<&PolicyRule> {
        self.escaped_rules().filter(|rule| needs_envelope(rule)).collect()
    }

    /// The rules for listeners whose clients' TLS passes through.
    fn escaped_rules(&self) -> impl Iterator<Item = &PolicyRule> {
        self.relay.rules.iter().filter(|rule| {
            self.passthrough_listeners().any(|one| {
                let matches = |address| rule.when.listeners.matches(Some(&*one.name), address);
                one.transparent || one.addresses.iter().any(|address| matches(*address))
            })
        })
    }

    /// What passes through, as the heading of the list of what does not apply to it.
    pub fn passthrough_heading(&self) -> String {
        let names: Vec<_> = self.passthrough_listeners().map(|one| &*one.name).collect();
        if names.len() == self.relay.listeners.len() {
            return "TLS passes through to the mail server, unless [tls] ends it here".to_owned();
        }
        format!("TLS of listener {} passes through to the mail server", names.join(", "))
    }

    /// The configured rules and active features that do not apply to sessions under TLS, one phrase of at most 98 columns each
    /// (with short names); none if no client's TLS passes through.
    pub fn not_applied_under_tls(&self) -> Vec<String> {
        if !self.passes_tls_through() {
            return Vec::new();
        }
        let mut phrases = Vec::new();
        for rule in self.escaped_rules() {
            phrases.extend(self.not_applied_of(rule));
        }
        phrases.push(self.smtp_options());
        phrases.push("[limits] commands, errors and line_length".to_owned());
        phrases.push(
            "[timeouts] command, data and min_data_rate: passthrough_idle applies".to_owned(),
        );
        phrases.push("the rejection of XCLIENT and XFORWARD".to_owned());
        phrases.push("sender, recipients and replies in the log; the count of messages".to_owned());
        phrases
    }

    /// The same in one sentence, for the log.
    pub fn passthrough_notice(&self) -> Option<String> {
        let phrases = self.not_applied_under_tls();
        (!phrases.is_empty()).then(|| {
            let heading = self.passthrough_heading();
            format!("{heading}; not applied to sessions under TLS: {}", phrases.join("; "))
        })
    }

    fn not_applied_of(&self, rule: &PolicyRule) -> Vec<String> {
        let name = format!("policy rule \"{}\"", rule.name);
        if rule.at == PolicyStage::Data {
            return vec![format!("{name}: it needs the message")];
        }
        if needs_envelope(rule) {
            return vec![format!("{name}: it needs MAIL or RCPT")];
        }
        let actions = [rule.otherwise, rule.on_unknown];
        // It decides at STARTTLS, before AUTH and RCPT.
        let mut phrases = Vec::new();
        if actions.iter().any(|action| *action >= PolicyAction::Tempfail) && !rule.exempt.is_empty()
        {
            let exempt: Vec<_> = rule.exempt.iter().map(|exemption| exemption.as_str()).collect();
            phrases.push(format!("{name}: exempt ({})", exempt.join(", ")));
        }
        if actions.contains(&PolicyAction::Tag) {
            phrases.push(format!("{name}: the header of tag"));
        }
        phrases
    }

    fn smtp_options(&self) -> String {
        let smtp = &self.relay.smtp;
        let mut options = Vec::new();
        if smtp.bare_newlines != BareNewlines::Pass {
            options.push("bare_newlines".to_owned());
        }
        if smtp.paths == PathSyntax::Strict {
            options.push("paths".to_owned());
        }
        options.push("early_data".to_owned());
        if !smtp.hide.is_empty() {
            let hidden: Vec<_> = smtp.hide.iter().map(|keyword| format!("\"{keyword}\"")).collect();
            options.push(format!("hide = [{}]", hidden.join(", ")));
        }
        format!("[smtp] {}", options.join(", "))
    }
}

fn needs_envelope(rule: &PolicyRule) -> bool {
    rule.at >= PolicyStage::Mail
}
