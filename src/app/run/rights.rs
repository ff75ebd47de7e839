//! What a gateway may do: it becomes its user, sets up, and keeps only the capabilities that its configuration takes from then
//! on. Each module says what it needs; here it is put together.

use anyhow::bail;
use rustix::thread::CapabilitySet;

use super::doors;
use crate::config::Config;
use crate::intercept::{self, door};
use crate::privilege::{self, User, names};

const INTERCEPT: &str = "[intercept]";

/// The capabilities that this process kept.
pub(super) struct Rights {
    kept: CapabilitySet,
    inherited: CapabilitySet,
    user: Option<String>,
}

/// Of these capabilities the kernel takes any, for that part of the configuration.
struct Need {
    any: CapabilitySet,
    part: &'static str,
}

/// Becomes the configured user and gives up what not even setting up takes, while this is the only thread. Files are opened
/// after it, so that what can be opened now can be opened at a reload.
///
/// # Errors
/// It cannot become that user.
pub(super) fn begin(config: &Config) -> anyhow::Result<()> {
    let Some(name) = &config.user else { return Ok(privilege::limit_to_setup()?) };
    let user = User::by_name(name)?;
    let directory = config.control.socket.parent().filter(|path| !path.as_os_str().is_empty());
    let made = directory.map_or(Ok(()), |directory| user.make_directory(directory));
    // Where the file names no socket, a gateway can do without.
    if config.control.required {
        made?;
    }
    Ok(user.assume()?)
}

impl Rights {
    /// Chooses what to keep.
    pub(super) fn of(config: &Config) -> Self {
        let kept = least(&needs(config), privilege::permitted());
        // nft(8) is a program.
        let intercepts = config.intercept.is_some();
        let inherited = if intercepts {
            kept & intercept::REQUIRED_CAPABILITIES
        } else {
            CapabilitySet::empty()
        };
        Self { kept, inherited, user: config.user.clone() }
    }

    /// Gives up the rest, while this is the only thread.
    ///
    /// # Errors
    /// The kernel does not do it.
    pub(super) fn settle(&self) -> anyhow::Result<()> {
        Ok(privilege::limit_to(self.kept, self.inherited)?)
    }

    /// What is kept and for what, in a line.
    pub(super) fn told(&self, config: &Config) -> String {
        let needs = needs(config);
        // Capabilities that are for the same stand together.
        let mut by_parts: Vec<(String, CapabilitySet)> = Vec::new();
        for one in self.kept.iter() {
            let for_it = needs.iter().filter(|need| need.any.contains(one));
            let mut parts: Vec<&str> = for_it.map(|need| need.part).collect();
            parts.dedup();
            let parts = parts.join(", ");
            match by_parts.iter_mut().find(|(same, _)| *same == parts) {
                Some((_, set)) => *set |= one,
                None => by_parts.push((parts, one)),
            }
        }
        let words = by_parts.iter().map(|(parts, set)| format!("{} ({parts})", names(*set)));
        let kept: Vec<String> = words.collect();
        let kept = if kept.is_empty() { "no capability".to_owned() } else { kept.join(", ") };
        let user = self.user.as_ref().map(|user| format!(", runs as {user}")).unwrap_or_default();
        format!("rights: keeps {kept}{user}")
    }

    /// Whether a configuration can be put in force by a reload: what was given up does not come back.
    ///
    /// # Errors
    /// It takes a right that this process has not.
    pub(super) fn allow(&self, config: &Config) -> anyhow::Result<()> {
        for Need { any, part } in relaying(config) {
            // nft(8) needs it as well.
            let has = if part == INTERCEPT { self.inherited } else { self.kept };
            if !has.intersects(any) {
                let lacks = names(privilege::narrowest(any, any).unwrap_or(any));
                bail!(
                    "{part} takes {lacks}, which this process gave up or never had: restart gatepost"
                );
            }
        }
        Ok(())
    }
}

fn needs(config: &Config) -> Vec<Need> {
    let mut needs = relaying(config);
    if let Some(settings) = doors(config) {
        let any = door::required_capabilities(settings.refuse, config.intercept.is_some());
        needs.extend(any.into_iter().map(|any| Need { any, part: "[door]" }));
    }
    if let Some(settings) = &config.watch {
        needs.extend(settings.needs().into_iter().map(|any| Need { any, part: "[watch]" }));
    }
    needs
}

/// What a reload can change.
fn relaying(config: &Config) -> Vec<Need> {
    let any = config.relay.required_capabilities().into_iter();
    let mut needs: Vec<Need> = any.map(|any| Need { any, part: "[upstream]" }).collect();
    if config.intercept.is_some() {
        needs.push(Need { any: intercept::REQUIRED_CAPABILITIES, part: INTERCEPT });
    }
    needs
}

/// The fewest capabilities, and of those that do the same the one that gives away least.
fn least(needs: &[Need], permitted: CapabilitySet) -> CapabilitySet {
    let mut needs: Vec<CapabilitySet> = needs.iter().map(|need| need.any).collect();
    // Where there is no choice comes first: it may serve others too.
    needs.sort_by_key(|any| any.iter().count());
    needs.into_iter().fold(CapabilitySet::empty(), |kept, any| {
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
        let kept = least(&needs(&config), CapabilitySet::all());
        let rights = Rights { kept, inherited: CapabilitySet::empty(), user: config.user.clone() };
        (names(kept).to_string(), rights.told(&config))
    }

    const PROXY: &str = "[listen]\naddresses = [\"[2001:db8::1]:25\"]\n[upstream]\naddresses = [\"[2001:db8::2]:25\"]\n";
    const TPROXY: &str = "[listen]\nmode = \"tproxy\"\naddresses = [\"[::]:2525\"]\n";

    #[test]
    fn no_more_is_kept_than_a_configuration_takes() {
        let with = |more: &str| kept(&format!("{PROXY}{more}"));
        assert_eq!(with("").1, "rights: keeps no capability");
        assert_eq!(with("identity = \"transparent\"").0, "CAP_NET_RAW");
        assert_eq!(with("[watch]\nsource = \"pcap\"").0, "CAP_NET_RAW");
        assert_eq!(with("[watch]\nsource = \"ebpf\"").0, "CAP_PERFMON CAP_BPF CAP_NET_ADMIN");
        assert_eq!(
            with("[watch]\nsource = \"ebpf\"").1,
            "rights: keeps CAP_PERFMON CAP_BPF CAP_NET_ADMIN ([watch])"
        );
        assert_eq!(with("[watch]").0, "CAP_PERFMON CAP_BPF CAP_NET_RAW CAP_NET_ADMIN");
        assert_eq!(with("[door]\nrefuse = \"smtp\"").0, "");
        assert_eq!(
            with("[process]\nuser = \"mail\"").1,
            "rights: keeps no capability, runs as mail"
        );
        let (names, told) = kept(TPROXY);
        assert_eq!(names, "CAP_NET_ADMIN", "which does for IP_TRANSPARENT, too");
        assert_eq!(told, "rights: keeps CAP_NET_ADMIN ([upstream], [intercept])");
        assert_eq!(kept(&format!("{TPROXY}[door]")).0, "CAP_NET_ADMIN");
    }

    #[test]
    fn what_was_given_up_is_refused_at_a_reload() {
        let config = |text: &str| {
            let text = format!("smtp.hostname = \"mx.example.org\"\n{text}");
            Config::parse(&text, "gatepost.toml").unwrap()
        };
        let rights =
            Rights { kept: CapabilitySet::empty(), inherited: CapabilitySet::empty(), user: None };
        assert!(rights.allow(&config(PROXY)).is_ok());
        let said = rights.allow(&config(TPROXY)).unwrap_err().to_string();
        assert_eq!(
            said,
            "[upstream] takes CAP_NET_RAW, which this process gave up or never had: restart gatepost"
        );
        // What [watch] kept is not for nft(8).
        let rights = Rights { kept: CapabilitySet::NET_ADMIN, ..rights };
        let said = rights.allow(&config(TPROXY)).unwrap_err().to_string();
        assert!(said.starts_with("[intercept] takes CAP_NET_ADMIN, which"), "{said}");
    }
}
