//! The end of what the agent serves: told to everybody at once, and kind to what is open.
use std::pin::{Pin, pin};

use tokio::sync::watch;

/// Waits until all is to stop. An error means that the agent is gone, which is a stop too.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

/// Serves a connection to its end. After a stop `finish` tells it to end with what is open then.
pub(crate) async fn serve<C: Future>(
    connection: C,
    finish: impl FnOnce(Pin<&mut C>),
    stop: &mut watch::Receiver<bool>,
) -> C::Output {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopped(stop) => {
            finish(connection.as_mut());
            connection.await
        }
    }
}
