//! The door in the kernel: how new sessions of a family whose door is closed are refused.
//!
//! At the SYN, so that a sender reads "connection refused" at once and goes to the other family: where the gateway listens,
//! an sk_lookup program answers for it (`lookup`; Linux 5.9); where it intercepts, a rule of our nftables table
//! does. Either is gone, or refuses nobody, when the gateway is dead. Where the kernel cannot, the relay refuses by 421.
//!
//! Only the socket's own family is seen at the SYN: behind proxies that speak the PROXY protocol, `refuse = "smtp"` is what
//! refuses the family of the client. Sessions in progress are not touched.

#[cfg(feature = "ebpf")]
mod sk_lookup;

use std::net::SocketAddr;

use rustix::thread::CapabilitySet;

use super::{InterceptError, InterceptSettings, nft, ruleset};
use crate::addr::{Family, Networks};
use crate::label::labels;

labels! {
    /// `[door] refuse`
    #[derive(Default)]
    pub enum RefuseMethod {
        /// In the kernel, by a reset.
        #[default]
        Syn = "syn",
        /// By the relay, with 421 4.3.2.
        Smtp = "smtp",
    }
}

/// What it takes to turn a door in the kernel once its [`DoorEnforcer`] is open; of each set the kernel takes any. An interception's
/// door takes what the interception takes.
pub fn required_capabilities(refuse: RefuseMethod, intercepts: bool) -> Vec<CapabilitySet> {
    match refuse {
        RefuseMethod::Smtp => Vec::new(),
        RefuseMethod::Syn if intercepts => vec![super::REQUIRED_CAPABILITIES],
        #[cfg(feature = "ebpf")]
        RefuseMethod::Syn => sk_lookup::required_capabilities().into_iter().collect(),
        #[cfg(not(feature = "ebpf"))]
        RefuseMethod::Syn => Vec::new(),
    }
}

/// What sessions come in by.
#[derive(Clone, Debug)]
pub enum Ingress {
    /// The gateway's own listeners, as bound.
    Listeners(Vec<SocketAddr>),
    /// An interception that is installed.
    Intercepted(InterceptSettings),
}

/// Why a door cannot be closed, or opened, in the kernel.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    #[error(
        "refusing at the SYN needs {}, which this process lacks: give the program \
         `setcap cap_bpf,cap_net_admin+ep`, or its systemd unit \
         `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN`, or run it as root",
        missing.join(" and ")
    )]
    Rights {
        /// As in capabilities(7).
        missing: Vec<&'static str>,
    },
    #[error(
        "the kernel cannot {what}: {reason}; refusing at the SYN needs Linux 5.9 or later with \
         CONFIG_BPF_SYSCALL"
    )]
    Kernel { what: &'static str, reason: String },
    #[error("this gatepost was built without the feature `ebpf`, which refuses at the SYN")]
    NotBuilt,
    #[error(transparent)]
    Nft(#[from] InterceptError),
}

/// Closes and opens the doors of both families. Dropped, it refuses nobody any more, but for an interception's rules,
/// which go with the interception.
pub struct DoorEnforcer {
    by: By,
    exempt: Networks,
}

enum By {
    #[cfg(feature = "ebpf")]
    SkLookup(Box<sk_lookup::SkLookupDoor>),
    Nft {
        interception: InterceptSettings,
        /// What rules counted that are gone. By family.
        counted: [u64; 2],
        admits: [bool; 2],
    },
    Smtp,
}

impl DoorEnforcer {
    /// One that does as `refuse` says, with both doors open; or one that leaves it to the relay, and why.
    pub fn start(
        refuse: RefuseMethod,
        exempt: Networks,
        entrance: Ingress,
    ) -> (Self, Option<DoorError>) {
        let by = match (refuse, entrance) {
            (RefuseMethod::Smtp, _) => Ok(By::Smtp),
            (RefuseMethod::Syn, Ingress::Intercepted(interception)) => {
                Ok(By::Nft { interception, counted: [0; 2], admits: [true; 2] })
            }
            #[cfg(feature = "ebpf")]
            (RefuseMethod::Syn, Ingress::Listeners(addresses)) => {
                sk_lookup::SkLookupDoor::start(&addresses, &exempt)
                    .map(|lookup| By::SkLookup(Box::new(lookup)))
            }
            #[cfg(not(feature = "ebpf"))]
            (RefuseMethod::Syn, Ingress::Listeners(_)) => Err(DoorError::NotBuilt),
        };
        match by {
            Ok(by) => (Self { by, exempt }, None),
            Err(error) => (Self { by: By::Smtp, exempt }, Some(error)),
        }
    }

    /// Who refuses now.
    pub const fn method(&self) -> RefuseMethod {
        match self.by {
            By::Smtp => RefuseMethod::Smtp,
            _ => RefuseMethod::Syn,
        }
    }

    /// Who is let in whatever the door says; where the relay refuses, that is for the relay to see to.
    pub const fn exempt(&self) -> &Networks {
        &self.exempt
    }

    /// From now on new sessions of `family` are let in, or refused. Nothing to do where the relay refuses.
    ///
    /// # Errors
    /// The kernel does not do it; the door is as it was.
    pub async fn set(&mut self, family: Family, admits: bool) -> Result<(), DoorError> {
        match &mut self.by {
            #[cfg(feature = "ebpf")]
            By::SkLookup(lookup) => lookup.set(family, admits),
            By::Nft { interception, counted, admits: now } => {
                // Turning it takes the rule away, with its counter.
                let more = refused_by_rule(family).await.unwrap_or_default();
                nft::turn(interception, family, admits, &self.exempt).await?;
                counted[family as usize] += more;
                now[family as usize] = admits;
                Ok(())
            }
            By::Smtp => Ok(()),
        }
    }

    /// The listeners, or the interception, are others now; its rules were made anew, with open doors.
    ///
    /// # Errors
    /// The kernel does not take them.
    pub async fn update(&mut self, entrance: Ingress) -> Result<(), DoorError> {
        match (&mut self.by, entrance) {
            #[cfg(feature = "ebpf")]
            (By::SkLookup(lookup), Ingress::Listeners(addresses)) => lookup.listen(&addresses),
            (By::Nft { interception, admits, .. }, Ingress::Intercepted(new)) => {
                *interception = new;
                for family in Family::ALL {
                    if !admits[family as usize] {
                        nft::turn(interception, family, false, &self.exempt).await?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// SYNs of `family` that were refused in the kernel since the start.
    pub async fn refused_syns(&self, family: Family) -> u64 {
        match &self.by {
            #[cfg(feature = "ebpf")]
            By::SkLookup(lookup) => lookup.refused(family),
            By::Nft { counted, admits, .. } => {
                let before = counted[family as usize];
                if admits[family as usize] {
                    return before;
                }
                before + refused_by_rule(family).await.unwrap_or_default()
            }
            By::Smtp => 0,
        }
    }
}

/// What the rule of a closed door has counted.
async fn refused_by_rule(family: Family) -> Option<u64> {
    let chains = nft::list().await.ok().flatten()?;
    let chain = chains.into_iter().find(|chain| chain.name == ruleset::door(family))?;
    chain.rules.last().map(|rule| rule.packets)
}
