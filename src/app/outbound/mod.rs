//! Our own mail to other hosts: what the mail log proves about them, the answers to Postfix's questions about their A and AAAA
//! records, and the addresses that the kernel resets for other MTAs. `gatepost outbound`.

mod command;
mod evidence;
mod expire;
mod mail_log;
mod recent_hosts;
mod requeue;
mod reset_record;
mod resets;
mod service;
mod steering;

pub(super) use self::command::{outbound, serve};
pub(super) use self::evidence::OutboundEvidence;
pub(super) use self::expire::expire;
pub(super) use self::service::OutboundService;
