//! Findings about this host, each with the commands that help.

use std::fmt;

use serde::Serialize;

use crate::label::labels;
use crate::readiness::CheckStatus;

labels! {
    /// The words are part of the JSON form and stable.
    pub enum InterceptCheckName {
        /// Whether a gateway intercepts, and with which rules.
        Gateway = "gateway",
        /// A family of `listen.addresses` is enabled on this host.
        Family = "family",
        Forwarding = "forwarding",
        /// Settings of the kernel that drop intercepted packets.
        Kernel = "kernel",
        Bridge = "bridge",
        Flowtable = "flowtable",
        Interface = "interface",
        Destination = "destination",
        Routing = "routing",
        /// Whether the firewall can be read.
        Firewall = "firewall",
        Input = "input",
        Output = "output",
        Forward = "forward",
        /// Chains that run after gatepost's.
        ChainOrder = "chain_order",
        Nat = "nat",
        /// Whether the servers' replies come back through this host.
        ReturnRoute = "return_route",
    }
}

/// The result of one check. The serde form is part of the public JSON form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterceptFinding {
    pub check: InterceptCheckName,
    pub outcome: CheckStatus,
    pub seen: String,
    /// Shell commands that help, in this order.
    pub commands: Vec<String>,
}

/// The result of a check of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterceptCheckReport {
    pub findings: Vec<InterceptFinding>,
}

impl InterceptCheckReport {
    fn push(&mut self, check: InterceptCheckName, outcome: CheckStatus, seen: String) {
        self.findings.push(InterceptFinding { check, outcome, seen, commands: Vec::new() });
    }

    pub(super) fn pass(&mut self, check: InterceptCheckName, seen: impl Into<String>) {
        self.push(check, CheckStatus::Pass, seen.into());
    }

    pub(super) fn unknown(&mut self, check: InterceptCheckName, seen: impl Into<String>) {
        self.push(check, CheckStatus::Unknown, seen.into());
    }

    pub(super) fn add(
        &mut self,
        check: InterceptCheckName,
        outcome: CheckStatus,
        seen: impl Into<String>,
        commands: impl IntoIterator<Item = String>,
    ) {
        let commands = commands.into_iter().collect();
        self.findings.push(InterceptFinding { check, outcome, seen: seen.into(), commands });
    }

    pub(super) fn warn(
        &mut self,
        check: InterceptCheckName,
        seen: impl Into<String>,
        command: impl Into<String>,
    ) {
        self.add(check, CheckStatus::Warn, seen, [command.into()]);
    }

    pub(super) fn fail(
        &mut self,
        check: InterceptCheckName,
        seen: impl Into<String>,
        command: impl Into<String>,
    ) {
        self.add(check, CheckStatus::Fail, seen, [command.into()]);
    }

    pub fn of(&self, outcome: CheckStatus) -> impl Iterator<Item = &InterceptFinding> {
        self.findings.iter().filter(move |finding| finding.outcome == outcome)
    }

    pub fn has_failed(&self) -> bool {
        self.of(CheckStatus::Fail).next().is_some()
    }

    /// Those that need attention, the most severe first.
    pub fn problems(&self) -> Vec<&InterceptFinding> {
        let mut problems: Vec<_> =
            self.findings.iter().filter(|one| one.outcome != CheckStatus::Pass).collect();
        problems.sort_by_key(|one| std::cmp::Reverse(one.outcome));
        problems
    }
}

/// For a log: one line, with the commands at its end.
impl fmt::Display for InterceptFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.seen)?;
        if !self.commands.is_empty() {
            write!(f, "; run: {}", self.commands.join(" && "))?;
        }
        Ok(())
    }
}
