//! Changes that somebody asks for through the API: drafted as new texts of files, tried in memory, then written.
use std::{io, path::PathBuf};

use crate::{
    agent::{
        documents::DocumentError,
        history::{Change, Now, UndoError},
        pass,
    },
    dataplane::Applied,
    diagnostic::Diagnostic,
    source::{self, write::WriteError},
    state::ServiceId,
};

mod attempt;
mod draft;
mod effect;
mod naming;

pub use effect::Scaled;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Say what would happen and change nothing.
    pub dry_run: bool,
    /// The change.
    pub what: What,
}

/// The kinds of changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// All weights of one rule.
    SetWeights {
        /// `helloworld`, `default/helloworld` or a whole service id.
        service: String,
        /// Rule, where there are several.
        rule: Option<String>,
        /// Versions and weights.
        weights: Vec<(String, u32)>,
    },
    /// New or changed objects, as (name for messages, text).
    Apply(Vec<(PathBuf, String)>),
    /// Objects to remove.
    Delete {
        /// The objects.
        targets: Vec<Target>,
        /// Those that are not there are passed over.
        ignore_missing: bool,
        /// Also when others refer to them.
        force: bool,
    },
    /// Take back an entry of the history; the newest when `None`.
    Undo(Option<u64>),
}

/// An object by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Kind, in any case.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is new.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there and is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// The result of an edit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// Objects by id and what became of them.
    pub objects: Vec<(String, Outcome)>,
    /// Files that were (would be) written or removed.
    pub files: Vec<PathBuf>,
    /// Weights that changed (would change).
    pub changes: Vec<Change>,
    /// Versions that got (would get) or lost endpoints.
    pub scaled: Vec<Scaled>,
    /// Services that these objects decide about and that are not enforced as written, and why.
    pub not_enforced: Vec<(ServiceId, String)>,
    /// Findings about the objects that were touched.
    pub diagnostics: Vec<Diagnostic>,
    /// Map writes of a dry run.
    pub plan: Option<Vec<String>>,
    /// What was applied; `None` for a dry run.
    pub applied: Option<Applied>,
    /// Number in the history.
    pub entry: Option<u64>,
}

/// Why an edit was refused. Nothing was changed, except with [`EditError::NotInForce`].
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// No such service.
    #[error("there is no service `{name}`")]
    NoService {
        /// What was asked for.
        name: String,
        /// Services that exist.
        known: Vec<String>,
    },
    /// Several services.
    #[error("`{name}` may be any of {}", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// What it may be.
        candidates: Vec<String>,
    },
    /// Nothing to set weights in.
    #[error("no VirtualService decides about service `{service}`")]
    NoRoute {
        /// The service.
        service: String,
    },
    /// The weights cannot be written into the file.
    #[error(transparent)]
    Weights(#[from] source::edit::EditError),
    /// The text has errors.
    #[error("{} in what was given", count(diagnostics.len()))]
    Invalid {
        /// The errors.
        diagnostics: Vec<Diagnostic>,
    },
    /// What would be deleted is needed by others.
    #[error("without what is to be deleted there would be {}", count(diagnostics.len()))]
    Needed {
        /// The errors that it would bring.
        diagnostics: Vec<Diagnostic>,
    },
    /// The text has no objects.
    #[error("there is no object in what was given")]
    Nothing,
    /// No such object.
    #[error("there is no {object}")]
    NotFound {
        /// The object.
        object: String,
    },
    /// A document cannot be changed as text.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The history says no.
    #[error(transparent)]
    Undo(#[from] UndoError),
    /// The object is not in a file of the agent's.
    #[error("{object} comes from the API server of the cluster, which alone changes it")]
    InCluster {
        /// The object.
        object: String,
    },
    /// The agent has no directory.
    #[error("the agent reads no directory (--config), only the cluster")]
    NoDirectory,
    /// The configuration is one file.
    #[error("the agent's configuration is the single file {path}: new objects need a directory")]
    SingleFile {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written; files that had been written have their old content again.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file cannot be removed; likewise.
    #[error("cannot remove {path}")]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory cannot be read, or the plan cannot be made.
    #[error("the agent cannot work on its configuration now")]
    Unavailable(#[source] pass::PassError),
    /// Files are written; the pass after it failed and is tried again.
    #[error("the change is written but not in force yet")]
    NotInForce(#[source] pass::PassError),
}

impl EditError {
    /// Short name of the kind of error, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoService { .. } => "no-such-service",
            Self::Ambiguous { .. } => "ambiguous",
            Self::NoRoute { .. } => "no-route",
            Self::Weights(_) => "weights",
            Self::Invalid { .. } => "invalid",
            Self::Needed { .. } => "needed",
            Self::Nothing => "nothing",
            Self::NotFound { .. } => "not-found",
            Self::Document(_) => "document",
            Self::Undo(_) => "undo",
            Self::InCluster { .. } => "in-cluster",
            Self::NoDirectory => "no-directory",
            Self::SingleFile { .. } => "single-file",
            Self::Read { .. } | Self::Write(_) | Self::Remove { .. } => "file",
            Self::Unavailable(_) => "unavailable",
            Self::NotInForce(_) => "not-in-force",
        }
    }

    /// What to do about it; empty when the message says it all.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoService { known, .. } if known.is_empty() => {
                "no service is known yet: apply a Service first".into()
            }
            Self::NoService { name, known } => {
                let meant = likely_service(name, known.iter().map(String::as_str));
                format!("{meant}known services: {}", known.join(", "))
            }
            Self::Ambiguous { .. } => "name it in full".into(),
            Self::NoRoute { .. } => "apply a VirtualService with this service as a destination first".into(),
            Self::Invalid { .. } => "correct these errors; nothing was changed".into(),
            Self::Needed { .. } => {
                "delete what refers to it too, or use --force to delete it all the same; nothing was changed".into()
            }
            Self::Nothing => "give YAML documents with apiVersion, kind and metadata.name".into(),
            Self::Undo(UndoError::Overtaken { now: Now::Weights(_), .. }) => {
                "undo the later change first, or use `canary set-weight`".into()
            }
            Self::Undo(UndoError::Overtaken { .. } | UndoError::Rules { earlier: None, .. }) => {
                "apply the objects as they were; `canary history` shows the weights".into()
            }
            Self::Undo(UndoError::Rules { earlier: Some(earlier), .. }) => format!(
                "apply the objects as they were; `canary undo {earlier}` takes back the newest change of weights before"
            ),
            Self::Undo(UndoError::Unknown { .. }) => "see `canary history`".into(),
            Self::InCluster { .. } => {
                "use `canary set-weight --kube` for weights, `kubectl` for everything else".into()
            }
            Self::NoDirectory => "use `kubectl apply`".into(),
            Self::SingleFile { .. } => "start the agent with --config DIR".into(),
            Self::Read { .. } | Self::Write(_) | Self::Remove { .. } => {
                "check that the agent may read and write its --config directory (ReadWritePaths in the systemd unit)"
                    .into()
            }
            Self::Unavailable(error) | Self::NotInForce(error) => error.remedy().into(),
            Self::NotFound { .. } | Self::Weights(_) | Self::Document(_) | Self::Undo(UndoError::Nothing) => {
                String::new()
            }
        }
    }
}

/// Whether `name` means the service with this id: `helloworld`, `default/helloworld`, with `:5000`, or the whole id; and
/// of a Service that is two, both, unless `helloworld@node` says which.
#[must_use]
pub fn is_named(id: &str, name: &str) -> bool {
    let starts =
        |whole: &str| whole.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with([':', '/', '@']));
    match id.split_once('/') {
        // `default/helloworld` must not be found by the name `default`.
        Some((_, short)) => starts(short) || name.contains('/') && starts(id),
        None => starts(id),
    }
}

/// `did you mean …? ` for the service whose name is nearest to `name`; empty when none is near.
pub(crate) fn likely_service<'k>(name: &str, ids: impl Iterator<Item = &'k str>) -> String {
    // `default/helloworld:5000/tcp` is also called `default/helloworld` and `helloworld`.
    let names = ids.flat_map(|id| {
        let long = id.split_once(':').map_or(id, |(long, _)| long);
        let short = long.split_once('/').map_or(long, |(_, short)| short);
        [short, long, id]
    });
    source::similar::did_you_mean(name, names)
}

fn count(errors: usize) -> String {
    if errors == 1 { "1 error".into() } else { format!("{errors} errors") }
}

#[cfg(test)]
mod tests {
    use super::is_named;

    #[test]
    fn a_name_means_all_of_a_service_or_what_it_says() {
        for (id, name, expected) in [
            ("default/web:80/tcp", "web", true),
            ("default/web:80/tcp", "default/web:80", true),
            ("default/web:80/tcp", "default", false),
            ("default/website:80/tcp", "web", false),
            ("default/web@node:80/tcp", "web", true),
            ("default/web@node:80/tcp", "default/web@node", true),
            ("default/web:80/tcp", "web@node", false),
        ] {
            assert_eq!(is_named(id, name), expected, "{id}: {name}");
        }
    }
}
