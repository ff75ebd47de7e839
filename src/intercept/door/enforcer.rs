//! Opens and closes the doors by one of three mechanisms.

use std::net::SocketAddr;

use rustix::thread::CapabilitySet;

use super::error::DoorError;
use super::refuse_method::RefuseMethod;
#[cfg(feature = "ebpf")]
use super::sk_lookup::{self, SkLookupDoor};
use crate::addr::{Family, Networks};
use crate::intercept::SharedInterception;
use crate::intercept::settings::REQUIRED_CAPABILITIES;

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
    /// By which sessions arrive.
    interception: Option<SharedInterception>,
}

enum Mechanism {
    #[cfg(feature = "ebpf")]
    SkLookup(Box<SkLookupDoor>),
    Nft(SharedInterception),
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
        let interception = match &ingress {
            Ingress::Intercepted(interception) => Some(SharedInterception::clone(interception)),
            Ingress::Listeners(_) => None,
        };
        let mechanism = match (method, ingress) {
            (RefuseMethod::Smtp, _) => Ok(Mechanism::Smtp),
            (RefuseMethod::Syn, Ingress::Intercepted(interception)) => {
                Ok(Mechanism::Nft(interception))
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
            Ok(mechanism) => (Self { mechanism, exempt, interception }, None),
            Err(error) => (Self { mechanism: Mechanism::Smtp, exempt, interception }, Some(error)),
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
            Mechanism::Nft(interception) => {
                Ok(interception.lock().await.set_door(family, admits, &self.exempt).await?)
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

    /// Reads from the kernel whether closed doors are enforced, and what they refused.
    pub async fn enforcement(&self) -> DoorEnforcement {
        let mut enforcement = DoorEnforcement { refused_syns: [0; 2], in_force: [true; 2] };
        if let Some(interception) = &self.interception {
            let mut interception = interception.lock().await;
            // What cannot be read now was read before.
            let _unreadable = interception.count().await;
            enforcement.in_force = match &self.mechanism {
                Mechanism::Smtp => [interception.has_table(); 2],
                _ => Family::ALL.map(|family| interception.refuses(family)),
            };
            enforcement.refused_syns = Family::ALL.map(|family| interception.refused_syns(family));
        }
        #[cfg(feature = "ebpf")]
        if let Mechanism::SkLookup(door) = &self.mechanism {
            enforcement.refused_syns = Family::ALL.map(|family| door.refused_syns(family));
        }
        enforcement
    }
}

/// By `family as usize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorEnforcement {
    /// SYNs that the kernel refused since the start.
    pub refused_syns: [u64; 2],
    /// Of a closed door, whether it refuses sessions: not while the interception is gone, for mail does not reach the gateway.
    pub in_force: [bool; 2],
}
