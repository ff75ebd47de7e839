//! Where packets come from: files now; live capture and eBPF behind the same trait.

use crate::wire::Packet;

/// A supply of packets in the order in which they were captured.
pub trait PacketSource {
    /// What may go wrong; said once, the packets before it are good.
    type Error;

    /// The next packet; `None` at the end.
    fn next(&mut self) -> Result<Option<Packet<'_>>, Self::Error>;
}
