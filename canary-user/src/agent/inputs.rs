//! What an agent reads and what wakes it: files, the cluster, links and routes.
use std::time::Duration;

use tokio::{runtime::Runtime, sync::watch, task::JoinHandle};

use crate::{
    agent::{
        run::RunError,
        settings::Settings,
        view::View,
        wake::{Handle, Wake},
    },
    dataplane::{Attach, Changes},
    source::{
        cluster::{Cluster, Followers, Remarks},
        directory::{Directory, Watch},
        sources::Sources,
    },
};

/// An API server has so long to tell everything before the first pass: without it, that pass has nothing to work on.
const FIRST_LISTS: Duration = Duration::from_secs(5);
/// After something that could not be watched.
const AGAIN: Duration = Duration::from_secs(30);
/// A host where routes change all the time keeps nobody busy.
const NETWORK_PAUSE: Duration = Duration::from_millis(200);

/// Says at the API server what the agent has to say about its objects, for ever.
pub(super) fn tell(
    settings: &Settings,
    handle: &Handle,
    runtime: &Runtime,
) -> Result<Option<JoinHandle<()>>, RunError> {
    let (Some(access), Some(namespace)) = (&settings.cluster, settings.cluster_status.clone()) else { return Ok(None) };
    let (say, said) = watch::channel(remarks(&handle.view()));
    let writer = runtime.block_on(access.tell(namespace, said))?;
    let mut views = handle.views();
    Ok(Some(runtime.spawn(async move {
        tokio::pin!(writer);
        loop {
            tokio::select! {
                () = &mut writer => return,
                changed = views.changed() => if changed.is_err() { return },
            }
            let new = remarks(&views.borrow_and_update());
            say.send_if_modified(|said| {
                let differs = *said != new;
                *said = new;
                differs
            });
        }
    })))
}

/// What there is to say; `None` before it is known what there is.
fn remarks(view: &View) -> Remarks {
    (view.passes > 0).then(|| view.remarks.clone())
}

/// Sources that are watched from before their first read, so that no change falls between.
pub(super) struct Inputs {
    pub(super) sources: Sources,
    files: Option<Watch>,
    cluster: Option<(Cluster, Followers)>,
    network: Option<Changes>,
}

impl Inputs {
    /// Opens what the settings name, and waits a little for a cluster.
    pub(super) fn open(settings: &Settings, runtime: &Runtime) -> Result<Self, RunError> {
        let _inside = runtime.enter();
        let directory = settings.config.as_ref().map(Directory::open).transpose()?;
        let files = directory.as_ref().map(Directory::watch).transpose()?;
        let cluster = settings.cluster.as_ref().map(|access| runtime.block_on(access.follow())).transpose()?;
        if let Some((cluster, _)) = &cluster {
            let mut cluster = cluster.clone();
            let whole = async move { while cluster.read().is_err() && cluster.changed().await {} };
            // Whether in time or not, the first pass will tell.
            let _ = runtime.block_on(async { tokio::time::timeout(FIRST_LISTS, whole).await });
        }
        let listens = settings.dataplane.direct || settings.attach.iter().any(Attach::is_pattern);
        let network = listens.then(Changes::listen).transpose();
        let network = network.map_err(|source| RunError::Start { what: "to watch links and routes", source })?;
        let sources = Sources::new(directory, cluster.as_ref().map(|(cluster, _)| cluster.clone()));
        Ok(Self { sources, files, cluster, network })
    }

    /// Wakes the loop with every change, for ever.
    pub(super) fn wake(self, handle: &Handle, runtime: &Runtime) -> Vec<JoinHandle<()>> {
        let files = self.files.map(|files| runtime.spawn(wake_by_files(files, handle.clone())));
        let cluster = self.cluster.map(|cluster| runtime.spawn(wake_by_cluster(cluster, handle.clone())));
        let network = self.network.map(|network| runtime.spawn(wake_by_network(network, handle.clone())));
        [files, cluster, network].into_iter().flatten().collect()
    }
}

async fn wake_by_files(mut changes: Watch, handle: Handle) {
    loop {
        if let Err(error) = changes.changed().await {
            tracing::error!(%error, "cannot watch the configuration; it is read every 30 s all the same");
            tokio::time::sleep(AGAIN).await;
        }
        if handle.wake(Wake::Source).is_err() {
            return;
        }
    }
}

async fn wake_by_cluster((mut cluster, _followers): (Cluster, Followers), handle: Handle) {
    while cluster.changed().await {
        if handle.wake(Wake::Source).is_err() {
            return;
        }
    }
}

async fn wake_by_network(mut changes: Changes, handle: Handle) {
    loop {
        if let Err(error) = changes.changed().await {
            tracing::error!(%error, "cannot watch links and routes; they are looked at every 30 s all the same");
            tokio::time::sleep(AGAIN).await;
        }
        if handle.wake(Wake::Network).is_err() {
            return;
        }
        tokio::time::sleep(NETWORK_PAUSE).await;
    }
}
