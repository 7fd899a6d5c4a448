//! Everything that can make the agent act, and the handle by which the API does.
use std::sync::{Arc, mpsc};

use tokio::sync::{oneshot, watch};

use crate::{
    agent::{
        edit::{Edit, EditError, Edited},
        history::Author,
        kernel::KernelError,
        view::View,
    },
    dataplane::{Counters, FlowRecord, MapMemory, Probe, Trace},
    proxy::{telemetry::Requests, threads::Routes},
};

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// A cause to act. Adding a variant is the only way to add a cause; the resync timer is the queue's timeout.
#[derive(Debug)]
pub enum Wake {
    /// Something changed in the directory.
    Source,
    /// Links or routes of this host changed.
    Network,
    /// SIGHUP, or `POST /v1/resync`.
    Resync,
    /// Somebody wants to change objects.
    Edit(Edit, Author, Reply<Result<Edited, EditError>>),
    /// Somebody wants to know something that only the kernel knows.
    Ask(Ask),
    /// The end; the data plane stays.
    Stop,
}

/// Questions to the data plane. They cause no pass.
#[derive(Debug)]
pub enum Ask {
    /// Counters, with the view that they belong to.
    Counters(Reply<Result<(Counters, Arc<View>), KernelError>>),
    /// Flows.
    Flows(usize, Reply<Result<Vec<FlowRecord>, KernelError>>),
    /// What would happen to packets.
    Trace(Vec<Probe>, Reply<Result<Vec<Trace>, KernelError>>),
    /// Differences between the maps and the state that should be in force.
    Verify(Reply<Result<Vec<String>, KernelError>>),
    /// Memory of the maps.
    Memory(Reply<Result<Vec<MapMemory>, KernelError>>),
}

/// The agent's loop has ended.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// A door to the loop; cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    wakes: mpsc::Sender<Wake>,
    view: watch::Receiver<Arc<View>>,
    routes: Option<Routes>,
}

impl Handle {
    /// Joins both ends.
    #[must_use]
    pub fn new(wakes: mpsc::Sender<Wake>, view: watch::Receiver<Arc<View>>) -> Self {
        Self { wakes, view, routes: None }
    }

    /// Knows what the proxy counts, too.
    #[must_use]
    pub fn with_proxy(self, routes: Routes) -> Self {
        Self { routes: Some(routes), ..self }
    }

    /// What the proxy counts, if there is one.
    #[must_use]
    pub const fn proxy(&self) -> Option<&Routes> {
        self.routes.as_ref()
    }

    /// What became of requests so far. The loop is not asked: it does not see them.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.routes.as_ref().map(Routes::requests).unwrap_or_default()
    }

    /// What the last pass published.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.borrow().clone()
    }

    /// All that is published from now on.
    #[must_use]
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Waits until the loop is gone.
    pub async fn closed(&self) {
        let mut view = self.view.clone();
        // The loop is the only publisher.
        while view.changed().await.is_ok() {}
    }

    /// Wakes the loop.
    ///
    /// # Errors
    /// When it has ended.
    pub fn wake(&self, wake: Wake) -> Result<(), Stopped> {
        self.wakes.send(wake).map_err(|_| Stopped)
    }

    /// Asks the data plane; `make` wraps the reply into the question.
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Ask) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.wake(Wake::Ask(make(reply)))?;
        answer.await.map_err(|_| Stopped)
    }

    /// Changes objects and waits until the change is in force (or refused).
    ///
    /// # Errors
    /// When the loop has ended.
    pub async fn edit(&self, edit: Edit, author: Author) -> Result<Result<Edited, EditError>, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.wake(Wake::Edit(edit, author, reply))?;
        answer.await.map_err(|_| Stopped)
    }
}
