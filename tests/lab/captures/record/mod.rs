//! Records the cases, one test each, run by `make captures`. Each makes its sessions in the lab with real peers and passes
//! the recording to [`Case::write`](super::cases::Case).

pub(crate) mod dialogues;
pub(crate) mod families;
pub(crate) mod gateway;
pub(crate) mod incomplete;
