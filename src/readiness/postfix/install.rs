//! All commands by which Postfix uses gatepost.

use super::outbound::outbound_commands;
use super::policy_commands::policy_commands;
use super::policy_service::{FaultyQuestion, questions};
use crate::readiness::policy_server::{PolicyServer, PolicyServerError};
use crate::readiness::postconf::Postfix;

/// The parts of gatepost that Postfix uses.
#[derive(Clone, Copy, Debug, Default)]
pub struct InstalledParts<'a> {
    /// `[outbound]`, with the options of `gatepost postfix map`.
    pub outbound: Option<&'a str>,
    /// `[postfix] policy`
    pub policy: Option<&'a PolicyServer>,
}

/// Commands for sh(1), with a comment above the part of each file. None for a policy service that is asked already; a question
/// without effect, or that can stop mail, is corrected, or a comment says what is wrong.
///
/// # Errors
/// No command can make Postfix ask the policy service.
pub fn install_commands(
    postfix: &Postfix,
    parts: InstalledParts<'_>,
) -> Result<Vec<String>, PolicyServerError> {
    let mut lines: Vec<String> = Vec::new();
    if let Some(options) = parts.outbound {
        lines.extend(outbound_commands(postfix, options));
    }
    if let Some(server) = parts.policy {
        let commands = policy_commands(postfix, server)?;
        if !commands.is_empty() {
            lines.push(format!("# {}: policy", postfix.file("main.cf")));
            lines.extend(commands.into_iter().map(|(_, command)| command));
        }
        for FaultyQuestion { seen, advice, command, .. } in questions(postfix, Some(server)).faulty
        {
            lines.push(format!("# {seen}"));
            lines.push(command.unwrap_or_else(|| format!("# {advice}")));
        }
    }
    if lines.iter().any(|line| !line.starts_with('#')) {
        lines.extend(postfix.activate(false));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::PolicyServerAddress;
    use std::time::Duration;

    fn server(socket: &str) -> PolicyServer {
        let address = PolicyServerAddress::Unix(socket.into());
        PolicyServer { address, deadline: Duration::from_millis(1500), decides_at_end: false }
    }

    #[test]
    fn the_service_comes_before_the_filter() {
        let postfix = Postfix::new(
            Some("/etc/postfix-out".to_owned()),
            "config_directory = /etc/postfix-out\nsmtp_mx_session_limit = 2\n",
            "",
            "",
        );
        let outbound = Some(" --socket /run/other.sock");
        let parts = InstalledParts { outbound, ..InstalledParts::default() };
        let lines = install_commands(&postfix, parts).unwrap();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn each_part_is_installed_without_the_other() {
        let postfix = Postfix::new(
            None,
            "config_directory = /etc/postfix\nqueue_directory = /var/spool/postfix\n\
             smtpd_recipient_restrictions = reject_unauth_destination\n",
            "",
            "",
        );
        let policy = server("/var/spool/postfix/private/gatepost");
        let parts = |outbound, policy| {
            let lines = install_commands(&postfix, InstalledParts { outbound, policy }).unwrap();
            lines.iter().map(|line| line.split('\'').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let of_policy =
            ["# /etc/postfix/main.cf: policy", "postconf -e ", "postfix reload"].map(str::to_owned);
        assert_eq!(parts(None, Some(&policy)), of_policy);
        let both = parts(Some(""), Some(&policy));
        assert!(both.ends_with(&of_policy), "{both:?}");
        assert_eq!(both.len(), parts(Some(""), None).len() + 2);
        assert!(parts(None, None).is_empty());
    }

    #[test]
    fn a_question_that_can_stop_mail_is_corrected() {
        let install = |list: &str, default: &str| {
            let main = format!(
                "config_directory = /etc/postfix\nqueue_directory = /var/spool/postfix\n\
                 smtpd_policy_service_timeout = 100s\n\
                 smtpd_policy_service_default_action = {default}\n\
                 smtpd_recipient_restrictions = {list}\n"
            );
            let policy = server("/var/spool/postfix/private/gatepost");
            let parts = InstalledParts { policy: Some(&policy), ..InstalledParts::default() };
            install_commands(&Postfix::new(None, &main, "", ""), parts).unwrap()
        };
        const DEFER: &str = "451 4.3.5 Server configuration problem";
        let plain = "reject_unauth_destination, check_policy_service unix:private/gatepost";
        let corrected = [
            "# smtpd_recipient_restrictions asks unix:private/gatepost: without default_action=DUNNO every recipient gets \
             451 while gatepost does not answer; each recipient waits 100s while gatepost hangs",
            "postconf -e 'smtpd_recipient_restrictions = reject_unauth_destination, check_policy_service \
             { unix:private/gatepost, timeout=2s, default_action=DUNNO }'",
            "postfix reload",
        ];
        assert_eq!(install(plain, DEFER), corrected);
        let guarded =
            "reject_unauth_destination, check_policy_service { unix:private/gatepost, timeout=2s }";
        assert!(install(guarded, "DUNNO").is_empty());
        assert_eq!(install(guarded, DEFER).len(), 3);
        // No command can: comments, and no reload.
        let unreached = "permit, check_policy_service { unix:private/gatepost, timeout=2s }";
        let [seen, advice] = &install(unreached, "DUNNO")[..] else { panic!("two comments") };
        assert!(seen.starts_with("# ") && seen.contains("never reached"), "{seen}");
        assert!(advice.starts_with("# Write behind reject_unauth_destination: "), "{advice}");
    }
}
