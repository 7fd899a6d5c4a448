//! The kernel's side of the agent: loads or adopts the programs, observes the maps, writes plans. Only module with aya.
mod address;
mod attach;
mod clsact;
mod device;
mod layout;
mod maps;
mod observe;
mod plan;
mod slots;
mod tables;
mod trace;
mod write;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    programs::{Program, ProgramError},
};
use canary_common::abi;
use serde::{Deserialize, Serialize};

pub use self::{layout::LayoutError, maps::MapFailure};
use self::{layout::Names, maps::Maps};
use crate::state::{Frontend, Protocol, ServiceId, State};

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
}

/// One `--attach xdp:eth0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attach {
    /// Where.
    pub hook: Hook,
    /// Interface name.
    pub interface: String,
}

/// What an [`Attach`] became.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// What was asked for.
    #[serde(flatten)]
    pub attach: Attach,
    /// How it was done: `native`, `generic`, `tcx` or `clsact`.
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
    /// Half-open and closing flows, in seconds.
    pub transient_seconds: u32,
}

impl Default for IdleTimeouts {
    fn default() -> Self {
        Self { tcp_seconds: 7_440, udp_seconds: 60, transient_seconds: 30 }
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
    /// Splits in force.
    pub splits: Vec<SplitCounts>,
    /// Packets left alone, by reason: every reason, also at zero.
    pub leaves: BTreeMap<&'static str, u64>,
}

/// Counters of one endpoint and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct EndpointCounts {
    /// Flows, packets, bytes.
    #[serde(flatten)]
    pub counts: Counts,
    /// Seconds until its remaining flows end; `None` while it gets new ones.
    pub drains_for_seconds: Option<u32>,
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

/// What [`Dataplane::apply`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Map writes.
    pub operations: usize,
    /// How long they took, in microseconds.
    pub micros: u64,
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

/// The loaded programs, their maps and links.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    links: PathBuf,
    names: Names,
    attached: Vec<Attached>,
    /// The last plan gave something up that a program may still be reading.
    grace_due: bool,
}

/// Directory of a layout's pins: another layout is another directory.
fn layout_directory(pin: &Path) -> PathBuf {
    pin.join(format!("v{}", abi::LAYOUT))
}

impl Dataplane {
    /// Loads the programs, or adopts the maps and links pinned by an earlier agent: its flows go on.
    ///
    /// # Errors
    /// When there is no bpffs, or the kernel refuses a map or a program.
    pub fn open(settings: &Settings) -> Result<Self, DataplaneError> {
        let dir = layout_directory(&settings.pin);
        let (links, programs) = (dir.join("links"), dir.join("programs"));
        for path in [&links, &programs] {
            let made = std::fs::create_dir_all(path);
            made.map_err(|source| DataplaneError::PinDirectory { path: path.clone(), source })?;
        }
        let mut loader = EbpfLoader::new();
        for name in maps::PINNED {
            loader.map_pin_path(name, dir.join(name));
        }
        let mut ebpf = loader
            .map_max_entries("FLOWS", settings.capacity.flows.saturating_mul(2))
            .map_max_entries("TRANSIENT", settings.capacity.transient_flows.saturating_mul(2))
            .load(OBJECT)
            .map_err(|source| DataplaneError::Load { source: Box::new(source) })?;
        load(&mut ebpf, &programs)?;
        let trace = ebpf.take_map("TRACE").ok_or_else(|| DataplaneError::Pin {
            path: dir.join("TRACE"),
            source: io::Error::from(io::ErrorKind::NotFound),
        })?;
        let mut maps = Maps::open(&dir, trace)?;
        for (name, wanted) in [("FLOWS", settings.capacity.flows), ("TRANSIENT", settings.capacity.transient_flows)] {
            let entries = maps.capacity(name)?;
            if entries != wanted.saturating_mul(2) {
                tracing::warn!(
                    "map {name} was made by an earlier agent for {} flows and stays so: \
                     {wanted} take effect after `canary detach`, which ends all flows",
                    entries / 2
                );
            }
        }
        let idle = &settings.idle;
        let ticks = abi::Settings {
            tcp_ticks: layout::ticks(idle.tcp_seconds),
            udp_ticks: layout::ticks(idle.udp_seconds),
            transient_ticks: layout::ticks(idle.transient_seconds),
            pad: 0,
        };
        maps.settings.set(0, &ticks)?;
        Ok(Self { ebpf, maps, links, names: Names::default(), attached: Vec::new(), grace_due: true })
    }

    /// Attaches to exactly these interfaces: adopts or replaces what is there, detaches what is no longer asked for.
    ///
    /// # Errors
    /// When an interface is missing or the kernel refuses; what was attached before stays then.
    pub fn attach(&mut self, wanted: &[Attach]) -> Result<Vec<Attached>, DataplaneError> {
        self.attached = attach::attach(&mut self.ebpf, &self.links, wanted)?;
        Ok(self.attached.clone())
    }

    /// Observes the maps, compares them with `wanted` and writes the difference.
    ///
    /// # Errors
    /// A state that does not fit is refused before anything is written. A write that fails leaves a prefix of the plan,
    /// which is sound, and which the next pass completes.
    pub fn apply(&mut self, wanted: &State) -> Result<Applied, DataplaneError> {
        let begin = Instant::now();
        let observed = self.maps.observe()?;
        let (tables, names) = layout::lower(&observed, wanted, now())?;
        let ops = plan::diff(&observed, &tables);
        // Slots that the last plan gave up may be written now only if no program still reads them.
        if self.grace_due && !ops.is_empty() {
            maps::grace_period();
            self.grace_due = false;
        }
        for op in &ops {
            self.maps.write(op)?;
            self.grace_due = true;
        }
        self.names = names;
        Ok(Applied { operations: ops.len(), micros: u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX) })
    }

    /// The writes that `apply` would make, one line each; writes nothing.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn plan(&self, wanted: &State) -> Result<Vec<String>, DataplaneError> {
        let observed = self.maps.observe()?;
        let (tables, _) = layout::lower(&observed, wanted, now())?;
        Ok(plan::diff(&observed, &tables).iter().map(ToString::to_string).collect())
    }

    /// Differences between `wanted` and what the maps hold, one sentence each; empty when they agree.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn verify(&self, wanted: &State) -> Result<Vec<String>, DataplaneError> {
        let missing = self.plan(wanted)?;
        let dangling = self.maps.observe()?.dangling().map(|it| format!("a dangling reference: {it}"));
        Ok(dangling.into_iter().chain(missing.into_iter().map(|op| format!("not in the maps yet: {op}"))).collect())
    }

    /// All counters.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        Ok(self.maps.counters(&self.names, now())?)
    }

    /// Up to `limit` flows.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn flows(&self, limit: usize) -> Result<Vec<FlowRecord>, DataplaneError> {
        Ok(self.maps.flows(&self.names, limit, now())?)
    }

    /// Runs the loaded program on a packet without any effect on maps or traffic.
    ///
    /// # Errors
    /// When the addresses do not go together, or the kernel refuses to run it.
    pub fn trace(&mut self, probe: Probe) -> Result<Trace, DataplaneError> {
        trace::run(&self.ebpf, &mut self.maps, &self.names, probe)
    }

    /// Memory of every map, as the kernel accounts it.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn memory(&self) -> Result<Vec<MapMemory>, DataplaneError> {
        trace::memory(&self.ebpf)
    }

    /// What is attached now.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        self.attached.clone()
    }
}

/// Loads and pins the programs. The pins are for tools (`bpftool prog`, the yardstick); links hold programs by themselves.
fn load(ebpf: &mut Ebpf, programs: &Path) -> Result<(), DataplaneError> {
    for program in ["canary_xdp", "canary_trace", "canary_in", "canary_out"] {
        let refused = |source| DataplaneError::Program { program, source: Box::new(source) };
        let path = programs.join(program);
        let _ = std::fs::remove_file(&path);
        let pinned = match ebpf.program_mut(program) {
            Some(Program::Xdp(it)) => it.load().map_err(refused).map(|()| it.pin(&path)),
            Some(Program::SchedClassifier(it)) => it.load().map_err(refused).map(|()| it.pin(&path)),
            _ => return Err(refused(ProgramError::NotLoaded)),
        }?;
        pinned.map_err(|error| DataplaneError::Pin { path, source: io::Error::other(error) })?;
    }
    Ok(())
}

/// Ticks since boot, by the clock that the programs read.
fn now() -> u32 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    u32::try_from(nanos >> abi::TICK_SHIFT).unwrap_or(u32::MAX)
}

/// Removes programs, maps and links pinned under `pin`, links first. Says what it removed.
///
/// # Errors
/// When a pin cannot be removed.
pub fn detach(pin: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let mut removed = Vec::new();
    let layouts = attach::pins(pin).into_iter().filter(|(name, path)| name.starts_with('v') && path.is_dir());
    for (_, layout) in layouts {
        for directory in [layout.join("links"), layout.join("programs"), layout] {
            for (name, path) in attach::pins(&directory).into_iter().filter(|(_, path)| !path.is_dir()) {
                attach::unlink(&name, &path)?;
                removed.push(path);
            }
            // One that others put something into stays.
            let _ = std::fs::remove_dir(directory);
        }
    }
    let _ = std::fs::remove_dir(pin);
    Ok(removed)
}

/// The compiled kernel programs, as built by `build.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/canary.bpf.o"));
