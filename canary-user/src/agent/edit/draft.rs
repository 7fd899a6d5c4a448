//! Drafts of edits: new texts of files, tried in memory before they are written.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{EditError, Outcome, Target, What, naming};
use crate::{
    agent::{
        documents,
        history::{Action, History},
        pass::{self, Memory, Wanted},
        routes,
    },
    compile::{ProxyAddresses, ServiceReport},
    diagnostic::Diagnostic,
    source::{self, Object, Snapshot, cluster},
    state::{ServiceId, State},
};

/// Versions and weights.
type Weights = Vec<(String, u32)>;

/// New texts of files, not written yet.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) files: Vec<FileEdit>,
    pub(crate) objects: Vec<(String, Outcome)>,
    pub(crate) undoes: Option<u64>,
    /// What was given, where its author wrote it.
    given: Vec<Arc<Object>>,
}

/// One file before and after; `None` is no file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FileEdit {
    pub(crate) path: PathBuf,
    old: Option<String>,
    new: Option<String>,
}

/// What drafts are made from: the directory as it is now, and what the last pass made of it.
pub(crate) struct Ground<'a> {
    /// The agent's directory, if it has one.
    pub(crate) config: Option<&'a Path>,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) wanted: &'a Wanted,
    pub(crate) state: &'a State,
    pub(crate) history: &'a History,
}

impl What {
    /// How the history calls it.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::SetWeights { .. } => Action::SetWeight,
            Self::Apply(_) => Action::Apply,
            Self::Delete { .. } => Action::Delete,
            Self::Undo(_) => Action::Undo,
        }
    }

    pub(crate) fn draft(&self, ground: &Ground<'_>) -> Result<Draft, EditError> {
        match self {
            Self::SetWeights { service, rule, weights } => {
                let object = ground.route_of(service, rule.as_deref())?;
                set_weights(&[(object, rule.as_deref(), weights.clone())])
            }
            Self::Apply(files) => ground.apply(files),
            Self::Delete { targets, ignore_missing, .. } => ground.delete(targets, *ignore_missing),
            Self::Undo(id) => ground.undo(*id),
        }
    }
}

impl<'a> Ground<'a> {
    fn apply(&self, files: &[(PathBuf, String)]) -> Result<Draft, EditError> {
        let parsed: Vec<Snapshot> = files.iter().map(|(name, text)| source::parse(text, name)).collect();
        // Merged, because the same object in two files is an error too.
        let merged = Snapshot::merge(parsed.clone());
        let mut diagnostics: Vec<_> = pass::errors(&merged.diagnostics).cloned().collect();
        let there: BTreeSet<String> = self.snapshot.objects.iter().map(|object| object.id()).collect();
        let new = merged.objects.iter().filter(|object| !there.contains(&object.id()));
        diagnostics.extend(new.flat_map(|object| naming::problems(object)));
        let mut given = Vec::new();
        for ((name, text), parsed) in files.iter().zip(parsed) {
            let texts = documents::texts(text, name, &parsed.objects);
            given.extend(parsed.objects.into_iter().zip(texts.into_iter().map(|(_, text)| text)));
        }
        if !diagnostics.is_empty() {
            return Err(EditError::Invalid { diagnostics });
        }
        if given.is_empty() {
            return Err(EditError::Nothing);
        }
        let mut texts = Texts::default();
        let mut draft = Draft::default();
        for (object, document) in given {
            let id = object.id();
            let outcome = match self.snapshot.objects.iter().find(|there| there.id() == id) {
                Some(there) if there.body == object.body => Outcome::Unchanged,
                Some(there) => {
                    let file = file_of(there)?;
                    let text = texts.read(file)?;
                    texts.set(file, Some(documents::replace(&text, file, &id, Some(&document))?));
                    Outcome::Configured
                }
                None => {
                    let path = self.new_file(&object, &texts)?;
                    texts.create(path, document);
                    Outcome::Created
                }
            };
            draft.objects.push((id, outcome));
            draft.given.push(object);
        }
        draft.files = texts.changed();
        Ok(draft)
    }

    fn delete(&self, targets: &[Target], ignore_missing: bool) -> Result<Draft, EditError> {
        let mut texts = Texts::default();
        let mut draft = Draft::default();
        for target in targets {
            let found = self.snapshot.objects.iter().find(|there| {
                there.kind.eq_ignore_ascii_case(&target.kind)
                    && there.namespace == target.namespace
                    && there.name == target.name
            });
            let Some(object) = found else {
                if ignore_missing {
                    continue;
                }
                let object = format!("{} {}/{}", target.kind, target.namespace, target.name);
                return Err(EditError::NotFound { object });
            };
            // Named twice, such as in two of the files.
            if draft.objects.iter().any(|(id, _)| *id == object.id()) {
                continue;
            }
            let file = file_of(object)?;
            let text = texts.read(file)?;
            let rest = documents::replace(&text, file, &object.id(), None)?;
            let empty = source::parse(&rest, file).objects.is_empty() && documents::split(&rest).is_empty();
            texts.set(file, (!empty).then_some(rest));
            draft.objects.push((object.id(), Outcome::Deleted));
        }
        draft.files = texts.changed();
        Ok(draft)
    }

    fn undo(&self, id: Option<u64>) -> Result<Draft, EditError> {
        let entry = self.history.to_undo(id, self.state)?;
        let mut all: Vec<(&Object, Option<&str>, Weights)> = Vec::new();
        for change in &entry.changes {
            let object = self.route_of(&change.service.to_string(), Some(&change.rule))?;
            // A service has one change a port and family; all come from one rule of one object.
            if all.iter().any(|(seen, rule, _)| seen.id() == object.id() && *rule == Some(change.rule.as_str())) {
                continue;
            }
            // The state leaves out versions of weight 0, the file has them.
            let mut weights = change.old.clone();
            let written = routes::written(object).into_iter().find(|written| {
                change.rule == written.rule || change.rule == format!("{}.{}", object.name, written.rule)
            });
            for (version, _) in written.into_iter().flat_map(|written| written.weights) {
                if !weights.iter().any(|(name, _)| *name == version) {
                    weights.push((version, 0));
                }
            }
            all.push((object, Some(&change.rule), weights));
        }
        Ok(Draft { undoes: Some(entry.id), ..set_weights(&all)? })
    }

    /// The VirtualService or the route that decides about a service; of several routes that are in force together the one
    /// that the rule's name begins with.
    fn route_of(&self, name: &str, rule: Option<&str>) -> Result<&'a Object, EditError> {
        let ids: Vec<&ServiceId> =
            self.wanted.reports.keys().filter(|id| super::is_named(&id.to_string(), name)).collect();
        let Some(first) = ids.first() else {
            return Err(EditError::NoService {
                name: name.into(),
                known: self.wanted.reports.keys().map(ToString::to_string).collect(),
            });
        };
        if ids.iter().any(|id| (&id.namespace, id.plain_name()) != (&first.namespace, first.plain_name())) {
            return Err(ambiguous(name, &ids));
        }
        let reports = ids.iter().filter_map(|id| self.wanted.reports.get(*id));
        let routes: BTreeSet<&str> = reports.filter_map(|report| route_object(report, rule)).collect();
        let mut routes = routes.into_iter();
        match (routes.next(), routes.next()) {
            (Some(one), None) => self
                .snapshot
                .objects
                .iter()
                .map(|object| &**object)
                .find(|object| object.id() == one)
                .ok_or_else(|| EditError::NotFound { object: one.into() }),
            (Some(_), Some(_)) => Err(ambiguous(name, &ids)),
            (None, _) => Err(EditError::NoRoute { service: name.into() }),
        }
    }

    fn new_file(&self, object: &Object, texts: &Texts) -> Result<PathBuf, EditError> {
        let config = self.config.ok_or(EditError::NoDirectory)?;
        if config.is_file() {
            return Err(EditError::SingleFile { path: config.into() });
        }
        let safe = |text: &str| -> String {
            let keep = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '-' };
            text.to_lowercase().chars().map(keep).take(80).collect()
        };
        let stem = format!("{}-{}-{}", safe(&object.kind), safe(&object.namespace), safe(&object.name));
        let stem = stem.trim_start_matches('.');
        let path = |suffix: &str| config.join(format!("{stem}{suffix}.yaml"));
        let free = |path: &PathBuf| !path.exists() && !texts.0.contains_key(path);
        let numbered = (2..).map(|n| path(&format!("-{n}")));
        // The numbers do not end before the names of files do.
        Ok(std::iter::once(path("")).chain(numbered).find(free).unwrap_or_else(|| path("")))
    }
}

fn set_weights(all: &[(&Object, Option<&str>, Weights)]) -> Result<Draft, EditError> {
    let mut texts = Texts::default();
    let mut draft = Draft::default();
    for (object, rule, weights) in all {
        let file = file_of(object)?;
        let text = texts.read(file)?;
        // An earlier edit of the same file moved nothing but digits; lines are read again all the same.
        let now = source::parse(&text, file).objects.into_iter().find(|now| now.id() == object.id());
        let now = now.ok_or_else(|| EditError::NotFound { object: object.id() })?;
        let new = source::edit::set_weights(&text, &now, *rule, weights)?;
        let outcome = if new == text { Outcome::Unchanged } else { Outcome::Configured };
        texts.set(file, Some(new));
        draft.objects.push((object.id(), outcome));
    }
    draft.files = texts.changed();
    Ok(draft)
}

impl Draft {
    /// A finding about what was given, at its place in the author's file: the agent's copy says nothing to them.
    pub(crate) fn at_home(&self, found: &Diagnostic) -> Diagnostic {
        let given = self.given.iter().find(|object| object.id() == found.object);
        let origin = given.map_or_else(|| found.origin.clone(), |object| object.origin_of(&found.field));
        Diagnostic { origin, ..found.clone() }
    }

    /// The Snapshot that the directory would give with this draft written.
    pub(crate) fn try_on(&self, snapshot: &Snapshot) -> Snapshot {
        let touched = |file: &Path| self.files.iter().any(|edit| edit.path == file);
        let mut tried = snapshot.clone();
        tried.objects.retain(|object| !touched(&object.origin.file));
        tried.diagnostics.retain(|found| !touched(&found.origin.file));
        for edit in &self.files {
            let parsed = edit.new.as_deref().map(|text| source::parse(text, &edit.path)).unwrap_or_default();
            tried.objects.extend(parsed.objects);
            tried.diagnostics.extend(parsed.diagnostics);
        }
        tried.objects.sort_by(|a, b| a.origin.file.cmp(&b.origin.file));
        tried
    }

    /// Writes every file, or none: when one fails, those before it get their old content back.
    pub(crate) fn write(&self) -> Result<(), EditError> {
        for (done, edit) in self.files.iter().enumerate() {
            if let Err(error) = put(&edit.path, edit.new.as_deref()) {
                for earlier in self.files.iter().take(done) {
                    if let Err(again) = put(&earlier.path, earlier.old.as_deref()) {
                        tracing::error!(path = %earlier.path.display(), error = %again, "cannot restore a file after a failed edit");
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Errors of `new` that `old` does not have.
pub(crate) fn new_errors(old: &Wanted, new: &Wanted) -> Vec<Diagnostic> {
    let key = |found: &Diagnostic| (found.code, found.object.clone(), found.field.clone(), found.message.clone());
    let known: BTreeSet<_> = pass::errors(&old.diagnostics).map(key).collect();
    pass::errors(&new.diagnostics).filter(|found| !known.contains(&key(found))).cloned().collect()
}

/// Services that one of these objects decides about and that are not enforced as written, and those that were before.
pub(crate) fn not_enforced(
    before: &BTreeMap<ServiceId, ServiceReport>,
    reports: &BTreeMap<ServiceId, ServiceReport>,
    objects: &[(String, Outcome)],
) -> Vec<(ServiceId, String)> {
    let touched = |report: &ServiceReport| {
        let mut deciders = report.deciders();
        deciders.any(|decider| objects.iter().any(|(id, _)| *id == decider.object))
    };
    reports
        .iter()
        .filter(|(_, report)| !report.enforced)
        .filter(|(id, report)| touched(report) || before.get(*id).is_some_and(|before| before.enforced))
        .map(|(id, report)| (id.clone(), report.reason.clone().unwrap_or_default()))
        .collect()
}

/// Tries a draft without memory of what was good: a broken object must not hide behind its last good form.
pub(crate) fn want_strictly(snapshot: &Snapshot, memory: &Memory, proxy: &ProxyAddresses) -> Wanted {
    pass::want(snapshot, &Memory { state: memory.state.clone(), objects: BTreeMap::new() }, proxy)
}

/// The file that an object can be changed in.
fn file_of(object: &Object) -> Result<&Path, EditError> {
    let file = object.origin.file.as_path();
    if cluster::is_origin(file) { Err(EditError::InCluster { object: object.id() }) } else { Ok(file) }
}

/// Id of the object that decides, or of the one beside it whose rule is meant.
fn route_object<'r>(report: &'r ServiceReport, rule: Option<&str>) -> Option<&'r str> {
    let is_meant = |id: &str| {
        let name = id.rsplit('/').next().unwrap_or(id);
        rule.is_some_and(|rule| rule.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
    };
    let beside = report.delegates.iter().find(|it| !it.object.starts_with("VirtualService ") && is_meant(&it.object));
    // A Gateway has no weights itself.
    let is_gateway = report.virtual_service.as_ref().is_some_and(|it| it.object.starts_with("Gateway "));
    let only = || report.delegates.first().filter(|_| is_gateway && report.delegates.len() == 1);
    beside.or_else(only).or(report.virtual_service.as_ref()).map(|decider| decider.object.as_str())
}

fn ambiguous(name: &str, ids: &[&ServiceId]) -> EditError {
    EditError::Ambiguous { name: name.into(), candidates: ids.iter().map(ToString::to_string).collect() }
}

fn put(path: &Path, text: Option<&str>) -> Result<(), EditError> {
    match text {
        Some(text) => Ok(source::write::replace(path, text)?),
        None => fs::remove_file(path).map_err(|source| EditError::Remove { path: path.into(), source }),
    }
}

/// Texts of files on their way: (on disk, wanted).
#[derive(Default)]
struct Texts(BTreeMap<PathBuf, (Option<String>, Option<String>)>);

impl Texts {
    fn read(&mut self, path: &Path) -> Result<String, EditError> {
        if let Some((_, new)) = self.0.get(path) {
            return Ok(new.clone().unwrap_or_default());
        }
        let text = fs::read_to_string(path).map_err(|source| EditError::Read { path: path.into(), source })?;
        self.0.insert(path.into(), (Some(text.clone()), Some(text.clone())));
        Ok(text)
    }

    fn set(&mut self, path: &Path, text: Option<String>) {
        if let Some((_, new)) = self.0.get_mut(path) {
            *new = text;
        }
    }

    fn create(&mut self, path: PathBuf, text: String) {
        self.0.insert(path, (None, Some(text)));
    }

    fn changed(self) -> Vec<FileEdit> {
        let files = self.0.into_iter().map(|(path, (old, new))| FileEdit { path, old, new });
        files.filter(|edit| edit.old != edit.new).collect()
    }
}
