//! How the cases are recorded: one test a case, run by `make captures`. Each plays its scene in the lab with real
//! peers and hands the recording to [`Case::write`](super::cases::Case).

pub(crate) mod dialogues;
pub(crate) mod families;
pub(crate) mod gateway;
pub(crate) mod incomplete;
