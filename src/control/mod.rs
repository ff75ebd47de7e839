//! The control socket: other `gatepost` commands on this host send requests to a running gateway.
//!
//! Layer 4. A Unix socket that only its owner may use (mode 0600). A client sends one [`ControlRequest`] as a line of JSON and
//! reads one [`ControlResponse`] as a line of JSON; the data after an `ok` depends on the request. This module does not
//! interpret requests: `app` passes a handler to [`ControlListener::serve`].

mod client;
mod error;
mod listener;
mod protocol;

pub use self::client::request;
pub use self::error::ControlError;
pub use self::listener::{ControlConnection, ControlListener};
pub use self::protocol::{
    CacheRequest, ControlRequest, ControlResponse, ControlSettings, DEFAULT_SOCKET, DoorChange,
};
