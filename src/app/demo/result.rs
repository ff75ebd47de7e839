//! The result of one client's session.
//!
//! Layer 5.

use super::dialogue::ClientView;
use super::mailbox::StoredMessage;
use crate::engine::SessionRecord;

/// One session, as seen by the client, the gateway and the MTA.
#[derive(Debug)]
pub(super) struct ClientResult {
    /// Or why the client reached no server.
    pub view: Result<ClientView, String>,
    pub record: Option<SessionRecord>,
    pub arrived: Vec<StoredMessage>,
}
