//! The proxy's threads: each has a runtime of its own and listens at all addresses; the kernel shares connections out.
use std::{
    io,
    net::SocketAddr,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::{self, JoinHandle},
};

use futures::future::{join, join_all};
use tokio::{net::TcpListener, runtime::Builder, sync::watch, time::sleep};

use super::{
    access_log::AccessLog,
    door::{Door, House},
    limited::Limited,
    powers,
    server::{Settings, serve},
    sockets::{Socket, Sockets},
    table::{Ejections, RouteTable},
    telemetry::Requests,
};
use crate::{state::State, stop::stopped};

/// Publishes rules to the threads.
#[derive(Debug, Clone)]
pub struct Routes {
    tables: Arc<Mutex<watch::Sender<Arc<RouteTable>>>>,
    limited: Arc<Limited>,
}

impl Routes {
    /// Makes `state` what the next request meets. Rules that stay keep their counters.
    pub fn publish(&self, state: &State) {
        // A table that was half made was never published.
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let next = RouteTable::build(state, Some(&tables.borrow()));
        tables.send_replace(Arc::new(next));
    }

    /// What became of requests so far.
    #[must_use]
    pub fn requests(&self) -> Requests {
        let table = self.tables.lock().unwrap_or_else(PoisonError::into_inner).borrow().clone();
        table.requests()
    }

    /// What clients were kept from so far.
    #[must_use]
    pub fn limited(&self) -> &Limited {
        &self.limited
    }

    /// Ejections of endpoints; of no proxy none.
    #[must_use]
    pub fn ejections(&self) -> Vec<Ejections> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).borrow().ejections()
    }
}

/// The running proxy.
#[derive(Debug)]
pub struct Threads {
    routes: Routes,
    stop: watch::Sender<bool>,
    running: Vec<JoinHandle<()>>,
    house: House,
}

/// One of them for each CPU.
#[must_use]
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

impl Threads {
    /// Serves `sockets`, without any power of root's, from the first rules on: until they are published, connections wait
    /// in the kernel. `frontend_of` has the virtual address of a connection, by peer and local address. Requests are logged
    /// if there is a `log`.
    ///
    /// # Errors
    /// When a thread cannot be started, or cannot give up its capabilities.
    pub fn start(
        sockets: Sockets,
        settings: Settings,
        house: House,
        frontend_of: impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr> + Send + Clone + 'static,
        log: Option<AccessLog>,
    ) -> io::Result<Self> {
        let (tables, table) = watch::channel(Arc::new(RouteTable::logging(log)));
        let (stop, stopped) = watch::channel(false);
        let (report, started) = mpsc::channel();
        let mut running = Vec::new();
        let mut retired = sockets.retired;
        let busy = sockets.dealt.into_iter().filter(|sockets| !sockets.is_empty());
        for (number, sockets) in busy.enumerate() {
            let work = Work {
                sockets,
                retired: std::mem::take(&mut retired),
                table: table.clone(),
                stop: stopped.clone(),
                settings,
                house: house.clone(),
            };
            let (report, frontend_of) = (report.clone(), frontend_of.clone());
            let run = move || {
                let given_up = powers::give_up();
                let powerless = given_up.is_ok();
                // Whoever starts the threads waits for it.
                let _ = report.send(given_up);
                if powerless && let Err(error) = work.run(&frontend_of) {
                    tracing::error!(%error, "a thread of the proxy ended");
                }
            };
            running.push(thread::Builder::new().name(format!("canary-proxy-{number}")).spawn(run)?);
        }
        for _ in &running {
            started.recv().map_err(io::Error::other)??;
        }
        let routes = Routes { tables: Arc::new(Mutex::new(tables)), limited: house.limited.clone() };
        Ok(Self { routes, stop, running, house })
    }

    /// Where rules are published.
    #[must_use]
    pub fn routes(&self) -> Routes {
        self.routes.clone()
    }

    /// Leaves new connections to another process that accepts from the same sockets, and waits as [`Self::stop`] does.
    pub fn succeeded(self) {
        self.house.succeeded();
        self.stop();
    }

    /// Waits until the open requests have ended, or their time is over. New connections are answered once each meanwhile;
    /// then the sockets are closed.
    pub fn stop(self) {
        let _ = self.stop.send(true); // Threads that have ended need no telling.
        for thread in self.running {
            let _ = thread.join();
        }
    }
}

/// What one thread does.
struct Work {
    sockets: Vec<Socket>,
    retired: Vec<Socket>,
    table: watch::Receiver<Arc<RouteTable>>,
    stop: watch::Receiver<bool>,
    settings: Settings,
    house: House,
}

impl Work {
    fn run(self, frontend_of: &(impl Fn(SocketAddr, SocketAddr) -> Option<SocketAddr> + Clone)) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let Self { sockets, retired, mut table, mut stop, settings, house } = self;
            let door = |socket: Socket| {
                socket.set_nonblocking(true)?;
                Ok(Door::new(TcpListener::from_std(socket)?, house.clone()))
            };
            let doors = sockets.into_iter().map(door).collect::<io::Result<Vec<_>>>()?;
            let retired = retired.into_iter().map(door).collect::<io::Result<Vec<_>>>()?;
            tokio::select! {
                _ = table.changed() => {} // Without whoever publishes, a stop follows.
                () = stopped(&mut stop) => return Ok(()),
            }
            let all = |doors: Vec<Door>, stop: &watch::Receiver<bool>| {
                let serving = doors
                    .into_iter()
                    .map(|door| serve(door, frontend_of.clone(), table.clone(), stop.clone(), settings));
                join_all(serving.collect::<Vec<_>>())
            };
            // Nobody is sent to the old addresses any more once the kernel has the new ones, but some are on the way.
            let (leave, left) = watch::channel(false);
            let mut early = stop.clone();
            let leaving = async {
                if !retired.is_empty() {
                    tokio::select! {
                        () = sleep(settings.drain) => {}
                        () = stopped(&mut early) => {}
                    }
                    leave.send_replace(true);
                    all(retired, &left).await;
                }
            };
            join(all(doors, &stop), leaving).await;
            Ok(())
        })
    }
}
