//! The user and the capabilities of this process (capabilities(7), credentials(7)), and dropping them.
//!
//! Layer 4. Both belong to a thread and are inherited by new threads: call these functions while the process has one thread,
//! in this order: [`User::assume`] or [`limit_to_setup`] before any file is opened, so that files that open at the start also
//! open later; then the privileged set-up; then [`limit_to`].

mod capabilities;
mod error;
mod user;

pub use self::capabilities::{limit_to, limit_to_setup, names, narrowest, permitted};
pub use self::error::PrivilegeError;
pub use self::user::{User, join_group};
