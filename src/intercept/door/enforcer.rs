//! Opens and closes the doors by one of three mechanisms.

use std::net::SocketAddr;

use rustix::thread::CapabilitySet;

use super::error::DoorError;
use super::refuse_method::RefuseMethod;
#[cfg(feature = "ebpf")]
use super::sk_lookup::{self, SkLookupDoor};
use crate::addr::{Family, Networks};
use crate::intercept::settings::REQUIRED_CAPABILITIES;
use crate::intercept::{SharedInterception, nft, ruleset};

/// The capabilities that changing a door needs after [`DoorEnforcer::start`]: one of each set. With interception, those of
/// the interception.
pub fn required_capabilities(method: RefuseMethod, intercepts: bool) -> Vec<CapabilitySet> {
    match method {
        RefuseMethod::Smtp => Vec::new(),
        RefuseMethod::Syn if intercepts => vec![REQUIRED_CAPABILITIES],
        #[cfg(feature = "ebpf")]
        RefuseMethod::Syn => sk_lookup::required_capabilities().into_iter().collect(),
        #[cfg(not(feature = "ebpf"))]
        RefuseMethod::Syn => Vec::new(),
    }
}

/// How sessions arrive.
#[derive(Clone)]
pub enum Ingress {
    /// At the gateway's own listeners, as bound.
    Listeners(Vec<SocketAddr>),
    /// By an interception, which may not be installed yet.
    Intercepted(SharedInterception),
}

/// Closes and opens the doors of both families. After a drop it refuses nothing; the rules of an interception are removed
/// with the interception.
pub struct DoorEnforcer {
    mechanism: Mechanism,
    exempt: Networks,
}

enum Mechanism {
    #[cfg(feature = "ebpf")]
    SkLookup(Box<SkLookupDoor>),
    Nft {
        interception: SharedInterception,
        /// By family: the counts of removed rules.
        counted: [u64; 2],
        admits: [bool; 2],
    },
    Smtp,
}

impl DoorEnforcer {
    /// Starts with both doors open. If the kernel cannot refuse, returns an enforcer that leaves it to the relay, and the
    /// error.
    pub fn start(
        method: RefuseMethod,
        exempt: Networks,
        ingress: Ingress,
    ) -> (Self, Option<DoorError>) {
        let mechanism = match (method, ingress) {
            (RefuseMethod::Smtp, _) => Ok(Mechanism::Smtp),
            (RefuseMethod::Syn, Ingress::Intercepted(interception)) => {
                Ok(Mechanism::Nft { interception, counted: [0; 2], admits: [true; 2] })
            }
            #[cfg(feature = "ebpf")]
            (RefuseMethod::Syn, Ingress::Listeners(addresses)) => {
                SkLookupDoor::start(&addresses, &exempt)
                    .map(|door| Mechanism::SkLookup(Box::new(door)))
            }
            #[cfg(not(feature = "ebpf"))]
            (RefuseMethod::Syn, Ingress::Listeners(_)) => Err(DoorError::NotBuilt),
        };
        match mechanism {
            Ok(mechanism) => (Self { mechanism, exempt }, None),
            Err(error) => (Self { mechanism: Mechanism::Smtp, exempt }, Some(error)),
        }
    }

    /// The method in use.
    pub const fn method(&self) -> RefuseMethod {
        match self.mechanism {
            Mechanism::Smtp => RefuseMethod::Smtp,
            _ => RefuseMethod::Syn,
        }
    }

    /// Networks that a closed door admits. With [`RefuseMethod::Smtp`] the relay has to admit them.
    pub const fn exempt(&self) -> &Networks {
        &self.exempt
    }

    /// Admits or refuses new sessions of `family` from now on. Does nothing with [`RefuseMethod::Smtp`].
    ///
    /// # Errors
    /// The kernel refuses; the door is unchanged.
    pub async fn set(&mut self, family: Family, admits: bool) -> Result<(), DoorError> {
        match &mut self.mechanism {
            #[cfg(feature = "ebpf")]
            Mechanism::SkLookup(door) => door.set(family, admits),
            Mechanism::Nft { interception, counted, admits: current } => {
                // The change removes the rule, with its counter.
                let removed = refused_by_rule(family).await.unwrap_or_default();
                interception.lock().await.set_door(family, admits, &self.exempt).await?;
                counted[family as usize] += removed;
                current[family as usize] = admits;
                Ok(())
            }
            Mechanism::Smtp => Ok(()),
        }
    }

    /// Adapts to new listeners. An interception keeps its doors itself.
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn update(&mut self, ingress: Ingress) -> Result<(), DoorError> {
        match (&mut self.mechanism, ingress) {
            #[cfg(feature = "ebpf")]
            (Mechanism::SkLookup(door), Ingress::Listeners(addresses)) => {
                door.set_listeners(&addresses)
            }
            _ => Ok(()),
        }
    }

    /// Number of SYNs of `family` that the kernel refused since the start.
    pub async fn refused_syns(&self, family: Family) -> u64 {
        match &self.mechanism {
            #[cfg(feature = "ebpf")]
            Mechanism::SkLookup(door) => door.refused_syns(family),
            Mechanism::Nft { counted, admits, .. } => {
                let removed = counted[family as usize];
                if admits[family as usize] {
                    return removed;
                }
                removed + refused_by_rule(family).await.unwrap_or_default()
            }
            Mechanism::Smtp => 0,
        }
    }
}

/// The counter of a closed door's rule.
async fn refused_by_rule(family: Family) -> Option<u64> {
    let chains = nft::list().await.ok().flatten()?;
    let chain = chains.into_iter().find(|chain| chain.name == ruleset::door(family))?;
    chain.rules.last().map(|rule| rule.packets)
}
