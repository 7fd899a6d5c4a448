//! Puts an agent together: locks, the loop's thread, the directory's watch, the API, metrics, signals.
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    agent::{
        Agent, Ahead, Place,
        handover::{self, HandOverError, Successor},
        inputs::{self, Inputs},
        kernel::{Kernel, KernelError, pin_remedy},
        lock::{self, Lock, LockError, SocketFile},
        notify::Notifier,
        pass::PassError,
        proxied::{self, Before, Proxied},
        settings::Settings,
        store::{Store, StoreError},
        view::View,
        wake::{Handle, Wake},
    },
    api::{self, socket::SocketError},
    dataplane::Dataplane,
    source::{cluster::ConnectError, directory::SourceError},
    telemetry::{self, server::MetricsError, time},
};

/// Why the agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another agent is there, or a place cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// What an earlier agent stored cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configuration cannot be read.
    #[error("cannot use the configuration")]
    Source(#[from] SourceError),
    /// The cluster cannot be found.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// The socket cannot be made.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The metrics listener cannot be made.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// The access log cannot be written.
    #[error("cannot open the access log {path}")]
    AccessLog {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel's side cannot be opened.
    #[error("cannot open the data plane")]
    Kernel(#[source] KernelError),
    /// Programs cannot be attached.
    #[error(transparent)]
    Attach(PassError),
    /// No runtime, thread or signal handler.
    #[error("cannot start {what}")]
    Start {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Agents did not change places.
    #[error(transparent)]
    HandOver(#[from] HandOverError),
    /// The loop ended by itself.
    #[error("the agent's loop ended unexpectedly; the data plane keeps what was in force")]
    Died,
}

impl RunError {
    /// What to do about it; empty when the message says it all.
    #[must_use]
    pub fn remedy(&self, settings: &Settings) -> String {
        match self {
            Self::Lock(LockError::Held { .. }) => {
                "stop it first, or give --take-over; a second agent needs interfaces of its own (--attach), besides its own --pin, --state and --socket"
                    .into()
            }
            Self::Lock(LockError::Io { what: "pin directory", .. }) | Self::Kernel(_) => {
                pin_remedy(&settings.dataplane.pin)
            }
            Self::Lock(LockError::Io { .. }) | Self::Socket(SocketError::Bind { .. }) => {
                "run as root, or give --state and --socket in directories that this user may write to".into()
            }
            Self::AccessLog { .. } => "give --access-log a file that this user may write to, in a directory that exists".into(),
            Self::Cluster(_) => "give --kubeconfig FILE, or run in a pod with a service account".into(),
            Self::Source(_) => "give --config a directory that exists and that this user may read".into(),
            Self::HandOver(HandOverError::Silent { .. }) => {
                "stop it, and start this one without --take-over; connections through its proxy are refused meanwhile".into()
            }
            Self::Attach(error) => error.remedy().trim_end_matches("; the agent tries again").into(),
            _ => String::new(),
        }
    }
}

/// Runs the real agent until a signal ends it. The data plane stays in place.
///
/// # Errors
/// When it cannot start.
pub fn run(settings: &Settings) -> Result<(), RunError> {
    let dataplane = settings.dataplane.clone();
    let open = move || Dataplane::open(&dataplane).map_err(KernelError::new);
    let runtime = runtime()?;
    let mut running = Running::start(settings, &runtime, open)?;
    match runtime.block_on(running.until_end()) {
        Ok(End::Relieved(successor)) => running.hand_over(&runtime, successor),
        signals => {
            running.stop(&runtime);
            signals.map(drop)
        }
    }
}

/// The runtime of everything but the loop.
///
/// # Errors
/// When there is none to have.
pub fn runtime() -> Result<Runtime, RunError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|source| RunError::Start { what: "the runtime", source })
}

/// An agent at work.
#[derive(Debug)]
pub struct Running {
    /// The door to its loop.
    pub handle: Handle,
    /// Address of the metrics listener.
    pub metrics: Option<SocketAddr>,
    notifier: Notifier,
    stop: watch::Sender<bool>,
    ended: oneshot::Receiver<()>,
    tasks: Vec<JoinHandle<()>>,
    endless: Vec<JoinHandle<()>>,
    proxy: Proxied,
    successor: oneshot::Receiver<Successor>,
    /// Fields are dropped in order: the sockets go while their lock is held.
    sockets: [SocketFile; 2],
    locks: [Lock; 3],
}

/// Why an agent ends.
enum End {
    /// It was told to.
    Signal,
    /// Another one takes its place.
    Relieved(Successor),
}

impl Running {
    /// Starts an agent on the kernel that `open` opens. `open` is called on the loop's own thread.
    ///
    /// # Errors
    /// When a part of it cannot start; then no part runs.
    pub fn start<K: Kernel>(
        settings: &Settings,
        runtime: &Runtime,
        open: impl FnOnce() -> Result<K, KernelError> + Send + 'static,
    ) -> Result<Self, RunError> {
        let before = Before::find(settings)?;
        let locks = [
            lock::file("socket", &settings.socket, &lock::beside(&settings.socket))?,
            lock::file("state directory", &settings.state, &settings.state.join("lock"))?,
            lock::directory("pin directory", &settings.dataplane.pin)?,
        ];
        let inputs = Inputs::open(settings, runtime)?;
        let notifier = Notifier::default();
        let (proxy, copies) = Proxied::start(settings, before.sockets, &notifier)?;
        let place = Place {
            source: inputs.sources.clone(),
            attach: settings.attach.clone(),
            store: Store::open(&settings.state)?,
            clock: time::now,
            proxy: settings.proxy.iter().copied().collect(),
            ahead: Ahead(Box::new({
                let routes = (!settings.proxy.is_empty()).then(|| proxy.routes());
                move |state| routes.iter().for_each(|routes| routes.publish(state))
            })),
        };
        let (listener, policy) = {
            let _inside = runtime.enter();
            api::socket::bind(&settings.socket, settings.socket_group.as_deref())?
        };
        let door = {
            let _inside = runtime.enter();
            handover::listen(&handover::beside(&settings.socket))?
        };
        let sockets = [SocketFile(settings.socket.clone()), SocketFile(handover::beside(&settings.socket))];
        let metrics = settings.metrics.map(|address| runtime.block_on(telemetry::server::bind(address))).transpose()?;

        let (wakes, ended, view) = spawn_loop(open, place, notifier.clone())?;
        if let Some(predecessor) = before.predecessor {
            runtime.spawn(proxied::relieve(predecessor, view.clone()));
        }
        let handle = Handle::new(wakes, view).with_proxy(proxy.routes());
        let (stop, mut stopped) = watch::channel(false);
        let address = metrics.as_ref().and_then(|listener| listener.local_addr().ok());

        let mut endless = inputs.wake(&handle, runtime);
        endless.extend(inputs::tell(settings, &handle, runtime)?);
        let router = api::router(handle.clone());
        let mut tasks = vec![runtime.spawn(api::socket::serve(listener, policy, router, stopped.clone()))];
        if let Some(listener) = metrics {
            let agent = handle.clone();
            tasks.push(runtime.spawn(async move {
                let stop = async move { crate::stop::stopped(&mut stopped).await };
                if let Err(error) = telemetry::server::serve(listener, agent, stop).await {
                    tracing::error!(%error, "the metrics listener ended");
                }
            }));
        }
        let (tell, successor) = oneshot::channel();
        endless.push(runtime.spawn(proxied::meet_successor(door, copies, tell)));
        Ok(Self { handle, metrics: address, notifier, stop, ended, tasks, endless, proxy, successor, sockets, locks })
    }

    /// Ends the loop and the listeners and removes the socket. The data plane stays in place.
    pub fn stop(self, runtime: &Runtime) {
        // Last, for requests may take their time: the socket is another agent's to take meanwhile.
        self.end(runtime).stop();
    }

    /// Leaves the work to another agent. The data plane stays in place, and the proxy goes on until the other one works.
    fn hand_over(self, runtime: &Runtime, successor: Successor) -> Result<(), RunError> {
        tracing::info!("another agent takes over");
        let proxy = self.end(runtime);
        match successor.let_work() {
            Ok(()) => proxy.succeeded(),
            Err(error) => {
                proxy.stop();
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Ends everything but the proxy, and gives up the locks.
    fn end(mut self, runtime: &Runtime) -> Proxied {
        self.notifier.stopping();
        // Either may have ended already.
        let _ = self.handle.wake(Wake::Stop);
        let _ = self.stop.send(true);
        self.endless.iter().for_each(JoinHandle::abort);
        runtime.block_on(async {
            let _ = tokio::time::timeout(Duration::from_secs(10), &mut self.ended).await;
            for task in self.tasks.drain(..) {
                let _ = tokio::time::timeout(Duration::from_secs(3), task).await;
            }
        });
        drop(self.sockets);
        drop(self.locks);
        self.proxy
    }
}

type Started = (mpsc::Sender<Wake>, oneshot::Receiver<()>, watch::Receiver<Arc<View>>);

/// Opens the kernel's side and attaches on the loop's thread, and reports back before the first pass.
fn spawn_loop<K: Kernel>(
    open: impl FnOnce() -> Result<K, KernelError> + Send + 'static,
    place: Place,
    mut notifier: Notifier,
) -> Result<Started, RunError> {
    let (wakes, causes) = mpsc::channel();
    let (report, started) = mpsc::channel();
    let (end, ended) = oneshot::channel();
    let work = move || {
        let begin = || -> Result<_, RunError> {
            let kernel = open().map_err(RunError::Kernel)?;
            let (mut agent, view) = Agent::new(kernel, place)?;
            agent.attach().map_err(RunError::Attach)?;
            Ok((agent, view))
        };
        let agent = match begin() {
            Ok((agent, view)) => {
                // Whoever waits for it is still there: it waits for nothing else.
                let _ = report.send(Ok(view));
                agent
            }
            Err(error) => {
                let _ = report.send(Err(error));
                return;
            }
        };
        agent.run(&causes, Notifier::pulse(), |view| notifier.beat(view));
        let _ = end.send(());
    };
    thread::Builder::new()
        .name("canary-loop".into())
        .spawn(work)
        .map_err(|source| RunError::Start { what: "the loop's thread", source })?;
    let view = started.recv().map_err(|_| RunError::Died)??;
    Ok((wakes, ended, view))
}

impl Running {
    /// Works until a signal ends it or another agent takes its place.
    async fn until_end(&mut self) -> Result<End, RunError> {
        let listen = |kind| signal(kind).map_err(|source| RunError::Start { what: "the signal handlers", source });
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    self.notifier.reloading();
                    self.proxy.reopen_log();
                    self.handle.wake(Wake::Resync).map_err(|_| RunError::Died)?;
                }
                Ok(successor) = &mut self.successor => return Ok(End::Relieved(successor)),
                () = self.handle.closed() => return Err(RunError::Died),
            }
        }
        tracing::info!("stopping; the data plane stays in place (`canary detach` removes it)");
        Ok(End::Signal)
    }
}

/// Removes programs, maps and links under `pin`, unless an agent runs on it.
///
/// # Errors
/// When an agent runs, or something cannot be removed.
pub fn detach(pin: &Path) -> Result<Vec<std::path::PathBuf>, DetachError> {
    if !pin.exists() {
        return Ok(Vec::new());
    }
    let _lock = lock::directory("pin directory", pin)?;
    Ok(crate::dataplane::detach(pin)?)
}

/// Why the data plane is not removed.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// An agent runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// Something cannot be removed.
    #[error("cannot remove the data plane")]
    Dataplane(#[from] crate::dataplane::DataplaneError),
}
