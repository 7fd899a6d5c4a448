//! What the service manager is told: readiness, reloads, the watchdog. Nothing happens without one.
use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sd_notify::NotifyState;

use crate::{
    agent::{
        handover,
        view::{Phase, View},
    },
    proxy::sockets::Socket,
};

/// What the sockets are called there.
const NAME: &str = "FDNAME=canary-proxy";

/// The loop's messages to the service manager.
#[derive(Debug, Clone, Default)]
pub struct Notifier {
    reloading: Arc<AtomicBool>,
    told: Option<(u64, Phase)>,
}

impl Notifier {
    /// How often [`Notifier::beat`] must be called: twice in the watchdog's time, and at least every five seconds.
    #[must_use]
    pub fn pulse() -> Duration {
        const SLOWEST: Duration = Duration::from_secs(5);
        sd_notify::watchdog_enabled().map_or(SLOWEST, |watchdog| (watchdog / 2).min(SLOWEST))
    }

    /// The loop is alive; says more when it has done a pass.
    pub fn beat(&mut self, view: &View) {
        send(&[NotifyState::Watchdog]);
        let passes = view.passes + view.failures;
        if passes == 0 || self.told == Some((passes, view.phase)) {
            return;
        }
        let first = self.told.is_none();
        self.told = Some((passes, view.phase));
        // Ready when the first pass was tried, even in vain: the door is open, and what was in force stays in force.
        if first || self.reloading.swap(false, Ordering::AcqRel) {
            send(&[NotifyState::Ready]);
        }
        let status = match (&view.phase, &view.trouble) {
            (Phase::Degraded, Some(trouble)) => format!("degraded: {}", trouble.message),
            _ => format!("services in force: {}", view.in_force.services.len()),
        };
        send(&[NotifyState::Status(&status)]);
    }

    /// SIGHUP: the next pass is a reload.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!(%error, "cannot tell the service manager about the reload"),
        }
        self.reloading.store(true, Ordering::Release);
    }

    /// Gives the service manager copies of listening sockets, to start the next agent with; `fresh`: in place of those that
    /// it has. While no agent runs, connections wait in them.
    pub fn keep(&self, sockets: &[Socket], fresh: bool) {
        if fresh {
            send(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(NAME)]);
        }
        let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return };
        for some in sockets.chunks(handover::AT_ONCE) {
            let some: Vec<_> = some.iter().map(AsFd::as_fd).collect();
            if let Err(error) = handover::send_to(&manager, &format!("FDSTORE=1\n{NAME}\n"), &some) {
                tracing::warn!(%error, "the service manager does not keep the proxy's sockets: a restart refuses connections");
            }
        }
    }

    /// The agent stops; the data plane stays.
    pub fn stopping(&self) {
        send(&[NotifyState::Stopping]);
    }
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
