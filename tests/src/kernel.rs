//! The programs in the kernel, run on single packets (`BPF_PROG_TEST_RUN`), and the maps around them.
use std::{collections::BTreeMap, thread::sleep, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use aya::{
    Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, MapData, PerCpuArray},
    programs::{Program, ProgramInfo, SchedClassifier, TestRun, TestRunOptions, Xdp},
};
use canary_common::{
    abi::{Counts, Flow, FlowKey, FragmentKey, Split, TICK_SHIFT, Trace},
    host::{Memory, image::Image},
    verdict::{Leave, Verdict},
};

pub mod traffic;

/// Everything that the object file holds.
pub const PROGRAMS: [&str; 4] = ["canary_xdp", "canary_trace", "canary_in", "canary_out"];

/// The loaded programs and their maps; gone when dropped, since nothing is pinned or attached.
pub struct Kernel {
    ebpf: Ebpf,
    written: usize,
}

/// What a run on one packet gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What the program told the kernel.
    pub verdict: Verdict,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

impl Kernel {
    /// Loads all programs, with maps of full size or with small ones that take no time to make.
    ///
    /// # Errors
    /// When the kernel refuses: without `CAP_BPF` and `CAP_NET_ADMIN`, or by the verifier's word.
    pub fn load(full: bool) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        if !full {
            for (map, entries) in [
                ("FLOWS", 1 << 16),
                ("TRANSIENT", 1 << 16),
                ("MEMBERS", 1 << 18),
                ("NODES", 1 << 14),
                ("ENDPOINTS", 4_096),
                ("HOPS", 4_096),
            ] {
                loader.map_max_entries(map, entries);
            }
            for map in ["VERSION_COUNTS", "ENDPOINT_COUNTS", "CHOICES", "SPLITS", "GROUPS", "LEAVES", "VERSIONS"] {
                loader.map_max_entries(map, 4_096);
            }
        }
        let mut ebpf = loader
            .load(canary_user::dataplane::OBJECT)
            .context("loading the object: tests of the kernel need root, or CAP_BPF and CAP_NET_ADMIN")?;
        for name in PROGRAMS {
            let program = ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
            match program {
                Program::Xdp(xdp) => xdp.load(),
                Program::SchedClassifier(classifier) => classifier.load(),
                other => bail!("{name} is a {:?}", other.prog_type()),
            }
            .with_context(|| format!("loading {name}: needs root, or CAP_BPF and CAP_NET_ADMIN"))?;
        }
        Ok(Self { ebpf, written: 0 })
    }

    /// What the kernel knows of a program.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn info(&self, name: &str) -> Result<ProgramInfo> {
        Ok(self.ebpf.program(name).with_context(|| name.to_string())?.info()?)
    }

    /// Writes the agent's tables. Splits that are there keep their draws: an image only ever appends them.
    ///
    /// # Errors
    /// When a map refuses.
    pub fn write(&mut self, image: &Image) -> Result<()> {
        self.fill("ENDPOINTS", &image.endpoints, 0)?;
        self.fill("HOPS", &image.hops, 0)?;
        self.fill("MEMBERS", &image.members, 0)?;
        self.fill("NODES", &image.nodes, 0)?;
        self.fill("GROUPS", &image.groups, 0)?;
        self.fill("VERSIONS", &image.versions, 0)?;
        self.fill("LEAVES", &image.leaves, 0)?;
        let written = std::mem::replace(&mut self.written, image.splits.len());
        self.fill("SPLITS", &image.splits, written)?;
        self.fill("RULES", &image.rules, 0)?;
        self.fill("SERVICE", &image.services, 0)?;
        self.fill("SETTINGS", &[image.settings], 0)?;
        let mut services: HashMap<_, _, u32> = HashMap::try_from(self.map_mut("SERVICES")?)?;
        for (frontend, service) in &image.frontends {
            services.insert(*frontend, *service, 0)?;
        }
        Ok(())
    }

    fn map(&self, name: &str) -> Result<&aya::maps::Map> {
        self.ebpf.map(name).with_context(|| format!("the object has no map {name}"))
    }

    fn map_mut(&mut self, name: &str) -> Result<&mut aya::maps::Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))
    }

    fn fill<V: Pod>(&mut self, name: &str, values: &[V], from: usize) -> Result<()> {
        let mut array: Array<_, V> = Array::try_from(self.map_mut(name)?)?;
        for (slot, value) in (0..).zip(values).skip(from) {
            array.set(slot, value, 0).with_context(|| format!("{name}[{slot}]"))?;
        }
        Ok(())
    }

    /// Runs a program on a frame.
    ///
    /// # Errors
    /// When the kernel does not run it, or the program returns something that is none of our verdicts.
    pub fn run(&self, name: &str, frame: &[u8]) -> Result<Ran> {
        self.repeat(name, frame, 1)
    }

    /// Runs a program again and again: each run gets the frame that the one before left behind.
    ///
    /// # Errors
    /// As [`Kernel::run`].
    pub fn repeat(&self, name: &str, frame: &[u8], times: u32) -> Result<Ran> {
        let mut out = vec![0; frame.len() + 256];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), repeat: times, ..TestRunOptions::new() };
        let program = self.ebpf.program(name).with_context(|| name.to_string())?;
        let (ran, verdicts) = match program {
            Program::Xdp(xdp) => {
                (Xdp::test_run(xdp, options)?, [(2, Verdict::Pass), (1, Verdict::Drop), (4, Verdict::Reset)])
            }
            Program::SchedClassifier(classifier) => (
                SchedClassifier::test_run(classifier, options)?,
                [(u32::MAX, Verdict::Pass), (2, Verdict::Drop), (7, Verdict::Reset)],
            ),
            other => bail!("{name} is a {:?}", other.prog_type()),
        };
        let found = verdicts.into_iter().find(|&(code, _)| code == ran.return_value);
        let (_, verdict) = found.ok_or_else(|| anyhow!("{name} returned {}", ran.return_value))?;
        out.truncate(usize::try_from(ran.data_size_out)?);
        Ok(Ran { verdict, frame: out })
    }

    /// What packets have left behind, in the slots that `image` uses.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn memory(&self, image: &Image) -> Result<Memory> {
        let mut memory = Memory {
            flows: self.entries("FLOWS")?,
            transient: self.entries("TRANSIENT")?,
            fragments: self.entries::<FragmentKey, Flow>("FRAGMENTS")?,
            ..Memory::default()
        };
        let splits: Array<_, Split> = Array::try_from(self.map("SPLITS")?)?;
        for slot in 0..u32::try_from(image.splits.len())? {
            let draws = splits.get(&slot, 0)?.draws;
            if draws != 0 {
                memory.draws.insert(slot, draws);
            }
        }
        let choices = self.sums("CHOICES", image.leaves.len(), |sum: &mut u64, count: u64| *sum += count)?;
        memory.choices = choices.into_iter().filter(|&(_, count)| count != 0).collect();
        memory.versions = self.counts("VERSION_COUNTS", image.versions.len())?;
        memory.endpoints = self.counts("ENDPOINT_COUNTS", image.endpoints.len())?;
        let leaves = self.sums("LEAVE_COUNTS", Leave::ALL.len(), |sum: &mut u64, count: u64| *sum += count)?;
        for ((_, count), leave) in leaves.into_iter().zip(Leave::ALL) {
            if count != 0 {
                memory.leaves.insert(leave.label(), count);
            }
        }
        Ok(memory)
    }

    /// Removes a flow from a table.
    ///
    /// # Errors
    /// The kernel does not have it.
    pub fn remove(&mut self, name: &str, key: &FlowKey) -> Result<()> {
        let mut table: HashMap<_, FlowKey, Flow> = HashMap::try_from(self.map_mut(name)?)?;
        Ok(table.remove(key)?)
    }

    fn entries<K: Pod + Ord, V: Pod>(&self, name: &str) -> Result<BTreeMap<K, V>> {
        let map: HashMap<&MapData, K, V> = HashMap::try_from(self.map(name)?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    fn sums<V: Pod, S: Default>(&self, name: &str, slots: usize, add: impl Fn(&mut S, V)) -> Result<Vec<(u32, S)>> {
        let array: PerCpuArray<&MapData, V> = PerCpuArray::try_from(self.map(name)?)?;
        let mut sums = Vec::new();
        for slot in 0..u32::try_from(slots)? {
            let mut sum = S::default();
            array.get(&slot, 0)?.iter().for_each(|&count| add(&mut sum, count));
            sums.push((slot, sum));
        }
        Ok(sums)
    }

    fn counts<C: FromIterator<(u32, Counts)>>(&self, name: &str, slots: usize) -> Result<C> {
        let sums = self.sums(name, slots, |sum: &mut Counts, count: Counts| {
            sum.flows += count.flows;
            sum.packets_in += count.packets_in;
            sum.bytes_in += count.bytes_in;
            sum.packets_out += count.packets_out;
            sum.bytes_out += count.bytes_out;
        })?;
        Ok(sums.into_iter().filter(|(_, counts)| *counts != Counts::default()).collect())
    }

    /// Runs `canary_trace` on a frame; `ahead` draws from now.
    ///
    /// # Errors
    /// When the kernel does not run it.
    pub fn trace(&mut self, frame: &[u8], ahead: u32) -> Result<Trace> {
        let none = u32::MAX;
        let blank = Trace { ahead, service: none, rule: none, version: none, endpoint: none, ..Trace::default() };
        self.fill("TRACE", &[blank], 0)?;
        self.run("canary_trace", frame)?;
        let trace: Array<_, Trace> = Array::try_from(self.map("TRACE")?)?;
        Ok(trace.get(&0, 0)?)
    }
}

/// The programs' clock: the tick, and nanoseconds until the next one.
#[must_use]
pub fn clock() -> (u32, u64) {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let nanos = time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs();
    let tick = u32::try_from(nanos >> TICK_SHIFT).unwrap_or(u32::MAX);
    (tick, (1 << TICK_SHIFT) - (nanos & ((1 << TICK_SHIFT) - 1)))
}

/// The tick, at a moment when it will last for a while.
#[must_use]
pub fn steady_tick() -> u32 {
    const WHILE: u64 = 10_000_000;
    loop {
        let (tick, left) = clock();
        if left > WHILE {
            return tick;
        }
        sleep(Duration::from_nanos(left));
    }
}

/// Dice with a printed seed: splitmix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The seed is `CANARY_SEED`, or `default`; printed, so that a failure can be repeated.
    ///
    /// # Panics
    /// When `CANARY_SEED` is not a number.
    #[must_use]
    pub fn seeded(default: u64) -> Self {
        let seed = std::env::var("CANARY_SEED").map_or(default, |seed| seed.parse().expect("CANARY_SEED is a number"));
        println!("CANARY_SEED={seed}");
        Self(seed)
    }

    /// A number below `below`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % below.max(1)
    }

    /// The same in 32 bits.
    pub fn word(&mut self, below: u32) -> u32 {
        u32::try_from(self.roll(below.into())).unwrap_or(0)
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap_or(0)
    }

    /// A place in something of this length.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).unwrap_or(0)
    }

    /// True `percent` times in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }

    /// One of several.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        let at = self.index(of.len());
        *of.get(at).expect("something to pick from")
    }
}
