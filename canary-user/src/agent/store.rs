//! What survives a restart, in the state directory: the last good state with its objects, and the history.
//!
//! Every file is written whole beside its place and renamed, so a reader meets the old or the new one.
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    agent::{history::History, pass::Memory},
    diagnostic::Origin,
    source::{Compact, Object},
    state::State,
};

/// Layout of `state.json`; another one is not read.
const LAYOUT: u32 = 1;

/// The state directory.
#[derive(Debug, Clone)]
pub struct Store {
    dir: PathBuf,
}

/// Why something cannot be remembered.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what we write.
    #[error("{path} is damaged; move it away to start without it")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A file is of another layout.
    #[error("{path} has layout {found}, this canary writes layout {LAYOUT}; move it away to start without it")]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its layout.
        found: u32,
    },
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    layout: u32,
    state: State,
    objects: Vec<StoredObject>,
}

/// An object as it is stored: lines are left out, they say nothing once the file has changed.
#[derive(Serialize, Deserialize)]
struct StoredObject {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    file: PathBuf,
    line: u32,
    body: serde_json::Value,
}

impl Store {
    /// Uses `dir`, which is made when it does not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(|source| StoreError::Write { path: dir.into(), source })?;
        Ok(Self { dir: dir.into() })
    }

    /// The last good state and its objects; empty when nothing was stored.
    ///
    /// # Errors
    /// When there is something that cannot be read.
    pub fn memory(&self) -> Result<Memory, StoreError> {
        let path = self.dir.join("state.json");
        let Some(stored) = read::<StoredState>(&path)? else { return Ok(Memory::default()) };
        if stored.layout != LAYOUT {
            return Err(StoreError::Layout { path, found: stored.layout });
        }
        let objects =
            stored.objects.into_iter().map(Object::from).map(|object| (object.id(), Arc::new(object))).collect();
        Ok(Memory { state: stored.state, objects })
    }

    /// Remembers the last good state and its objects.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays.
    pub fn remember(&self, memory: &Memory) -> Result<(), StoreError> {
        let objects = memory.objects.values().map(|object| StoredObject::from(&**object)).collect();
        write(&self.dir.join("state.json"), &StoredState { layout: LAYOUT, state: memory.state.clone(), objects })
    }

    /// The history; empty when nothing was stored.
    ///
    /// # Errors
    /// When there is something that cannot be read.
    pub fn history(&self) -> Result<History, StoreError> {
        Ok(read(&self.dir.join("history.json"))?.unwrap_or_default())
    }

    /// Stores the history.
    ///
    /// # Errors
    /// When it cannot be written; what was there stays.
    pub fn write_history(&self, history: &History) -> Result<(), StoreError> {
        write(&self.dir.join("history.json"), history)
    }
}

impl From<&Object> for StoredObject {
    fn from(object: &Object) -> Self {
        Self {
            api_version: object.api_version.clone(),
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            file: object.origin.file.clone(),
            line: object.origin.line,
            body: object.body.clone(),
        }
    }
}

impl From<StoredObject> for Object {
    fn from(stored: StoredObject) -> Self {
        Self {
            api_version: stored.api_version,
            kind: stored.kind,
            namespace: stored.namespace,
            name: stored.name,
            compact: Compact::default(),
            body: stored.body,
            origin: Origin { file: stored.file, line: stored.line },
            lines: BTreeMap::new(),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StoreError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StoreError::Read { path: path.into(), source }),
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| StoreError::Damaged { path: path.into(), source })
        }
    }
}

fn write(path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let failed = |source| StoreError::Write { path: path.into(), source };
    let bytes = serde_json::to_vec(content).map_err(|error| failed(error.into()))?;
    let temporary = path.with_extension("json.new");
    let mut file = fs::File::create(&temporary).map_err(failed)?;
    io::Write::write_all(&mut file, &bytes).map_err(failed)?;
    // Without it, a power cut can leave the new name with no content.
    file.sync_all().map_err(failed)?;
    fs::rename(&temporary, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::fake::{object, split_state};

    #[test]
    fn what_is_remembered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        assert_eq!(store.memory().unwrap(), Memory::default());
        let service = object("Service", "helloworld", serde_json::json!({"spec": {"ports": []}}));
        let memory =
            Memory { state: split_state(&[("v1", 9), ("v2", 1)]), objects: [(service.id(), service.into())].into() };
        store.remember(&memory).unwrap();
        assert_eq!(store.memory().unwrap(), memory);
        assert_eq!(store.history().unwrap(), History::default());
    }

    #[test]
    fn damage_is_said_and_not_overlooked() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let path = dir.path().join("state.json");
        fs::write(&path, "{").unwrap();
        let error = store.memory().unwrap_err().to_string();
        assert_eq!(error, format!("{} is damaged; move it away to start without it", path.display()));
        fs::write(&path, r#"{"layout":9,"state":{"frontends":[],"services":[]},"objects":[]}"#).unwrap();
        assert!(matches!(store.memory(), Err(StoreError::Layout { found: 9, .. })));
    }
}
