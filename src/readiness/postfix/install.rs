//! All commands by which Postfix uses gatepost.

use super::outbound::outbound_commands;
use super::policy_commands::policy_commands;
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

/// Commands for sh(1), with a comment above the part of each file. None for a policy service that is asked already.
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
            lines.extend(commands);
        }
    }
    if !lines.is_empty() {
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
        PolicyServer { address, deadline: Duration::from_millis(1500) }
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
}
