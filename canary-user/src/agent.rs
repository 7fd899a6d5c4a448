//! The agent: one loop over a closed set of causes, one writer of maps.
//!
//! Level-triggered: every pass reads the whole directory, computes the whole state ([`pass`]) and has the data plane
//! write the difference. A pass that fails leaves what was in force, says so in the status and is tried again. The
//! loop owns the kernel's side and blocks, so it has a thread of its own ([`run`]); everything else talks to it
//! through [`wake::Handle`].
#![forbid(unsafe_code)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::{
    agent::{
        edit::EditError,
        history::{Action, Author, History},
        kernel::Kernel,
        pass::{Memory, PassError, Wanted},
        store::{Store, StoreError},
        view::{Phase, Trouble, View},
        wake::{Ask, Wake},
    },
    compile::ProxyAddresses,
    dataplane::{Applied, Attach},
    source::sources::Sources,
    state::State,
};

pub mod documents;
pub mod edit;
#[cfg(test)]
pub(crate) mod fake;
pub mod handover;
pub mod history;
mod inputs;
mod interfaces;
pub mod kernel;
pub mod lock;
pub mod notify;
pub mod pass;
mod proxied;
pub mod routes;
pub mod run;
pub mod settings;
pub mod store;
#[cfg(test)]
mod tests;
pub mod view;
pub mod wake;

/// A pass runs at least this often, whatever happens: a missed event heals.
pub const RESYNC: Duration = Duration::from_secs(30);
/// The first retry after a failure comes after this time, the next ones after twice the time before.
const RETRY: Duration = Duration::from_millis(250);
/// Time until the next look for an interface that is not there. A look costs a system call, and a pass only when it came.
const LOOK: Duration = Duration::from_secs(2);

/// The loop and all that it owns.
#[derive(Debug)]
pub struct Agent<K> {
    kernel: K,
    source: Sources,
    attach: Vec<Attach>,
    /// Index of each interface when programs were attached to it.
    interfaces: BTreeMap<String, Option<u64>>,
    /// Places to attach to, as they were when that was done last.
    looked_for: BTreeSet<String>,
    /// Why some of them are not attached.
    unattached: Vec<String>,
    store: Store,
    memory: Memory,
    history: History,
    view: View,
    publish: watch::Sender<Arc<View>>,
    failures_in_a_row: u32,
    /// When flows of endpoints that went away must end: passes are due then, not up to a resync later.
    drains: BTreeSet<Instant>,
    clock: fn() -> u64,
    proxy: ProxyAddresses,
    ahead: Ahead,
}

/// Where an agent works.
#[derive(Debug)]
pub struct Place {
    /// Objects.
    pub source: Sources,
    /// Interfaces.
    pub attach: Vec<Attach>,
    /// What survives a restart.
    pub store: Store,
    /// Seconds since 1970.
    pub clock: fn() -> u64,
    /// Where the proxy listens.
    pub proxy: ProxyAddresses,
    /// Told what will be in force, before the kernel sends anybody there.
    pub ahead: Ahead,
}

/// Somebody who must know rules before the first connection by them comes: the proxy.
pub struct Ahead(pub Box<dyn Fn(&State) + Send>);

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ahead")
    }
}

impl<K: Kernel> Agent<K> {
    /// Makes an agent that has not acted yet, and the receiver of what it publishes.
    ///
    /// # Errors
    /// When what an earlier agent stored cannot be read.
    pub fn new(kernel: K, place: Place) -> Result<(Self, watch::Receiver<Arc<View>>), StoreError> {
        let memory = place.store.memory()?;
        let history = place.store.history()?;
        if !memory.state.services.is_empty() {
            // In force in the kernel, too: who is sent on before the first pass is served by it.
            (place.ahead.0)(&memory.state);
        }
        let now = (place.clock)();
        let view = View { since: now, started: now, history: Arc::new(history.clone()), ..View::default() };
        let (publish, published) = watch::channel(Arc::new(view.clone()));
        let agent = Self {
            kernel,
            source: place.source,
            attach: place.attach,
            interfaces: BTreeMap::new(),
            looked_for: BTreeSet::new(),
            unattached: Vec::new(),
            store: place.store,
            memory,
            history,
            view,
            publish,
            failures_in_a_row: 0,
            drains: BTreeSet::new(),
            clock: place.clock,
            proxy: place.proxy,
            ahead: place.ahead,
        };
        Ok((agent, published))
    }

    /// Works until [`Wake::Stop`], or until nobody can wake it any more. `alive` is called at least every `pulse`.
    pub fn run(mut self, wakes: &mpsc::Receiver<Wake>, pulse: Duration, mut alive: impl FnMut(&View)) {
        let (mut due, mut look) = (Instant::now(), Instant::now());
        loop {
            alive(&self.view);
            if Instant::now() >= look {
                look = Instant::now() + LOOK;
                if self.has_come() {
                    due = Instant::now();
                }
            }
            let next = if self.waits_for_interfaces() { due.min(look) } else { due };
            let first = match wakes.recv_timeout(next.saturating_duration_since(Instant::now()).min(pulse)) {
                Ok(first) => Some(first),
                Err(mpsc::RecvTimeoutError::Timeout) => None,
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            };
            // By the clock, not by the timeout: somebody who asks all the time must not put it off.
            let resync = (Instant::now() >= due).then_some(Wake::Resync);
            // Coalesced: ten changes are one pass.
            match self.turn(resync.into_iter().chain(first).chain(wakes.try_iter())) {
                Turn::Stop => return,
                Turn::Passed => due = Instant::now() + self.delay(),
                Turn::Answered => {}
            }
        }
    }

    /// Acts once on everything that is waiting.
    fn turn(&mut self, wakes: impl IntoIterator<Item = Wake>) -> Turn {
        let mut turn = Turn::Answered;
        let (mut stale, mut moved) = (false, false);
        let mut questions = Vec::new();
        for wake in wakes {
            match wake {
                Wake::Stop => return Turn::Stop,
                Wake::Source | Wake::Resync => stale = true,
                Wake::Network => moved = true,
                Wake::Ask(question) => questions.push(question),
                Wake::Edit(edit, author, reply) => {
                    let edited = self.edit(&edit, author);
                    // An edit ends with a pass of its own, and that pass saw everything that woke us before it.
                    if edited.as_ref().is_ok_and(|edited| edited.applied.is_some()) {
                        (turn, stale) = (Turn::Passed, false);
                    } else if matches!(edited, Err(EditError::NotInForce(_))) {
                        turn = Turn::Passed;
                    }
                    // Who asked may have gone; the change stays.
                    let _ = reply.send(edited);
                }
            }
        }
        if moved {
            self.kernel.look_around();
            stale |= self.has_come();
        }
        if stale {
            // The view and the log have the error; the retry is the loop's business.
            let _ = self.pass(Author { uid: None, name: "files".into() }, Action::Files, None);
            turn = Turn::Passed;
        }
        for question in questions {
            self.answer(question);
        }
        turn
    }

    /// Time until the next pass: soon after a failure, or while services wait for room that the last pass has made; else
    /// the resync; and in any case when a drain ends.
    fn delay(&self) -> Duration {
        let latest = match self.failures_in_a_row {
            0 if !self.view.applied.refused.is_empty() && self.view.applied.operations > 0 => RETRY,
            0 => RESYNC,
            failures => RETRY.saturating_mul(1 << (failures - 1).min(16)).min(RESYNC),
        };
        let drained = self.drains.first().map(|end| end.saturating_duration_since(Instant::now()).max(RETRY));
        drained.map_or(latest, |drained| drained.min(latest))
    }

    fn pass(&mut self, author: Author, action: Action, undoes: Option<u64>) -> Result<Passed, PassError> {
        let passed = self.try_pass(author, action, undoes);
        let now = (self.clock)();
        let attach = PassError::Attach { failures: self.unattached.clone() };
        let unattached = (!self.unattached.is_empty()).then(|| Trouble::of(&attach));
        let silent = self.source.troubles();
        let unattached =
            unattached.or_else(|| (!silent.is_empty()).then(|| Trouble::of(&PassError::Silent { silent })));
        let phase = match &passed {
            Ok(_) => {
                self.failures_in_a_row = 0;
                self.view.passes += 1;
                self.view.trouble = unattached;
                if self.view.trouble.is_none() { Phase::Ready } else { Phase::Degraded }
            }
            Err(error) => {
                // What is in force goes on, and so does the way to it.
                self.kernel.look_around();
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.view.failures += 1;
                let mut trouble = Trouble::of(error);
                tracing::error!(retry_ms = self.delay().as_millis(), "pass failed: {}", trouble.message);
                if let Some(unattached) = unattached {
                    trouble.message = format!("{}; {}", trouble.message, unattached.message);
                }
                self.view.trouble = Some(trouble);
                Phase::Degraded
            }
        };
        self.view.was_ready |= phase == Phase::Ready;
        if self.view.phase != phase {
            (self.view.phase, self.view.since) = (phase, now);
        }
        self.view.attached = self.kernel.attached();
        self.publish.send_replace(Arc::new(self.view.clone()));
        passed
    }

    fn try_pass(&mut self, author: Author, action: Action, undoes: Option<u64>) -> Result<Passed, PassError> {
        // An interface that is gone must not hold back what is decided: weights and dead endpoints come first.
        let _ = self.attach();
        let snapshot = self.source.read()?;
        let mut wanted = pass::want(&snapshot, &self.memory, &self.proxy);
        self.view.intended = Arc::new(wanted.state.clone());
        (self.ahead.0)(&wanted.state);
        let applied = self.kernel.apply(&wanted.state).map_err(PassError::Kernel);
        if let Ok(applied) = &applied
            && !applied.refused.is_empty()
        {
            wanted.refuse(&applied.refused, &self.memory.state);
            (self.ahead.0)(&wanted.state);
        }
        self.report(&wanted);
        let applied = applied?;
        if applied.operations > 0 {
            tracing::info!(operations = applied.operations, micros = applied.micros, "applied");
        }

        let now = Instant::now();
        self.drains.retain(|end| *end > now);
        // A second more, because the data plane counts whole ones.
        let ends = drained(&self.memory.state, &wanted.state).map(|seconds| now + Duration::from_secs(seconds + 1));
        self.drains.extend(ends);
        let changes = history::changes(&self.memory.state, &wanted.state);
        let entry = self.history.record((self.clock)(), author, action, undoes, changes).map(|entry| entry.id);
        let remarks = Arc::new(wanted.remarks());
        let memory = Memory { state: wanted.state.clone(), objects: wanted.objects };
        let remember = memory != self.memory;
        self.memory = memory;
        self.view.remarks = remarks;
        self.view.in_force = Arc::new(wanted.state);
        self.view.applied = applied.clone();
        self.view.applied_at = Some((self.clock)());
        if let Some(entry) = entry {
            tracing::info!(entry, "weights changed");
            self.view.history = Arc::new(self.history.clone());
            self.store.write_history(&self.history)?;
        }
        if remember {
            self.store.remember(&self.memory)?;
        }
        Ok(Passed { applied, entry })
    }

    /// Publishes what was found, and logs what is new.
    fn report(&mut self, wanted: &Wanted) {
        for found in wanted.diagnostics.iter().filter(|found| !self.view.diagnostics.contains(found)) {
            match found.severity {
                crate::diagnostic::Severity::Error => tracing::error!("{found}"),
                crate::diagnostic::Severity::Warning => tracing::warn!("{found}"),
                crate::diagnostic::Severity::Info => tracing::debug!("{found}"),
            }
        }
        self.view.diagnostics.clone_from(&wanted.diagnostics);
        self.view.reports.clone_from(&wanted.reports);
    }

    /// Who asked may have gone: then the answer goes nowhere.
    fn answer(&mut self, question: Ask) {
        match question {
            Ask::Counters(reply) => {
                let counters = self.kernel.counters().map(|counters| (counters, self.publish.borrow().clone()));
                let _ = reply.send(counters);
            }
            Ask::Flows(limit, reply) => {
                let _ = reply.send(self.kernel.flows(limit));
            }
            Ask::Trace(probes, reply) => {
                let _ = reply.send(probes.into_iter().map(|probe| self.kernel.trace(probe)).collect());
            }
            Ask::Verify(reply) => {
                let _ = reply.send(self.kernel.verify(&self.memory.state));
            }
            Ask::Memory(reply) => {
                let _ = reply.send(self.kernel.memory());
            }
        }
    }
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Stop,
    Passed,
    Answered,
}

#[derive(Debug)]
struct Passed {
    applied: Applied,
    entry: Option<u64>,
}

/// For how many seconds each version drains that lost endpoints between two states, without repetition.
fn drained(old: &State, new: &State) -> impl Iterator<Item = u64> {
    let mut seconds = BTreeSet::new();
    for (id, service) in &old.services {
        for (name, version) in &service.versions {
            let now = new.services.get(id).and_then(|service| service.versions.get(name));
            let stays = |endpoint| now.is_some_and(|now| now.endpoints.contains_key(endpoint));
            if !version.endpoints.keys().all(stays) {
                seconds.insert(u64::from(now.unwrap_or(version).drain_seconds));
            }
        }
    }
    seconds.into_iter()
}
