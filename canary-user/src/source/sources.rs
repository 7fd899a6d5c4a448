//! All that an agent reads: a directory, a cluster, or both.
use super::{
    Snapshot,
    cluster::{Behind, Cluster},
    directory::{Directory, SourceError},
};

/// Where objects come from.
#[derive(Debug, Clone)]
pub struct Sources {
    directory: Option<Directory>,
    cluster: Option<Cluster>,
}

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The directory cannot be read.
    #[error(transparent)]
    Directory(#[from] SourceError),
    /// The cluster was not read yet.
    #[error(transparent)]
    Cluster(#[from] Behind),
}

impl ReadError {
    /// What to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Directory(_) => "check the directory of --config and its permissions; the agent tries again",
            Self::Cluster(_) => {
                "check that the API server can be reached from here, and that this account may list and watch these; the agent tries again"
            }
        }
    }
}

impl From<Directory> for Sources {
    fn from(directory: Directory) -> Self {
        Self::new(Some(directory), None)
    }
}

impl Sources {
    /// These.
    #[must_use]
    pub fn new(directory: Option<Directory>, cluster: Option<Cluster>) -> Self {
        Self { directory, cluster }
    }

    /// The directory, in which objects can be changed.
    #[must_use]
    pub fn directory(&self) -> Option<&Directory> {
        self.directory.as_ref()
    }

    /// Everything that they hold now. Of an object that is in both the directory's is in force, and an error says so.
    ///
    /// # Errors
    /// When one of them cannot be read: a part would look as if the rest had been deleted.
    pub fn read(&self) -> Result<Snapshot, ReadError> {
        let directory = self.directory.as_ref().map(Directory::read).transpose()?;
        let cluster = self.cluster.as_ref().map(Cluster::read).transpose()?;
        Ok(match (directory, cluster) {
            (Some(one), None) | (None, Some(one)) => one,
            (directory, cluster) => Snapshot::merge(directory.into_iter().chain(cluster)),
        })
    }

    /// What is not told at present by a source whose last content counts, in sentences.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        self.cluster.iter().flat_map(Cluster::troubles).collect()
    }
}
