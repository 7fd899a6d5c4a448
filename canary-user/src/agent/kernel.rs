//! The agent's border to the kernel: everything that the loop asks of the data plane.
//!
//! One implementation is the real [`Dataplane`]; tests have one that keeps the wanted state in memory.
use std::{error::Error, path::Path};

use crate::{
    dataplane::{Applied, Attach, Attached, Counters, Dataplane, FlowRecord, MapMemory, Plan, Probe, Trace},
    state::State,
};

/// What went wrong in the kernel's side. Its text is the data plane's.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct KernelError(Box<dyn Error + Send + Sync>);

impl KernelError {
    /// Wraps the error of an implementation.
    pub fn new(error: impl Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// See [`Dataplane`], whose methods these are.
#[expect(clippy::missing_errors_doc, reason = "each fails when the data plane does, for the reason it gives")]
pub trait Kernel {
    /// Attaches to exactly these interfaces: what each became, in their order.
    fn attach(&mut self, wanted: &[Attach]) -> Vec<Result<Attached, KernelError>>;
    /// Makes the maps hold `wanted`; `Err` leaves what was in force.
    fn apply(&mut self, wanted: &State) -> Result<Applied, KernelError>;
    /// Takes note of changes of links and routes.
    fn look_around(&mut self);
    /// What `apply` would do.
    fn plan(&self, wanted: &State) -> Result<Plan, KernelError>;
    /// Differences between `wanted` and the maps.
    fn verify(&self, wanted: &State) -> Result<Vec<String>, KernelError>;
    /// All counters.
    fn counters(&self) -> Result<Counters, KernelError>;
    /// Up to `limit` flows.
    fn flows(&self, limit: usize) -> Result<Vec<FlowRecord>, KernelError>;
    /// Runs the loaded program on a packet without any effect.
    fn trace(&mut self, probe: Probe) -> Result<Trace, KernelError>;
    /// Memory of every map.
    fn memory(&self) -> Result<Vec<MapMemory>, KernelError>;
    /// What is attached now.
    fn attached(&self) -> Vec<Attached>;
    /// A number that changes when the interface is made anew, `None` while it does not exist.
    fn interface(&self, name: &str) -> Option<u64>;
    /// Names of all interfaces.
    fn interfaces(&self) -> Vec<String>;
}

impl Kernel for Dataplane {
    fn attach(&mut self, wanted: &[Attach]) -> Vec<Result<Attached, KernelError>> {
        Dataplane::attach(self, wanted).into_iter().map(|became| became.map_err(KernelError::new)).collect()
    }
    fn apply(&mut self, wanted: &State) -> Result<Applied, KernelError> {
        Dataplane::apply(self, wanted).map_err(KernelError::new)
    }
    fn look_around(&mut self) {
        Dataplane::look_around(self);
    }
    fn plan(&self, wanted: &State) -> Result<Plan, KernelError> {
        Dataplane::plan(self, wanted).map_err(KernelError::new)
    }
    fn verify(&self, wanted: &State) -> Result<Vec<String>, KernelError> {
        Dataplane::verify(self, wanted).map_err(KernelError::new)
    }
    fn counters(&self) -> Result<Counters, KernelError> {
        Dataplane::counters(self).map_err(KernelError::new)
    }
    fn flows(&self, limit: usize) -> Result<Vec<FlowRecord>, KernelError> {
        Dataplane::flows(self, limit).map_err(KernelError::new)
    }
    fn trace(&mut self, probe: Probe) -> Result<Trace, KernelError> {
        Dataplane::trace(self, probe).map_err(KernelError::new)
    }
    fn memory(&self) -> Result<Vec<MapMemory>, KernelError> {
        Dataplane::memory(self).map_err(KernelError::new)
    }
    fn attached(&self) -> Vec<Attached> {
        Dataplane::attached(self)
    }
    fn interface(&self, name: &str) -> Option<u64> {
        Dataplane::place(name)
    }
    fn interfaces(&self) -> Vec<String> {
        Dataplane::interfaces()
    }
}

/// Whether the text of an error smells of a missing bpffs at `pin`, and what to do about it.
#[must_use]
pub fn pin_remedy(pin: &Path) -> String {
    format!(
        "{} must be on a bpffs that the agent may write to; mount one with `mount -t bpf bpf /sys/fs/bpf`, and run as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
        pin.display()
    )
}
