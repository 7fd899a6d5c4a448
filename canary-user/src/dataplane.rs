//! The kernel's side of the agent: loads or adopts the programs, observes the maps, writes plans. Only module with aya.
mod address;
mod attach;
mod cgroup;
mod clients;
mod clsact;
mod connections;
mod device;
mod direct;
mod error;
mod filters;
mod layout;
mod maps;
mod observe;
mod origins;
mod pins;
mod plan;
mod report;
mod slots;
pub mod survey;
mod tables;
mod trace;
mod write;

use std::{
    io,
    mem::offset_of,
    path::{Path, PathBuf},
    time::Instant,
};

use aya::{
    Ebpf, EbpfLoader,
    programs::{Program, ProgramError},
};
use canary_common::abi;

use self::{
    cgroup::Also,
    clients::Clients,
    direct::{Direct, DirectError},
    layout::{Lowered, Names},
    maps::Maps,
    tables::Tables,
};
pub use self::{
    direct::Changes,
    error::DataplaneError,
    layout::LayoutError,
    maps::MapFailure,
    origins::Origins,
    pins::detach,
    report::{
        Applied, Attach, Attached, Capacity, Connections, Counters, Counts, EndpointCounts, FlowRecord, Hook,
        IdleTimeouts, MapMemory, Plan, Probe, Refused, Settings, SplitCounts, Trace,
    },
};
use crate::state::State;

/// The loaded programs, their maps and links.
#[derive(Debug)]
pub struct Dataplane {
    ebpf: Ebpf,
    maps: Maps,
    links: PathBuf,
    names: Names,
    attached: Vec<attach::Standing>,
    clients: Clients,
    /// Who says what leads straight to endpoints, if that is asked for.
    direct: Option<Direct>,
    wants_direct: bool,
    also: Also,
    /// The directory of all pins, while agents of other layouts may have left something in it.
    shared_with: Option<PathBuf>,
    /// Everything that is wanted is attached.
    complete: bool,
    /// The last plan gave something up that a program may still be reading.
    grace_due: bool,
}

/// `f_type` of a bpffs: `BPF_FS_MAGIC` of linux/magic.h.
const BPFFS: u64 = 0xcafe_4a11;

impl From<layout::Rejected> for Refused {
    fn from(layout::Rejected { service, error, kept }: layout::Rejected) -> Self {
        Self { service, why: error.to_string(), kept }
    }
}

impl Dataplane {
    /// Loads the programs, or adopts the maps and links pinned by an earlier agent: its flows go on.
    ///
    /// # Errors
    /// When there is no bpffs, or the kernel refuses a map or a program.
    pub fn open(settings: &Settings) -> Result<Self, DataplaneError> {
        let dir = pins::layout_directory(&settings.pin);
        let (links, programs) = (dir.join("links"), dir.join("programs"));
        for path in [&links, &programs] {
            let made = std::fs::create_dir_all(path);
            made.map_err(|source| DataplaneError::PinDirectory { path: path.clone(), source })?;
        }
        if !rustix::fs::statfs(&dir).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(BPFFS)) {
            let source = io::Error::other("not on a bpffs");
            return Err(DataplaneError::PinDirectory { path: dir, source });
        }
        if !settings.connections {
            pins::forget_connections(&dir);
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
            direct_until: 0,
        };
        maps.settings.set(0, &ticks)?;
        Ok(Self {
            ebpf,
            maps,
            links,
            names: Names::default(),
            attached: Vec::new(),
            clients: Clients::default(),
            direct: None,
            wants_direct: settings.direct,
            also: Also { proxy: settings.proxy, connections: settings.connections },
            shared_with: Some(settings.pin.clone()),
            complete: false,
            grace_due: true,
        })
    }

    /// Attaches to exactly these interfaces: adopts or replaces what is there, detaches what is no longer asked for. Says
    /// what each became, in their order; one that is missing, or that the kernel refuses, does not keep others from
    /// theirs, and what it had stays. What this agent has attached already is left alone. More errors at the end are of links that cannot be removed.
    pub fn attach(&mut self, wanted: &[Attach]) -> Vec<Result<Attached, DataplaneError>> {
        let became = attach::attach(&mut self.ebpf, &self.links, wanted, self.also, &mut self.attached);
        self.complete = became.iter().all(Result::is_ok);
        became
    }

    /// Observes the maps, compares them with `wanted` and writes the difference.
    ///
    /// # Errors
    /// An unsound state is refused before anything is written. A write that fails leaves a prefix of the plan, which is
    /// sound, and which the next pass completes. A service that does not fit is no error: see [`Applied::refused`].
    pub fn apply(&mut self, wanted: &State) -> Result<Applied, DataplaneError> {
        let begin = Instant::now();
        let observed = self.maps.observe()?;
        let Lowered { tables, names, refused } = layout::lower(&observed, wanted, now(), &self.names)?;
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
        if let Some(pin) = self.shared_with.take_if(|_| self.complete) {
            pins::take_over(&pin, &self.links);
        }
        let cgroups = self.attached.iter().filter(|it| it.attached.attach.hook == Hook::Cgroup);
        let roots = cgroups.map(|it| Path::new(&it.attached.attach.interface));
        self.clients.refresh(&mut self.maps, roots, &wanted.clients);
        if self.wants_direct {
            self.lead(&tables);
        }
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        let refused = refused.into_iter().map(Refused::from).collect();
        Ok(Applied { operations: ops.len(), micros, refused })
    }

    /// Looks again which devices lead straight to the endpoints in the maps, if that is asked for.
    pub fn look_around(&mut self) {
        if !self.wants_direct {
            return;
        }
        match self.maps.observe() {
            Ok(tables) => self.lead(&tables),
            Err(error) => tracing::warn!("devices that lead to endpoints are not looked at: {error}"),
        }
    }

    /// Says which devices lead straight to endpoints. If nobody knows, packets go by the stack.
    fn lead(&mut self, tables: &Tables) {
        let open = || Direct::open().map_err(DirectError::from);
        let found = self.direct.take().map_or_else(open, Ok).and_then(|mut direct| {
            direct.refresh(&mut self.maps, tables, now())?;
            Ok(direct)
        });
        match found {
            Ok(direct) => self.direct = Some(direct),
            Err(error) => {
                tracing::warn!("packets go by the stack, not straight to endpoints: {error}");
                // Else it ends by itself.
                let _ = self.maps.settings.publish(0, offset_of!(abi::Settings, direct_until), 0_u32);
            }
        }
    }

    /// What `apply` would do; writes nothing.
    ///
    /// # Errors
    /// As for [`Self::apply`].
    pub fn plan(&self, wanted: &State) -> Result<Plan, DataplaneError> {
        let observed = self.maps.observe()?;
        let lowered = layout::lower(&observed, wanted, now(), &self.names)?;
        let operations = plan::diff(&observed, &lowered.tables).iter().map(ToString::to_string).collect();
        Ok(Plan { operations, refused: lowered.refused.into_iter().map(Refused::from).collect() })
    }

    /// Differences between `wanted` and what the maps hold, one sentence each; empty when they agree.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn verify(&self, wanted: &State) -> Result<Vec<String>, DataplaneError> {
        let Plan { operations: missing, refused } = self.plan(wanted)?;
        let refused = refused.into_iter().map(|it| format!("no room for {}: {}", it.service, it.why));
        let dangling = self.maps.observe()?.dangling().map(|it| format!("a dangling reference: {it}"));
        let missing = missing.into_iter().map(|op| format!("not in the maps yet: {op}"));
        Ok(dangling.into_iter().chain(refused).chain(missing).collect())
    }

    /// All counters.
    ///
    /// # Errors
    /// When the maps cannot be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        let mut counters = self.maps.counters(&self.names, now())?;
        if self.also.connections {
            counters.connections = self.maps.connections(&self.names)?;
        }
        Ok(counters)
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

    /// Index of an interface, or number of the cgroup at a path; `None` when there is none. One that is deleted and made again
    /// has another number, and our programs are gone with the old one.
    #[must_use]
    pub fn place(name: &str) -> Option<u64> {
        if name.starts_with('/') { cgroup::id(name) } else { device::index(name).map(u64::from) }
    }

    /// Names of the interfaces in this network namespace.
    #[must_use]
    pub fn interfaces() -> Vec<String> {
        device::names()
    }

    /// What is attached now.
    #[must_use]
    pub fn attached(&self) -> Vec<Attached> {
        self.attached.iter().map(|it| it.attached.clone()).collect()
    }
}

impl Drop for Dataplane {
    fn drop(&mut self) {
        // Nobody looks after devices from here on. An agent that is killed leaves them for a minute.
        if self.wants_direct {
            let _ = self.maps.settings.publish(0, offset_of!(abi::Settings, direct_until), 0_u32);
        }
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

/// The compiled kernel programs, as built by `build.rs`.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/canary.bpf.o"));
