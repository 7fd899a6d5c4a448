//! What a pass wants: from a Snapshot and the memory of what was good to a state, with every finding.
//!
//! Pure: no I/O, no clock. The loop around it reads the directory and writes the maps.
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

#[cfg(test)]
mod tests;

use crate::{
    agent::{kernel::KernelError, store::StoreError},
    compile::{self, ProxyAddresses, ServiceReport},
    dataplane::Refused,
    diagnostic::{Diagnostic, Origin, Severity},
    model::Model,
    source::{
        Object, Snapshot,
        cluster::{self, Remark, Says},
        sources::ReadError,
    },
    state::{ServiceId, State},
};

/// What was good last: the state in force and the objects that it came from, by [`Object::id`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Memory {
    /// The last good state.
    pub state: State,
    /// The last good form of every object.
    pub objects: BTreeMap<String, Arc<Object>>,
}

/// What a pass wants to be in force.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Wanted content of the maps.
    pub state: State,
    /// What decided about each service.
    pub reports: BTreeMap<ServiceId, ServiceReport>,
    /// Every finding, in order of files and lines.
    pub diagnostics: Vec<Diagnostic>,
    /// Good objects, with the last good form of those that are broken now; without those that a cluster has in great number.
    pub objects: BTreeMap<String, Arc<Object>>,
    /// What it all comes from.
    model: Model,
    /// The objects of a cluster, as they are written there.
    written: Vec<Arc<Object>>,
    /// Those that are not valid as they are written, and why.
    invalid: BTreeMap<String, String>,
}

/// Turns a Snapshot into what should be in force. A broken object counts as what it was when it was last good.
#[must_use]
pub fn want(snapshot: &Snapshot, memory: &Memory, proxy: &ProxyAddresses) -> Wanted {
    let mut diagnostics = snapshot.diagnostics.clone();
    let mut healed = snapshot.clone();
    let mut old = BTreeSet::new();

    // A file that is broken says nothing about the objects that it held: they are not deleted, they cannot be read.
    // (A cluster has no files: what it does not hold any more is deleted.)
    let files = errors(&snapshot.diagnostics).map(|found| &found.origin.file).filter(|file| !cluster::is_origin(file));
    let broken: BTreeSet<&PathBuf> = files.collect();
    let present: BTreeSet<String> =
        snapshot.objects.iter().filter(|object| is_remembered(object)).map(|object| object.id()).collect();
    for (id, object) in &memory.objects {
        if broken.contains(&object.origin.file) && !present.contains(id) {
            diagnostics.push(kept(object));
            old.insert(id.clone());
            healed.objects.push(object.clone());
        }
    }

    let (mut model, found) = Model::read(&healed);
    let mut invalid: BTreeMap<String, String> = BTreeMap::new();
    for found in errors(&found) {
        invalid
            .entry(found.object.clone())
            .or_insert_with(|| format!("{}: {}; {}", found.field, found.message, found.remedy));
    }
    diagnostics.extend(found);
    let written = healed.objects.iter().filter(|object| cluster::is_origin(&object.origin.file)).cloned().collect();
    let mut replaced = false;
    for object in healed.objects.iter_mut().filter(|object| is_remembered(object)) {
        let Some(good) = memory.objects.get(&object.id()).filter(|good| invalid.contains_key(&good.id())) else {
            continue;
        };
        if good.body != object.body {
            diagnostics.push(kept(object));
            *object = good.clone();
            old.insert(object.id());
            replaced = true;
        }
    }
    let mut unusable: BTreeSet<String> = invalid.keys().cloned().collect();
    if replaced {
        let (again, found) = Model::read(&healed);
        model = again;
        unusable = errors(&found).map(|found| found.object.clone()).collect();
    }

    let mut compiled = compile::compile(&model, &memory.state, proxy);
    diagnostics.extend(compiled.diagnostics);
    for report in compiled.services.values_mut() {
        let replaced = report.deciders().map(|decider| &decider.object).find(|object| old.contains(*object)).cloned();
        if let Some(object) = replaced {
            // Endpoints and weights are those of good objects, but not of what is written now.
            report.reason.get_or_insert_with(|| {
                format!("{object} cannot be used as it is written; its last good version is in force")
            });
            report.enforced = false;
        }
    }
    sort(&mut diagnostics);
    let objects = healed
        .objects
        .into_iter()
        .filter(|object| is_remembered(object))
        .map(|object| (object.id(), object))
        .filter(|(id, _)| !unusable.contains(id) || memory.objects.contains_key(id))
        .collect();
    Wanted { state: compiled.state, reports: compiled.services, diagnostics, objects, model, written, invalid }
}

/// What a cluster has in great number is valid there, and the cluster remembers it.
fn is_remembered(object: &Object) -> bool {
    !object.is_native() || !cluster::is_origin(&object.origin.file)
}

fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by(|a, b| (&a.origin, a.severity, a).cmp(&(&b.origin, b.severity, b)));
    diagnostics.dedup();
}

impl Wanted {
    /// What is to be said at the API server: statuses and errors, with the objects of a cluster that they are about.
    #[must_use]
    pub fn remarks(&self) -> Vec<Remark> {
        type About = (Option<Says>, Vec<(&'static str, String)>);
        let mut about: BTreeMap<String, About> = BTreeMap::new();
        for (object, says) in compile::statuses(&self.model, &self.reports) {
            about.entry(object).or_default().0 = Some(says);
        }
        for found in errors(&self.diagnostics).filter(|found| cluster::is_origin(&found.origin.file)) {
            let text = found.to_string();
            about.entry(found.object.clone()).or_default().1.push((found.code, text));
        }
        if about.is_empty() {
            return Vec::new();
        }
        let kinds: BTreeSet<String> = about.keys().filter_map(|id| Some(id.split_once(' ')?.0.to_owned())).collect();
        let objects = self.written.iter().filter(|object| kinds.contains(object.kind.as_str()));
        let remarks = objects.filter_map(|object| {
            let (mut says, problems) = about.remove(&object.id())?;
            let object = match object.unpacked() {
                Cow::Borrowed(_) => Arc::clone(object),
                Cow::Owned(whole) => Arc::new(whole),
            };
            if let Some(why) = self.invalid.get(&object.id()) {
                says = compile::status_of_invalid(&self.model, &object, why);
            }
            Some(Remark { object, says, problems })
        });
        remarks.collect()
    }

    /// Takes back what the data plane refused: such a service is what it was (`last`), or nothing; and says so.
    pub(super) fn refuse(&mut self, refused: &[Refused], last: &State) {
        for Refused { service: id, why, kept } in refused {
            self.state.without(id);
            // With another memory than the maps', nobody knows what it is.
            if *kept {
                self.state.restore(id, last);
            }
            let report = self.reports.entry(id.clone()).or_default();
            (report.enforced, report.reason) = (false, Some(why.clone()));
            report.rules.clear();
            let service = self.model.service(&id.namespace, id.plain_name());
            let (object, origin) = service.map_or_else(
                || (format!("Service {}/{}", id.namespace, id.plain_name()), Origin::default()),
                |meta| (meta.id(), meta.origin()),
            );
            let now = if *kept { "what was in force stays" } else { "nothing is in force for it" };
            self.diagnostics.push(Diagnostic {
                severity: Severity::Error,
                code: "CAN0303",
                object,
                field: String::new(),
                origin,
                message: format!("service {id} has no place in the data plane: {why}; {now}"),
                remedy: "remove what is no longer needed; the agent tries again".into(),
            });
        }
        sort(&mut self.diagnostics);
    }
}

/// The findings that keep something out of force.
pub fn errors(diagnostics: &[Diagnostic]) -> impl Iterator<Item = &Diagnostic> {
    diagnostics.iter().filter(|found| found.severity == Severity::Error)
}

fn kept(object: &Object) -> Diagnostic {
    Diagnostic {
        severity: Severity::Warning,
        code: "CAN0900",
        object: object.id(),
        field: String::new(),
        origin: object.origin.clone(),
        message: "what is written cannot be used; its last good version stays in force".into(),
        remedy: "correct the errors that are reported for it, or delete the object".into(),
    }
}

/// Why a pass failed. What was in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// There is nothing to read.
    #[error("cannot read the configuration")]
    Source(#[from] ReadError),
    /// The cluster was read and is silent now: what it held last counts.
    #[error("the API server does not tell what changes: {}", .silent.join("; "))]
    Silent {
        /// Which resources, and why.
        silent: Vec<String>,
    },
    /// Programs cannot be attached.
    #[error("not attached: {}", .failures.join("; "))]
    Attach {
        /// Why, for each interface.
        failures: Vec<String>,
    },
    /// The maps cannot be read or written.
    #[error("the data plane refused")]
    Kernel(#[source] KernelError),
    /// The state is in force but cannot be remembered for a restart.
    #[error("the state is in force but cannot be stored")]
    Store(#[from] StoreError),
}

impl PassError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Source(error) => error.remedy(),
            Self::Silent { .. } => {
                "what was known last stays in force; check that the API server can be reached from here"
            }
            Self::Attach { .. } => "check with `ip link` that the interface exists and is up; the agent tries again",
            Self::Kernel(_) => "what was in force stays in force; the agent tries again",
            Self::Store(_) => "check the directory of --state, its permissions and the space on its disk",
        }
    }
}
