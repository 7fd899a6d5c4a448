//! The end of a connection when the proxy stops: what is asked is answered, and whoever may ask any moment is told first.
use std::{pin::Pin, time::Duration};

use tokio::{sync::watch, time::sleep};

use super::wire::Control;
use crate::stop::stopped;

/// Serves a connection to its end. When the proxy stops, the answer that is under way is its last one, or the next one,
/// which says so (`Connection: close`): to close an idle connection at once would meet requests that are on their way.
/// `end` has it finish what it does, and no more.
pub(super) async fn serve<C: Future>(
    mut served: Pin<&mut C>,
    end: impl FnOnce(Pin<&mut C>),
    control: &Control,
    mut stop: watch::Receiver<bool>,
    linger: Duration,
) -> C::Output {
    tokio::select! {
        ended = served.as_mut() => return ended,
        () = stopped(&mut stop) => control.leave(),
    }
    if !control.is_busy() {
        tokio::select! {
            ended = served.as_mut() => return ended,
            () = sleep(linger) => {}
        }
    }
    end(served.as_mut());
    served.await
}

/// Ready when the proxy has stopped and whoever has not begun to ask has had its time.
pub(super) async fn lingered(mut stop: watch::Receiver<bool>, linger: Duration) {
    stopped(&mut stop).await;
    sleep(linger).await;
}
