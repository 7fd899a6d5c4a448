//! The proxy's threads: each has a runtime of its own and listens at all addresses; the kernel shares connections out.
use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Builder,
    sync::watch,
};

use super::{
    access_log::AccessLog,
    server::{Settings, serve},
    table::RouteTable,
    telemetry::Requests,
};
use crate::state::State;

/// Connections that wait to be accepted, on each thread.
const BACKLOG: u32 = 1_024;

/// Publishes rules to the threads.
#[derive(Debug, Clone)]
pub struct Routes(Arc<Mutex<watch::Sender<Arc<RouteTable>>>>);

impl Routes {
    /// Makes `state` what the next request meets. Rules that stay keep their counters.
    pub fn publish(&self, state: &State) {
        // A table that was half made was never published.
        let tables = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let next = RouteTable::build(state, Some(&tables.borrow()));
        tables.send_replace(Arc::new(next));
    }

    /// What became of requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        let table = self.0.lock().unwrap_or_else(PoisonError::into_inner).borrow().clone();
        table.requests()
    }
}

/// The running proxy.
#[derive(Debug)]
pub struct Threads {
    routes: Routes,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Listens at `addresses`, on one thread for each CPU. `frontend_of` has the virtual address of a connection, by peer
    /// and local address. Requests are logged if there is a `log`.
    ///
    /// # Errors
    /// When an address cannot be listened at, or a thread cannot be started.
    pub fn start(
        addresses: &[SocketAddr],
        frontend_of: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr> + Send + Clone + 'static,
        log: Option<AccessLog>,
    ) -> io::Result<Self> {
        let (tables, table) = watch::channel(Arc::new(RouteTable::logging(log)));
        let (stop, stopped) = watch::channel(false);
        let mut threads = Vec::new();
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        for number in 0..if addresses.is_empty() { 0 } else { cpus } {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let listeners = {
                let _inside = runtime.enter();
                addresses.iter().map(|address| listen(*address)).collect::<io::Result<Vec<_>>>()?
            };
            let (table, stopped, frontend_of) = (table.clone(), stopped.clone(), frontend_of.clone());
            let work = move || {
                runtime.block_on(async {
                    let all = listeners.into_iter().map(|listener| {
                        serve(listener, frontend_of.clone(), table.clone(), stopped.clone(), Settings::default())
                    });
                    futures::future::join_all(all).await;
                });
            };
            threads.push(thread::Builder::new().name(format!("canary-proxy-{number}")).spawn(work)?);
        }
        Ok(Self { routes: Routes(Arc::new(Mutex::new(tables))), stop, running: threads })
    }

    /// Where rules are published.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Accepts nothing any more and waits until the open requests have ended, or their time is over.
    pub fn stop(self) {
        let _ = self.stop.send(true); // Threads that have ended need no telling.
        for thread in self.running {
            let _ = thread.join();
        }
    }
}

/// A socket that shares its address with those of the other threads.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{address}: {error}"));
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.map_err(named)?;
    socket.set_reuseaddr(true).map_err(named)?;
    socket.set_reuseport(true).map_err(named)?;
    socket.bind(address).map_err(named)?;
    socket.listen(BACKLOG).map_err(named)
}
