//! Capabilities: the permitted ones, and dropping them.

use std::fmt;

use rustix::io::{Errno, Result as RustixResult};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

use super::error::{PrivilegeError, denied};

/// All capabilities that gatepost uses, the least powerful first. Before Linux 5.8 CAP_SYS_ADMIN replaces CAP_BPF and
/// CAP_PERFMON.
const USED: [(&str, CapabilitySet); 6] = [
    ("CAP_NET_BIND_SERVICE", CapabilitySet::NET_BIND_SERVICE),
    ("CAP_PERFMON", CapabilitySet::PERFMON),
    ("CAP_BPF", CapabilitySet::BPF),
    ("CAP_NET_RAW", CapabilitySet::NET_RAW),
    ("CAP_NET_ADMIN", CapabilitySet::NET_ADMIN),
    ("CAP_SYS_ADMIN", CapabilitySet::SYS_ADMIN),
];

/// The permitted set of this thread.
pub fn permitted() -> CapabilitySet {
    // If the kernel does not report it, nothing can be kept.
    capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.permitted)
}

/// The least powerful permitted capability of `any`; `None` if none is permitted.
pub fn narrowest(any: CapabilitySet, permitted: CapabilitySet) -> Option<CapabilitySet> {
    USED.iter().map(|&(_, one)| one).find(|&one| any.contains(one) && permitted.contains(one))
}

/// The names as in capabilities(7), joined by spaces.
pub fn names(set: CapabilitySet) -> impl fmt::Display {
    let names = USED.iter().filter(|(_, one)| set.contains(*one)).map(|&(name, _)| name);
    names.collect::<Vec<_>>().join(" ")
}

/// Sets no_new_privs, and drops all capabilities that gatepost does not use during set-up, such as root's access to the files
/// of other users.
///
/// # Errors
/// The kernel refuses.
pub fn limit_to_setup() -> Result<(), PrivilegeError> {
    set_no_new_privs(true).map_err(denied("set no_new_privs"))?;
    let used = USED.iter().fold(CapabilitySet::SETPCAP, |used, &(_, one)| used | one);
    let sets = capabilities(None).map_err(denied("read the capabilities of this process"))?;
    let kept = sets.permitted & used;
    let inheritable = sets.inheritable & kept;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable })
        .map_err(denied("drop capabilities"))
}

/// Drops all capabilities but `kept`, for this thread and all threads that it starts. Programs that it executes have
/// `inherited`, a subset of `kept`, by the ambient set; the bounding set is emptied.
///
/// Without CAP_SETPCAP the bounding set stays: a service manager need not give that capability, as it limits the bounding set
/// itself, and no_new_privs keeps programs from using it.
///
/// # Errors
/// The kernel refuses.
pub fn limit_to(kept: CapabilitySet, inherited: CapabilitySet) -> Result<(), PrivilegeError> {
    set_no_new_privs(true).map_err(denied("set no_new_privs"))?;
    let current = capabilities(None).map_err(denied("read the capabilities of this process"))?;
    let failed = denied("drop capabilities");
    let drop_all = || -> RustixResult<()> {
        clear_ambient_capability_set()?;
        // While the bounding set still allows it.
        set_capabilities(None, CapabilitySets { inheritable: inherited, ..current })?;
        for one in inherited.iter() {
            configure_capability_in_ambient_set(one, true)?;
        }
        if current.effective.contains(CapabilitySet::SETPCAP) {
            empty_bounding_set()?;
        }
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: inherited };
        set_capabilities(None, sets)
    };
    drop_all().map_err(failed)
}

fn empty_bounding_set() -> RustixResult<()> {
    for bit in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        match capability_is_in_bounding_set(one) {
            Ok(true) => remove_capability_from_bounding_set(one)?,
            Ok(false) => {}
            // Past the last capability of this kernel.
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
    fn the_least_powerful_capability_is_chosen() {
        let (raw, admin) = (CapabilitySet::NET_RAW, CapabilitySet::NET_ADMIN);
        assert_eq!(narrowest(raw | admin, CapabilitySet::all()), Some(raw));
        assert_eq!(narrowest(raw | admin, admin), Some(admin));
        assert_eq!(narrowest(raw, admin), None);
        let bpf = CapabilitySet::BPF | CapabilitySet::SYS_ADMIN;
        assert_eq!(narrowest(bpf, CapabilitySet::SYS_ADMIN), Some(CapabilitySet::SYS_ADMIN));
        assert_eq!(narrowest(bpf, CapabilitySet::all()), Some(CapabilitySet::BPF));
    }

    /// On a thread of its own, since it cannot be undone.
    #[test]
    fn only_the_kept_capabilities_remain() {
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
        assert_eq!(permitted(), before, "only that thread dropped capabilities");
    }
}
