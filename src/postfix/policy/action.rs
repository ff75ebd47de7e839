//! The decision as an action of access(5).

use super::instances::Instances;
use crate::engine::{AskedAt, DelegatedAction, DelegatedReply, ShadowRecord};

/// Rules that a warning names.
const MAX_SHADOWS: usize = 3;
/// Bytes of an action's text: Postfix's log lines and replies are no longer.
const MAX_TEXT: usize = 900;

/// The action for a decision on a question about the message `instance`. `PREPEND` and `WARN` come once for each message:
/// Postfix carries out every one that it receives. The first rule that tags a message is the one that its field names.
pub(super) fn action(
    (reply, shadow): &(DelegatedReply, Vec<ShadowRecord>),
    at: AskedAt,
    instance: &str,
    instances: &mut Instances,
) -> (DelegatedAction, String) {
    match reply {
        DelegatedReply::Refuse { enhanced, text } if enhanced.class == 5 => {
            (DelegatedAction::Reject, line(&format!("REJECT {enhanced} {text}")))
        }
        DelegatedReply::Refuse { enhanced, text } => {
            (DelegatedAction::DeferIfPermit, line(&format!("DEFER_IF_PERMIT {enhanced} {text}")))
        }
        // access(5): not in the context of smtpd_end_of_data_restrictions.
        DelegatedReply::Tag { field }
            if at != AskedAt::EndOfMessage && instances.is_first(instance, "PREPEND") =>
        {
            (DelegatedAction::Prepend, line(&format!("PREPEND {field}")))
        }
        DelegatedReply::Tag { .. } | DelegatedReply::Accept => {
            let warning = warning(shadow);
            match warning.filter(|warning| instances.is_first(instance, warning)) {
                Some(warning) => (DelegatedAction::Warn, line(&warning)),
                None => (DelegatedAction::Dunno, "DUNNO".to_owned()),
            }
        }
    }
}

/// `WARN gatepost would reject: rule "no PTR record" in shadow mode (fcrdns.no_ptr)`
fn warning(shadow: &[ShadowRecord]) -> Option<String> {
    let strictest = shadow.iter().map(|matched| matched.action).max()?;
    let rules: Vec<String> = shadow
        .iter()
        .filter(|matched| matched.action == strictest)
        .take(MAX_SHADOWS)
        .map(|matched| {
            let reason = matched.reason.as_ref().map(|reason| format!(" ({reason})"));
            format!("rule \"{}\" in shadow mode{}", matched.rule, reason.unwrap_or_default())
        })
        .collect();
    Some(format!("WARN gatepost would {strictest}: {}", rules.join(", ")))
}

/// One line of printable ASCII: a line end in it would be a second attribute.
fn line(text: &str) -> String {
    let printable = |c: char| if (' '..='~').contains(&c) { c } else { '?' };
    text.chars().take(MAX_TEXT).map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PolicyAction;
    use crate::smtp::EnhancedCode;

    fn refuse(class: u8) -> DelegatedReply {
        let text = "client address 192.0.2.1 has no PTR record (rule \"no\nPTR\")".to_owned();
        DelegatedReply::Refuse { enhanced: EnhancedCode::new(class, 7, 25), text }
    }

    fn shadow(rule: &str, action: PolicyAction) -> ShadowRecord {
        ShadowRecord { rule: rule.to_owned(), action, reason: Some("fcrdns.no_ptr".to_owned()) }
    }

    #[test]
    fn refusals_keep_code_and_text() {
        let mut instances = Instances::default();
        let mut act = |reply| action(&(reply, vec![]), AskedAt::Rcpt, "1", &mut instances).1;
        let text = "client address 192.0.2.1 has no PTR record (rule \"no?PTR\")";
        assert_eq!(act(refuse(5)), format!("REJECT 5.7.25 {text}"));
        assert_eq!(act(refuse(4)), format!("DEFER_IF_PERMIT 4.7.25 {text}"));
        assert_eq!(act(DelegatedReply::Accept), "DUNNO");
    }

    #[test]
    fn a_message_gets_one_field_and_one_warning() {
        let mut instances = Instances::default();
        let tag = |rule: &str| {
            (
                DelegatedReply::Tag { field: format!("Gatepost-Verdict: tag; rule=\"{rule}\"") },
                vec![],
            )
        };
        let mut act = |decided: &_, at, instance| action(decided, at, instance, &mut instances).1;
        assert_eq!(act(&tag("a"), AskedAt::EndOfMessage, "1"), "DUNNO");
        assert_eq!(act(&tag("a"), AskedAt::Rcpt, "1"), "PREPEND Gatepost-Verdict: tag; rule=\"a\"");
        assert_eq!(act(&tag("b"), AskedAt::Rcpt, "1"), "DUNNO");
        assert_eq!(act(&tag("b"), AskedAt::Rcpt, "2"), "PREPEND Gatepost-Verdict: tag; rule=\"b\"");

        let rules = vec![shadow("x", PolicyAction::Tempfail), shadow("y", PolicyAction::Reject)];
        let decided = (DelegatedReply::Accept, rules);
        let warning = "WARN gatepost would reject: rule \"y\" in shadow mode (fcrdns.no_ptr)";
        assert_eq!(act(&decided, AskedAt::Rcpt, "1"), warning);
        assert_eq!(act(&decided, AskedAt::Rcpt, "1"), "DUNNO");
        // Without an instance, as from another program, each question is one.
        assert_eq!(act(&decided, AskedAt::Rcpt, ""), warning);
        assert_eq!(act(&decided, AskedAt::Rcpt, ""), warning);
    }
}
