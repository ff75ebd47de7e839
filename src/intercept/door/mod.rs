//! The door in the kernel: refuses new sessions of a family whose door is closed.
//!
//! At the SYN, so that a sender gets "connection refused" at once and retries over the other family: an sk_lookup program
//! rejects for the gateway's own listeners (Linux 5.9), a rule of our nftables table for intercepted mail. Either disappears,
//! or refuses nothing, when the gateway is dead. If the kernel cannot refuse, the relay refuses by 421.
//!
//! At the SYN only the family of the socket is known: behind proxies that use the PROXY protocol, set `refuse = "smtp"` to
//! refuse by the family of the client. Sessions in progress are not affected.

mod enforcer;
mod error;
mod refuse_method;
#[cfg(feature = "ebpf")]
mod sk_lookup;

pub use self::enforcer::{DoorEnforcement, DoorEnforcer, Ingress, required_capabilities};
pub use self::error::DoorError;
pub use self::refuse_method::RefuseMethod;
