//! Follows an API server with kube's watcher: lists in pages, watches with bookmarks, lists again when the server has
//! forgotten, waits longer and longer while it does not answer.
use std::path::PathBuf;

use futures::StreamExt as _;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject},
    config::{KubeConfigOptions, Kubeconfig},
    core::Status,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};
use tokio::task::JoinSet;

use super::{Cluster, Holdings, KINDS, Kind, NODES, Object, trim::trim};

/// Time until a resource that the API server does not have is asked for again.
const ABSENT_RETRY: std::time::Duration = std::time::Duration::from_secs(5);

/// A watch is renewed after so many seconds.
const WATCH_SECONDS: u32 = 180;
/// An answer that does not go on for so long comes from a server that is gone: longer than any watch may be silent.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// How to reach an API server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// File of the kind that kubectl reads. Without it: `$KUBECONFIG`, `~/.kube/config`, or the account of the pod.
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; without it the current one.
    pub context: Option<String>,
    /// The Node that canary is on; without it no Node is read.
    pub node: Option<String>,
}

/// Why an API server cannot be reached at all.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be read, or lacks something.
    #[error("cannot use the kubeconfig{}", path.as_ref().map(|path| format!(" {}", path.display())).unwrap_or_default())]
    Kubeconfig {
        /// The file, if one was given.
        path: Option<PathBuf>,
        /// Why.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a file nor the account of a pod.
    #[error("there is no cluster to be found: neither a kubeconfig nor the account of a pod")]
    Nowhere(#[source] Box<kube::config::InferConfigError>),
    /// The client cannot be made: certificates, for instance.
    #[error("cannot make a client of the API server")]
    Client(#[source] Box<kube::Error>),
}

impl Access {
    /// Starts to follow the cluster; on the current runtime, until the returned tasks are dropped.
    ///
    /// # Errors
    /// When it is not clear where the API server is, or how to speak to it. One that does not answer is no error.
    pub async fn follow(&self) -> Result<(Cluster, Followers), ConnectError> {
        let client = Client::try_from(self.config().await?).map_err(|error| ConnectError::Client(error.into()))?;
        let (holdings, cluster) = Holdings::new();
        let mut tasks = JoinSet::new();
        for kind in KINDS {
            let mut wanted = watcher::Config::default().timeout(WATCH_SECONDS);
            if kind.plural == NODES {
                let Some(node) = &self.node else {
                    holdings.replace(kind, Vec::new());
                    continue;
                };
                wanted = wanted.fields(&format!("metadata.name={node}"));
            }
            tasks.spawn(keep_following(client.clone(), kind, wanted, holdings.clone()));
        }
        Ok((cluster, Followers { _tasks: tasks }))
    }

    pub(super) async fn config(&self) -> Result<Config, ConnectError> {
        let failed = |source| ConnectError::Kubeconfig { path: self.kubeconfig.clone(), source: Box::new(source) };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match (&self.kubeconfig, &self.context) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(failed)?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(failed)
            }
            (None, Some(_)) => Config::from_kubeconfig(&options).await.map_err(failed),
            (None, None) => Config::infer().await.map_err(|error| ConnectError::Nowhere(error.into())),
        }?;
        // Without these a request to a server that is gone waits for ever.
        config.read_timeout = Some(SILENCE);
        config.reset_reader_on_write = true;
        Ok(config)
    }
}

/// Tasks that follow a cluster; they end with this.
#[derive(Debug)]
pub struct Followers {
    _tasks: JoinSet<()>,
}

/// Why a watch has to begin anew.
enum Anew {
    /// There is no such resource, in this version.
    Absent,
    /// The server has forgotten the version to go on from.
    Forgotten,
}

/// Follows one kind for ever, whatever happens to whoever does.
async fn keep_following(client: Client, kind: &'static Kind, wanted: watcher::Config, holdings: Holdings) {
    loop {
        // Ends with this task, unlike one that is spawned by itself.
        let mut one = JoinSet::new();
        one.spawn(follow(client.clone(), kind, wanted.clone(), holdings.clone()));
        if let Some(Err(error)) = one.join_next().await {
            tracing::error!(resource = kind.resource(), %error, "following it ended; it begins anew");
            holdings.trouble(kind, error.to_string());
        }
        tokio::time::sleep(ABSENT_RETRY).await;
    }
}

/// Follows one kind for ever.
async fn follow(client: Client, kind: &'static Kind, wanted: watcher::Config, holdings: Holdings) {
    loop {
        let mut absent = 0;
        while let Some(version) = kind.versions.get(absent) {
            match follow_version(&client, (kind, version), &wanted, &holdings).await {
                Anew::Absent => absent += 1,
                Anew::Forgotten => {}
            }
        }
        holdings.absent(kind);
        tokio::time::sleep(ABSENT_RETRY).await;
    }
}

async fn follow_version(
    client: &Client,
    (kind, version): (&'static Kind, &str),
    wanted: &watcher::Config,
    holdings: &Holdings,
) -> Anew {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource(kind, version));
    let mut events = watcher::watcher(api, wanted.clone()).default_backoff().boxed();
    let kept = |object: DynamicObject| kept(kind, version, &object);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => listed.extend(kept(object)),
            Ok(Event::InitDone) => holdings.replace(kind, std::mem::take(&mut listed)),
            Ok(Event::Apply(object)) => {
                if let Some(object) = kept(object) {
                    holdings.put(kind, object);
                }
            }
            Ok(Event::Delete(object)) => {
                if let Some(object) = kept(object) {
                    holdings.remove(kind, &object);
                }
            }
            Err(error) => match status(&error).map(|status| status.code) {
                Some(404) if !kind.is_everywhere() => return Anew::Absent,
                // Told by the status of the answer, not within the stream, which the library does not look for.
                Some(410) if matches!(error, watcher::Error::WatchStartFailed(_)) => return Anew::Forgotten,
                Some(410) => {}
                _ => {
                    let why = why(&error);
                    tracing::warn!(resource = kind.resource(), "the API server does not tell: {why}");
                    holdings.trouble(kind, why);
                }
            },
        }
    }
    Anew::Forgotten // It never ends by itself.
}

/// A kind as the library describes one.
pub(super) fn resource(kind: &Kind, version: &str) -> ApiResource {
    ApiResource {
        group: kind.group.to_owned(),
        version: version.to_owned(),
        api_version: if kind.group.is_empty() { version.to_owned() } else { format!("{}/{version}", kind.group) },
        kind: kind.name.to_owned(),
        plural: kind.plural.to_owned(),
    }
}

fn kept(kind: &Kind, version: &str, object: &DynamicObject) -> Option<Object> {
    trim(kind, version, serde_json::to_value(object).ok()?)
}

/// The status of an answer that is an error.
fn status(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}

/// What is wrong: in the words of the API server, if it has any.
fn why(error: &watcher::Error) -> String {
    let said = status(error).map(|status| &status.message).filter(|message| !message.is_empty());
    said.cloned().unwrap_or_else(|| crate::diagnostic::chain(error))
}
