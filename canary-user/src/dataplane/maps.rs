//! The maps as the agent holds them: arrays mapped into memory, hashes and counters by syscall. The agent's only
//! `unsafe` for BPF.
use std::{
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd},
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray},
};
use canary_common::abi::{
    Client, ConnectionCounts, Counts, Endpoint, Flow, FlowKey, Group, Leaf, Node, Rule, Service, ServiceKey, Settings,
    Split, Trace, Version,
};

/// Names of the maps that are pinned: all that outlives an agent.
pub(crate) const PINNED: &[&str] = &[
    "SERVICES",
    "SERVICE",
    "RULES",
    "SPLITS",
    "NODES",
    "LEAVES",
    "VERSIONS",
    "GROUPS",
    "MEMBERS",
    "ENDPOINTS",
    "HOPS",
    "SETTINGS",
    "FLOWS",
    "TRANSIENT",
    "FRAGMENTS",
    "SOCKETS",
    "ORIGINS",
    "CLIENTS",
    "CONNECTIONS",
    "CONNECTION_COUNTS",
    "OPEN_CONNECTIONS",
    "CHOICES",
    "VERSION_COUNTS",
    "ENDPOINT_COUNTS",
    "LEAVE_COUNTS",
];

/// Why a map cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MapFailure {
    /// A map cannot be opened or read.
    #[error("map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: MapError,
    },
    /// A map cannot be mapped into memory.
    #[error("mapping map {name} into memory: {source}")]
    Mapping {
        /// Its name.
        name: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A slot beyond the end: the map was made by another version of canary, or with other limits.
    #[error("map {name} has {len} entries, slot {slot} is asked for: remove the pins with `canary detach`")]
    Slot {
        /// Its name.
        name: &'static str,
        /// Its length.
        len: u32,
        /// The slot.
        slot: u32,
    },
}

/// An array map in the agent's memory: reads and writes are loads and stores that programs see at once.
#[derive(Debug)]
pub(crate) struct Mapped<T> {
    name: &'static str,
    start: NonNull<u8>,
    len: u32,
    stride: usize,
    values: PhantomData<T>,
}

// SAFETY: the memory is shared with the kernel anyway; all access goes through `&mut self` or reads words.
unsafe impl<T: Pod + Send> Send for Mapped<T> {}

impl<T: Pod> Mapped<T> {
    fn open(name: &'static str, data: &MapData) -> Result<Self, MapFailure> {
        let info = data.info().map_err(|source| MapFailure::Map { name, source })?;
        if info.value_size() as usize != size_of::<T>() {
            let source = std::io::Error::other("its values have another size: run `canary detach` first");
            return Err(MapFailure::Mapping { name, source });
        }
        let stride = size_of::<T>().next_multiple_of(8);
        let len = info.max_entries();
        // SAFETY: a fresh mapping of a BPF array's pages; `mmap` checks flags and length against the map.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len as usize * stride,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                data.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => {
                Ok(Self { name, start, len, stride, values: PhantomData })
            }
            _ => Err(MapFailure::Mapping { name, source: std::io::Error::last_os_error() }),
        }
    }

    /// Number of slots.
    pub(crate) const fn len(&self) -> u32 {
        self.len
    }

    fn at(&self, slot: u32) -> Result<NonNull<u8>, MapFailure> {
        if slot >= self.len {
            return Err(MapFailure::Slot { name: self.name, len: self.len, slot });
        }
        // SAFETY: inside the mapping: slot < len.
        Ok(unsafe { self.start.add(slot as usize * self.stride) })
    }

    /// The value in a slot. Words of it that programs change may be newer than others.
    pub(crate) fn get(&self, slot: u32) -> Result<T, MapFailure> {
        // SAFETY: `at` is inside the mapping and aligned to 8; any bit pattern is a `T`.
        Ok(unsafe { self.at(slot)?.cast::<T>().read_volatile() })
    }

    /// Writes a slot that no packet can reach.
    pub(crate) fn set(&mut self, slot: u32, value: &T) -> Result<(), MapFailure> {
        // SAFETY: as in `get`.
        unsafe { self.at(slot)?.cast::<T>().write_volatile(*value) };
        Ok(())
    }

    /// Writes one aligned word inside a slot: what publishes a change. All writes before it are seen before it.
    pub(crate) fn publish<W: Word>(&mut self, slot: u32, offset: usize, word: W) -> Result<(), MapFailure> {
        let at = self.at(slot)?;
        if !offset.is_multiple_of(size_of::<W>()) || offset + size_of::<W>() > size_of::<T>() {
            return Err(MapFailure::Slot { name: self.name, len: self.len, slot });
        }
        fence(Ordering::Release);
        // SAFETY: inside the slot and aligned (checked just now); a single store cannot be seen half done.
        unsafe { at.add(offset).cast::<W>().write_volatile(word) };
        Ok(())
    }
}

impl<T> Drop for Mapped<T> {
    fn drop(&mut self) {
        // SAFETY: unmaps what `open` mapped; nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len as usize * self.stride) };
    }
}

/// A word that one store writes whole.
pub(crate) trait Word: Copy {}
impl Word for u32 {}
impl Word for u64 {}

/// All maps.
pub(crate) struct Maps {
    pub(crate) services: HashMap<MapData, ServiceKey, u32>,
    pub(crate) service: Mapped<Service>,
    pub(crate) rules: Mapped<Rule>,
    pub(crate) splits: Mapped<Split>,
    pub(crate) nodes: Mapped<Node>,
    pub(crate) leaves: Mapped<Leaf>,
    pub(crate) versions: Mapped<Version>,
    pub(crate) groups: Mapped<Group>,
    pub(crate) members: Mapped<u32>,
    pub(crate) endpoints: Mapped<Endpoint>,
    pub(crate) hops: Mapped<u64>,
    pub(crate) settings: Mapped<Settings>,
    pub(crate) flows: HashMap<MapData, FlowKey, Flow>,
    pub(crate) transient: HashMap<MapData, FlowKey, Flow>,
    pub(crate) clients: HashMap<MapData, u64, Client>,
    pub(crate) connection_counts: Mapped<ConnectionCounts>,
    pub(crate) open_connections: Mapped<u64>,
    pub(crate) choices: PerCpuArray<MapData, u64>,
    pub(crate) version_counts: PerCpuArray<MapData, Counts>,
    pub(crate) endpoint_counts: PerCpuArray<MapData, Counts>,
    pub(crate) leave_counts: PerCpuArray<MapData, u64>,
    pub(crate) trace: Array<MapData, Trace>,
    directory: PathBuf,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl Maps {
    /// Opens the maps pinned in `dir`, and `trace`, which is not.
    pub(crate) fn open(dir: &Path, trace: Map) -> Result<Self, MapFailure> {
        let pin = |name: &'static str| {
            let path: PathBuf = dir.join(name);
            MapData::from_pin(path).map_err(|source| MapFailure::Map { name, source })
        };
        let map = |name: &'static str| {
            pin(name).and_then(|data| Map::from_map_data(data).map_err(|source| MapFailure::Map { name, source }))
        };
        Ok(Self {
            services: typed("SERVICES", map("SERVICES")?)?,
            service: Mapped::open("SERVICE", &pin("SERVICE")?)?,
            rules: Mapped::open("RULES", &pin("RULES")?)?,
            splits: Mapped::open("SPLITS", &pin("SPLITS")?)?,
            nodes: Mapped::open("NODES", &pin("NODES")?)?,
            leaves: Mapped::open("LEAVES", &pin("LEAVES")?)?,
            versions: Mapped::open("VERSIONS", &pin("VERSIONS")?)?,
            groups: Mapped::open("GROUPS", &pin("GROUPS")?)?,
            members: Mapped::open("MEMBERS", &pin("MEMBERS")?)?,
            endpoints: Mapped::open("ENDPOINTS", &pin("ENDPOINTS")?)?,
            hops: Mapped::open("HOPS", &pin("HOPS")?)?,
            settings: Mapped::open("SETTINGS", &pin("SETTINGS")?)?,
            flows: typed("FLOWS", map("FLOWS")?)?,
            transient: typed("TRANSIENT", map("TRANSIENT")?)?,
            clients: typed("CLIENTS", map("CLIENTS")?)?,
            connection_counts: Mapped::open("CONNECTION_COUNTS", &pin("CONNECTION_COUNTS")?)?,
            open_connections: Mapped::open("OPEN_CONNECTIONS", &pin("OPEN_CONNECTIONS")?)?,
            choices: typed("CHOICES", map("CHOICES")?)?,
            version_counts: typed("VERSION_COUNTS", map("VERSION_COUNTS")?)?,
            endpoint_counts: typed("ENDPOINT_COUNTS", map("ENDPOINT_COUNTS")?)?,
            leave_counts: typed("LEAVE_COUNTS", map("LEAVE_COUNTS")?)?,
            trace: typed("TRACE", trace)?,
            directory: dir.into(),
        })
    }

    /// Number of entries that a pinned map has room for.
    pub(crate) fn capacity(&self, name: &'static str) -> Result<u32, MapFailure> {
        let info = MapData::from_pin(self.directory.join(name)).and_then(|data| data.info());
        info.map(|info| info.max_entries()).map_err(|source| MapFailure::Map { name, source })
    }
}

/// A map as the type that its use asks for.
fn typed<T>(name: &'static str, map: Map) -> Result<T, MapFailure>
where
    T: TryFrom<Map, Error = MapError>,
{
    T::try_from(map).map_err(|source| MapFailure::Map { name, source })
}

/// Waits until every program run that began before has ended: what it may still hold can be written again after.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period, and programs run inside read-side sections. Where the kernel
/// refuses it (`nohz_full`), a second is longer than any run.
pub(crate) fn grace_period() {
    const GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) };
    if done != 0 {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
