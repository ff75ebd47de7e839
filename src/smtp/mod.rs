//! SMTP as bytes: commands, paths, replies, the data scanner, EHLO keywords, and the session machine that pairs both directions.
//!
//! Layer 1: no clock, no socket, no policy. RFC 5321, with 1870 (SIZE), 2034 (enhanced codes), 2920 (PIPELINING), 3030
//! (CHUNKING), 3207 (STARTTLS), 3461 (DSN), 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8). "Need more bytes" is never the
//! same result as "wrong", and no parser here panics or indexes unchecked.

#![warn(clippy::indexing_slicing)]

mod command;
mod data;
mod ehlo;
mod enhanced;
mod expected_reply;
mod header_filter;
mod line;
mod path;
mod reply;
mod session;
mod transaction;
mod xclient;

pub use command::{BdatError, Chunk, Command, Junk, Verb};
pub use data::{BareNewlines, DataScanner, Piece, ScanFindings};
pub use ehlo::{Extensions, Keyword};
pub use enhanced::EnhancedCode;
pub use expected_reply::{ExpectedReply, OwnCommand};
pub use header_filter::{HeaderFilter, HeaderPiece};
pub use line::{Ending, Line, Split, normalized};
pub use path::{EnvelopeArgument, PathError, PathKind, Rerouting};
pub use reply::{MAX_REPLY, OwnReply, Reply, ReplyParse};
pub use session::{ChunkProgress, ClientEvent, ServerEvent, Session, Wait};
pub use transaction::{Helo, Recipient, SessionState, TlsState, Transaction};
pub use xclient::{XclientAttributes, XclientName, XclientNames, XclientOffer};

/// The port of SMTP inside TLS from the first octet (RFC 8314 §3.3).
pub const SUBMISSIONS: u16 = 465;
