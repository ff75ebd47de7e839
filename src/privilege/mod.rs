//! What this process may do: its user and its capabilities (capabilities(7), credentials(7)), and how it gives them up.
//!
//! Layer 4. Both belong to a thread, and threads inherit them: whoever calls this does it while the process has one thread.
//! The order is: [`User::assume`] or [`limit_to_setup`] before any file is opened, so that what can be opened at the start can be
//! opened again later; then what takes a right; then [`limit_to`].

mod user;

use std::fmt;

use rustix::io::{Errno, Result as Answer};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

pub use self::user::User;

/// All that gatepost has a use for, the one that gives away least first. CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON
/// before Linux 5.8.
const USED: [(&str, CapabilitySet); 6] = [
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
];

/// Why this process could not become who it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrivilegeError {
    #[error("cannot {what}: {why}; are capabilities and prctl(2) allowed for this service?")]
    Capabilities { what: &'static str, why: Errno },
    #[error("there is no user \"{name}\" on this host: `adduser --system --group {name}` makes it")]
    NoUser { name: String },
    #[error("cannot look up the user \"{name}\": {why}")]
    Lookup { name: String, why: nix::Error },
    #[error("only root can become the user \"{name}\", and this process runs as uid {uid}")]
    NotRoot { name: String, uid: u32 },
    #[error("cannot become the user \"{name}\": {why}")]
    Become { name: String, why: nix::Error },
    #[error("cannot make {path} for the user \"{name}\": {why}")]
    Directory { path: String, name: String, why: std::io::Error },
}

fn denied(what: &'static str) -> impl Fn(Errno) -> PrivilegeError {
    move |why| PrivilegeError::Capabilities { what, why }
}

/// What this thread may use if it wants to.
pub fn permitted() -> CapabilitySet {
    // Where the kernel does not tell, there is nothing that could be kept.
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

/// Of capabilities that the kernel takes any of, the one that gives away least; `None` if none is permitted.
pub fn narrowest(any: CapabilitySet, permitted: CapabilitySet) -> Option<CapabilitySet> {
    USED.iter().map(|&(_, one)| one).find(|&one| any.contains(one) && permitted.contains(one))
}

/// Their names, as in capabilities(7).
pub fn names(set: CapabilitySet) -> impl fmt::Display {
    let names = USED.iter().filter(|(_, one)| set.contains(*one)).map(|&(name, _)| name);
    names.collect::<Vec<_>>().join(" ")
}

/// From now on this process can gain no right, and has none but those that gatepost can use while it sets up: root's power
/// over the files of others is gone.
///
/// # Errors
/// The kernel does not do it.
pub fn limit_to_setup() -> Result<(), PrivilegeError> {
    set_no_new_privs(true).map_err(denied("give up gaining privileges"))?;
    let used = USED.iter().fold(CapabilitySet::SETPCAP, |used, &(_, one)| used | one);
    let sets = capabilities(None).map_err(denied("read the capabilities of this process"))?;
    let kept = sets.permitted & used;
    let inheritable = sets.inheritable & kept;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
        .map_err(denied("give up capabilities"))
}

/// From now on this process, and every thread that it starts, has `kept` and no more. Programs that it runs have
/// `inherited`, a part of `kept`: the ambient set, beside which the bounding set is empty.
///
/// The bounding set stays as it is without CAP_SETPCAP, which a service manager need not give: it emptied that set before, as
/// far as it wanted, and no_new_privs keeps programs from gaining what is in it.
///
/// # Errors
/// The kernel does not do it.
pub fn limit_to(kept: CapabilitySet, inherited: CapabilitySet) -> Result<(), PrivilegeError> {
    set_no_new_privs(true).map_err(denied("give up gaining privileges"))?;
    let now = capabilities(None).map_err(denied("read the capabilities of this process"))?;
    let failed = denied("give up capabilities");
    let give_up = || -> Answer<()> {
        clear_ambient_capability_set()?;
        // While the bounding set still allows it.
        set_capabilities(None, CapabilitySets { inheritable: inherited, ..now })?;
        for one in inherited.iter() {
            configure_capability_in_ambient_set(one, true)?;
        }
        if now.effective.contains(CapabilitySet::SETPCAP) {
            empty_bounding_set()?;
        }
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: inherited };
        set_capabilities(None, sets)
    };
    give_up().map_err(failed)
}

fn empty_bounding_set() -> Answer<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // This kernel has no more of them.
            Err(Errno::INVAL) => break,
            Err(why) => return Err(why),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_gives_away_least_is_kept() {
        let (raw, admin) = (CapabilitySet::NET_RAW, CapabilitySet::NET_ADMIN);
        assert_eq!(narrowest(raw | admin, CapabilitySet::all()), Some(raw));
        assert_eq!(narrowest(raw | admin, admin), Some(admin));
        assert_eq!(narrowest(raw, admin), None);
        let bpf = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        assert_eq!(narrowest(bpf, CapabilitySet::SYS_ADMIN), Some(CapabilitySet::SYS_ADMIN));
        assert_eq!(narrowest(bpf, CapabilitySet::all()), Some(CapabilitySet::BPF));
    }

    /// On a thread of its own: it cannot be undone.
    #[test]
    fn nothing_but_what_is_kept_is_left() {
        let before = permitted();
        let kept = CapabilitySet::NET_ADMIN & before;
        let after = std::thread::spawn(move || {
            limit_to_setup().unwrap();
            let during = permitted();
            limit_to(kept, kept).unwrap();
            (during, capabilities(None).unwrap())
        });
        let (during, after) = after.join().unwrap();
        assert!(!during.contains(CapabilitySet::DAC_OVERRIDE));
        assert_eq!((after.effective, after.permitted, after.inheritable), (kept, kept, kept));
        assert_eq!(permitted(), before, "of that thread only");
    }
}
