//! How long to wait for the other side to go on.
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A clock that runs from the first fruitless try to the next progress. Without one it costs nothing.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
    /// Kept, and set anew only when it fires: bytes come far more often.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// The other side has gone on.
    pub(super) const fn progress(&mut self) {
        self.since = None;
    }

    /// It has not; ready when that has been so for as long as `limit`.
    pub(super) fn poll_over(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.since.get_or_insert_with(Instant::now) + limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test]
    async fn progress_begins_the_time_anew() {
        let limit = Duration::from_millis(600);
        let mut patience = Patience::default();
        let start = Instant::now();
        for _ in 0..10 {
            let over = poll_fn(|cx| patience.poll_over(limit, cx));
            assert!(tokio::time::timeout(Duration::from_millis(100), over).await.is_err(), "{:?}", start.elapsed());
            patience.progress();
        }
        let start = Instant::now();
        poll_fn(|cx| patience.poll_over(limit, cx)).await;
        assert!(start.elapsed() >= limit);
    }
}
