//! What the data plane is told, and what it tells: plain data.
use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::state::{Frontend, Protocol, ServiceId};

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// XDP at ingress (and TC at egress for the way back).
    Xdp,
    /// TC at ingress and egress: TCX, or clsact where the kernel has no TCX (before 6.6).
    Tc,
    /// TC by clsact filters, whatever the kernel has.
    Clsact,
    /// Sockets of the processes in a cgroup.
    Cgroup,
}

/// One `--attach xdp:eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attach {
    /// Where.
    pub hook: Hook,
    /// Name of the interface, or path of the cgroup.
    pub interface: String,
}

impl Attach {
    /// Whether it is for every interface whose name is like this: `lxc*`.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.hook != Hook::Cgroup && self.interface.contains('*')
    }

    /// The same for one interface, if the pattern is for it.
    #[must_use]
    pub fn of(&self, interface: &str) -> Option<Self> {
        let (start, end) = self.interface.split_once('*')?;
        let rest = interface.strip_prefix(start)?;
        rest.ends_with(end).then(|| Self { hook: self.hook, interface: interface.to_owned() })
    }
}

/// What an [`Attach`] became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// What was asked for.
    #[serde(flatten)]
    pub attach: Attach,
    /// How it was done: `native`, `generic`, `tcx`, `clsact` or `sockets`.
    pub mode: String,
    /// A link that an earlier agent pinned was taken over.
    pub adopted: bool,
    /// What the user should know, such as "veth hands over unfinished checksums".
    pub warning: Option<String>,
}

/// Capacities of the maps; a change needs new maps (and migrates nothing yet).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capacity {
    /// Established flows (each takes two entries: one a direction).
    pub flows: u32,
    /// Flows that are half-open or closing.
    pub transient_flows: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { flows: 1 << 20, transient_flows: 1 << 17 }
    }
}

/// Idle times after which a flow counts as ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdleTimeouts {
    /// Established TCP, in seconds.
    pub tcp_seconds: u32,
    /// UDP, in seconds.
    pub udp_seconds: u32,
    /// Half-open and closing flows, in seconds. Above 64: Linux repeats a SYN for the last time 32 s after the one before, at
    /// 63 s, and a repeated SYN must not draw again.
    pub transient_seconds: u32,
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self { tcp_seconds: 7_440, udp_seconds: 60, transient_seconds: 75 }
    }
}

/// How to open the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Directory on a bpffs for pins, such as `/sys/fs/bpf/canary`.
    pub pin: PathBuf,
    /// Capacities.
    pub capacity: Capacity,
    /// Idle times.
    pub idle: IdleTimeouts,
    /// Clients' packets go straight to endpoints behind a veth, past the stack.
    pub direct: bool,
    /// There is a proxy, which must be told where connections of sockets were meant to go.
    pub proxy: bool,
    /// What becomes of connections of sockets is counted.
    pub connections: bool,
}

/// Flows, packets and bytes. `in` is from clients to endpoints, `out` the way back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// New flows.
    pub flows: u64,
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients, whole frames.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients, whole frames.
    pub bytes_out: u64,
}

/// What became of TCP connections that sockets have made to a version: of all since its maps were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Connections {
    /// Begun.
    pub begun: u64,
    /// Established.
    pub established: u64,
    /// Ended before they were established.
    pub failed: u64,
    /// Ended after that; what follows is of these.
    pub ended: u64,
    /// Open ones to endpoints that take no new ones.
    pub draining: u64,
    /// Segments that clients had to send again; of those that failed, too.
    pub retransmits: u64,
    /// Bytes from clients, without headers.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Sum of the round-trip times (smoothed, at the end), in microseconds.
    pub rtt_micros: u64,
    /// Sum of the times that it took to be established, in microseconds.
    pub handshake_micros: u64,
    /// Those times by classes: (longest of the class in microseconds, connections); `None` has no end.
    pub handshakes: Vec<(Option<u64>, u64)>,
}

impl Connections {
    /// Established and not ended.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.established.saturating_sub(self.ended)
    }
}

/// What one split did since its weights were last changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitCounts {
    /// The service.
    pub service: ServiceId,
    /// Index of the rule in the service.
    pub rule: usize,
    /// Indices drawn (exact) or choices made (keyed) since the weights were last changed.
    pub draws: u64,
    /// (version, programmed weight, flows it got) in order of names.
    pub versions: Vec<(String, u32, u64)>,
}

/// Counters of the whole data plane at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By service and version.
    pub versions: BTreeMap<(ServiceId, String), Counts>,
    /// By service, version and endpoint; also those that drain.
    pub endpoints: BTreeMap<(ServiceId, String, SocketAddr), EndpointCounts>,
    /// TCP connections of sockets by service and version; empty if they are not counted.
    pub connections: BTreeMap<(ServiceId, String), Connections>,
    /// Splits in force.
    pub splits: Vec<SplitCounts>,
    /// Packets left alone, by reason: every reason, also at zero.
    pub leaves: BTreeMap<&'static str, u64>,
}

/// Counters of one endpoint and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointCounts {
    /// Flows, packets, bytes.
    #[serde(flatten)]
    pub counts: Counts,
    /// Seconds until its remaining flows end; `None` while it gets new ones.
    pub drains_for_seconds: Option<u32>,
    /// The device by which clients' packets go straight to it, past the stack.
    pub direct: Option<String>,
}

/// One entry of the flow table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlowRecord {
    /// Client.
    pub client: SocketAddr,
    /// Virtual address.
    pub frontend: Frontend,
    /// Endpoint.
    pub endpoint: SocketAddr,
    /// Service, when it is still known.
    pub service: Option<ServiceId>,
    /// Version, when it is still known.
    pub version: Option<String>,
    /// `half-open`, `established` or `closing`.
    pub state: &'static str,
    /// Seconds since its last packet (coarse).
    pub idle_seconds: u32,
}

/// What [`Dataplane::apply`](super::Dataplane::apply) did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Map writes.
    pub operations: usize,
    /// How long they took, in microseconds.
    pub micros: u64,
    /// Services that have no room as they are wanted. They keep what they had, all of it, and try again.
    pub refused: Vec<Refused>,
}

/// What [`Dataplane::apply`](super::Dataplane::apply) would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Map writes, one line each.
    pub operations: Vec<String>,
    /// As in [`Applied`].
    pub refused: Vec<Refused>,
}

/// A service that the data plane did not take as it was wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Which.
    pub service: ServiceId,
    /// Why: what is full, or too large.
    pub why: String,
    /// It keeps what it had; otherwise nothing is in force for it.
    pub kept: bool,
}

/// A packet to trace: what a client would send first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Client address and port.
    pub from: SocketAddr,
    /// Virtual address and port.
    pub to: SocketAddr,
    /// Protocol.
    pub protocol: Protocol,
    /// Trace the flow after so many other new ones (exact splits); 0 is the next one.
    pub ahead: u32,
}

/// What the loaded kernel program says about a [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// The service, if one answers there.
    pub service: Option<ServiceId>,
    /// Index of the rule that matched.
    pub rule: Option<usize>,
    /// The version.
    pub version: Option<String>,
    /// The endpoint.
    pub endpoint: Option<SocketAddr>,
    /// The place in the split's sequence that this flow would draw (exact).
    pub draw: Option<u64>,
    /// The flow is known already and keeps its endpoint.
    pub known: bool,
    /// Why the packet is left alone, if it is.
    pub leave: Option<&'static str>,
}

/// Memory of one map, in bytes, as the kernel accounts it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MapMemory {
    /// Name of the map.
    pub name: String,
    /// Capacity in entries.
    pub entries: u32,
    /// Bytes.
    pub bytes: u64,
}
