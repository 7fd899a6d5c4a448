//! What can go wrong with the data plane.
use std::{io, net::SocketAddr, path::PathBuf};

use aya::{EbpfError, programs::ProgramError};

use super::{Attach, LayoutError, MapFailure};

/// What can go wrong with the data plane.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The pin directory is not on a bpffs, or cannot be made.
    #[error("{path}: {source}; is a bpffs mounted there (`mount -t bpf bpf /sys/fs/bpf`)?")]
    PinDirectory {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A pin cannot be made or removed.
    #[error("{path}: {source}")]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The object cannot be loaded.
    #[error("loading the kernel programs: {source}; canary needs Linux 5.15, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Load {
        /// What the kernel said.
        source: Box<EbpfError>,
    },
    /// A program is refused.
    #[error("program {program}: {source}")]
    Program {
        /// Its name.
        program: &'static str,
        /// What the kernel said, the verifier's log included.
        source: Box<ProgramError>,
    },
    /// There is no such interface.
    #[error("interface {interface} is not there: `ip link` lists those that are")]
    NoInterface {
        /// Its name.
        interface: String,
    },
    /// There is no such cgroup.
    #[error("there is no cgroup {path}: `findmnt -t cgroup2` shows where they are")]
    NoCgroup {
        /// Its directory.
        path: String,
    },
    /// Its packets have no Ethernet header, which the programs begin with.
    #[error(
        "interface {interface} carries no Ethernet frames (hardware type {kind}): attach to the one that its packets come by, or go on by"
    )]
    NotEthernet {
        /// Its name.
        interface: String,
        /// `ARPHRD_*` of `linux/if_arp.h`; 65534 is a tunnel's.
        kind: u16,
    },
    /// A program cannot be attached.
    #[error("attaching to {}: {source}", .attach.interface)]
    Attach {
        /// Where.
        attach: Attach,
        /// What the kernel said.
        source: Box<ProgramError>,
    },
    /// A map cannot be used.
    #[error(transparent)]
    Map(#[from] MapFailure),
    /// The state does not fit. Nothing was written.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Client and virtual address of a probe are of different families.
    #[error("{from} and {to} are not of one address family")]
    Families {
        /// Client.
        from: SocketAddr,
        /// Virtual address.
        to: SocketAddr,
    },
}
