//! Privileges: the gateway changes to its user, sets up, and keeps only the capabilities that its configuration needs from
//! then on.

use anyhow::bail;
use nix::unistd::geteuid;
use rustix::thread::CapabilitySet;

use super::door_config::door_config;
use crate::config::Config;
use crate::intercept::{self, door};
use crate::privilege::{self, User, names};

const INTERCEPT: &str = "[intercept]";
const OUTBOUND: &str = "[outbound]";

pub(super) struct KeptCapabilities {
    kept: CapabilitySet,
    /// Passed on to child processes.
    inherited: CapabilitySet,
    user: Option<String>,
}

/// The kernel requires any one of these capabilities for that section of the configuration.
/// The group whose members may request retries (postqueue(1), `setgid_group`). No program gains it by itself here
/// (no_new_privs), so the account of the gateway must be in it.
const POSTDROP: &str = "postdrop";

struct CapabilityRequirement {
    any: CapabilitySet,
    section: &'static str,
}

/// Changes to the configured user and drops the capabilities that not even set-up needs, while this is the only thread.
/// Files are opened after it, so a reload can open the same files.
///
/// # Errors
/// The process cannot change to that user.
pub(super) fn change_user(config: &Config) -> anyhow::Result<()> {
    let Some(name) = &config.user else {
        if config.outbound.is_some() && geteuid().is_root() {
            privilege::join_group(POSTDROP)?;
        }
        return Ok(privilege::limit_to_setup()?);
    };
    let user = User::by_name(name)?;
    let directory = config.control.socket.parent().filter(|path| !path.as_os_str().is_empty());
    let made = directory.map_or(Ok(()), |directory| user.create_directory(directory));
    // A control socket that the configuration does not name is optional.
    if config.control.required {
        made?;
    }
    Ok(user.assume()?)
}

impl KeptCapabilities {
    pub(super) fn choose(config: &Config) -> Self {
        let kept = fewest(&requirements(config), privilege::permitted());
        // Interception and resets execute nft(8).
        let inherited = match config.intercept.is_some() || resets(config) {
            true => kept & intercept::REQUIRED_CAPABILITIES,
            false => CapabilitySet::empty(),
        };
        Self { kept, inherited, user: config.user.clone() }
    }

    /// Drops all others, while this is the only thread.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn drop_others(&self) -> anyhow::Result<()> {
        Ok(privilege::limit_to(self.kept, self.inherited)?)
    }

    /// `capabilities: CAP_NET_ADMIN ([upstream], [intercept]); user: gatepost`
    pub(super) fn summary(&self, config: &Config) -> String {
        let requirements = requirements(config);
        // Capabilities of the same sections form one group.
        let mut groups: Vec<(String, CapabilitySet)> = Vec::new();
        for one in self.kept.iter() {
            let users = requirements.iter().filter(|requirement| requirement.any.contains(one));
            let mut sections: Vec<&str> = users.map(|requirement| requirement.section).collect();
            sections.dedup();
            let sections = sections.join(", ");
            match groups.iter_mut().find(|(same, _)| *same == sections) {
                Some((_, set)) => *set |= one,
                None => groups.push((sections, one)),
            }
        }
        let groups = groups.iter().map(|(sections, set)| format!("{} ({sections})", names(*set)));
        let kept = groups.collect::<Vec<_>>().join(", ");
        let kept = if kept.is_empty() { "none" } else { &kept };
        let user = self.user.as_ref().map(|user| format!("; user: {user}")).unwrap_or_default();
        format!("capabilities: {kept}{user}")
    }

    /// Checks a configuration before a reload: dropped capabilities cannot be regained.
    ///
    /// # Errors
    /// It needs a capability that this process does not have.
    pub(super) fn check(&self, config: &Config) -> anyhow::Result<()> {
        for CapabilityRequirement { any, section } in relay_requirements(config) {
            // nft(8) must inherit it.
            let available = if section == INTERCEPT { self.inherited } else { self.kept };
            if !available.intersects(any) {
                let missing = names(privilege::narrowest(any, any).unwrap_or(any));
                bail!(
                    "{section} needs {missing}, which this process dropped or never had: restart gatepost"
                );
            }
        }
        Ok(())
    }
}

fn requirements(config: &Config) -> Vec<CapabilityRequirement> {
    let mut all = relay_requirements(config);
    if let Some(settings) = door_config(config) {
        let any = door::required_capabilities(settings.refuse, config.intercept.is_some());
        all.extend(any.into_iter().map(|any| CapabilityRequirement { any, section: "[door]" }));
    }
    if let Some(settings) = &config.watch {
        let any = settings.required_capabilities().into_iter();
        all.extend(any.map(|any| CapabilityRequirement { any, section: "[watch]" }));
    }
    if resets(config) {
        let any = intercept::REQUIRED_CAPABILITIES;
        all.push(CapabilityRequirement { any, section: OUTBOUND });
    }
    all
}

/// Whether connections of our MTA to avoided addresses are reset.
fn resets(config: &Config) -> bool {
    config.outbound.as_ref().is_some_and(|outbound| outbound.resets.is_some())
}

/// The requirements that a reload can change.
fn relay_requirements(config: &Config) -> Vec<CapabilityRequirement> {
    let any = config.relay.required_capabilities().into_iter();
    let mut all: Vec<_> =
        any.map(|any| CapabilityRequirement { any, section: "[upstream]" }).collect();
    if config.intercept.is_some() {
        all.push(CapabilityRequirement {
            any: intercept::REQUIRED_CAPABILITIES,
            section: INTERCEPT,
        });
    }
    all
}

/// The fewest capabilities; of equivalent ones, the one that grants least.
fn fewest(requirements: &[CapabilityRequirement], permitted: CapabilitySet) -> CapabilitySet {
    let mut sets: Vec<CapabilitySet> =
        requirements.iter().map(|requirement| requirement.any).collect();
    // Those without a choice first: they may meet other requirements too.
    sets.sort_by_key(|any| any.iter().count());
    sets.into_iter().fold(CapabilitySet::empty(), |kept, any| {
        if kept.intersects(any) {
            return kept;
        }
        kept | privilege::narrowest(any, permitted).unwrap_or(CapabilitySet::empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(more: &str) -> (String, String) {
        let text = format!("smtp.hostname = \"mx.example.org\"\n{more}");
        let config = Config::parse(&text, "gatepost.toml").unwrap();
        let kept = fewest(&requirements(&config), CapabilitySet::all());
        let capabilities =
            KeptCapabilities { kept, inherited: CapabilitySet::empty(), user: config.user.clone() };
        (names(kept).to_string(), capabilities.summary(&config))
    }

    const PROXY: &str = "[listen]\naddresses = [\"[2001:db8::1]:25\"]\n[upstream]\naddresses = [\"[2001:db8::2]:25\"]\n";
    const TPROXY: &str = "[listen]\nmode = \"tproxy\"\naddresses = [\"[::]:2525\"]\n\
        [intercept]\ndestinations = [\"2001:db8::25\"]\n";

    #[test]
    fn only_needed_capabilities_are_kept() {
        let with = |more: &str| kept(&format!("{PROXY}{more}"));
        assert_eq!(with("").1, "capabilities: none");
        assert_eq!(with("identity = \"transparent\"").0, "CAP_NET_RAW");
        assert_eq!(with("[watch]\nsource = \"pcap\"").0, "CAP_NET_RAW");
        assert_eq!(with("[watch]\nsource = \"ebpf\"").0, "CAP_PERFMON CAP_BPF CAP_NET_ADMIN");
        assert_eq!(
            with("[watch]\nsource = \"ebpf\"").1,
            "capabilities: CAP_PERFMON CAP_BPF CAP_NET_ADMIN ([watch])"
        );
        assert_eq!(with("[watch]").0, "CAP_PERFMON CAP_BPF CAP_NET_RAW CAP_NET_ADMIN");
        assert_eq!(with("[door]\nrefuse = \"smtp\"").0, "");
        assert_eq!(
            with("[outbound]\nreset_users = [\"nobody\"]").1,
            "capabilities: CAP_NET_ADMIN ([outbound])"
        );
        assert_eq!(with("[process]\nuser = \"mail\"").1, "capabilities: none; user: mail");
        let (names, summary) = kept(TPROXY);
        assert_eq!(names, "CAP_NET_ADMIN", "which also permits IP_TRANSPARENT");
        assert_eq!(summary, "capabilities: CAP_NET_ADMIN ([upstream], [intercept])");
        assert_eq!(kept(&format!("{TPROXY}[door]")).0, "CAP_NET_ADMIN");
    }

    #[test]
    fn a_reload_cannot_regain_capabilities() {
        let config = |text: &str| {
            let text = format!("smtp.hostname = \"mx.example.org\"\n{text}");
            Config::parse(&text, "gatepost.toml").unwrap()
        };
        let capabilities = KeptCapabilities {
            kept: CapabilitySet::empty(),
            inherited: CapabilitySet::empty(),
            user: None,
        };
        assert!(capabilities.check(&config(PROXY)).is_ok());
        let error = capabilities.check(&config(TPROXY)).unwrap_err().to_string();
        assert_eq!(
            error,
            "[upstream] needs CAP_NET_RAW, which this process dropped or never had: restart gatepost"
        );
        // Kept for [watch], but nft(8) does not inherit it.
        let capabilities = KeptCapabilities { kept: CapabilitySet::NET_ADMIN, ..capabilities };
        let error = capabilities.check(&config(TPROXY)).unwrap_err().to_string();
        assert!(error.starts_with("[intercept] needs CAP_NET_ADMIN, which"), "{error}");
    }
}
