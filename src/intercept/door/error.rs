//! Errors of the door in the kernel.

use crate::intercept::error::InterceptError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DoorError {
    #[error(
        "refusing at the SYN needs {}, which this process lacks: give the program \
         `setcap cap_bpf,cap_net_admin+ep`, or its systemd unit \
         `AmbientCapabilities=CAP_BPF CAP_NET_ADMIN`, or run it as root",
        missing.join(" and ")
    )]
    Rights {
        /// As in capabilities(7).
        missing: Vec<&'static str>,
    },
    #[error(
        "the kernel cannot {action}: {reason}; refusing at the SYN needs Linux 5.9 or later with \
         CONFIG_BPF_SYSCALL"
    )]
    Kernel { action: &'static str, reason: String },
    #[error("this gatepost was built without the feature `ebpf`, which refuses at the SYN")]
    NotBuilt,
    #[error(transparent)]
    Nft(#[from] InterceptError),
}
