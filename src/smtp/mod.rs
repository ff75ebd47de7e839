//! SMTP as bytes: commands, replies, the data scanner, EHLO keywords. No state beyond what one line or message needs.
//!
//! Layer 1. RFC 5321, with 1870 (SIZE), 2034 (enhanced codes), 2920 (PIPELINING), 3030 (CHUNKING), 3207 (STARTTLS), 3461
//! (DSN), 4954 (AUTH), 6152 (8BITMIME), 6531 (SMTPUTF8). "Need more bytes" is never the same result as "wrong", and no
//! parser here panics or indexes unchecked.

mod command;
mod ehlo;
mod enhanced;

pub use command::Verb;
pub use ehlo::Keyword;
pub use enhanced::EnhancedCode;
