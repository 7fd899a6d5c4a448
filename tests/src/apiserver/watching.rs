//! Watches: streams of events, one JSON document a line.
use std::{sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use futures::stream;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    Parameters, Shared,
    store::{Event, Target},
    streamed,
};

/// Between two bookmarks.
const BOOKMARKS: Duration = Duration::from_millis(500);

/// One client's watch.
struct Watching {
    shared: Arc<Shared>,
    changed: watch::Receiver<u64>,
    /// Number of the last break when it began.
    epoch: u64,
    target: Target,
    /// Only this object.
    name: Option<String>,
    version: u64,
    bookmarks: bool,
    until: Instant,
    state: State,
}

#[derive(PartialEq)]
enum State {
    Going,
    Breaking,
    Ended,
}

/// Why a body breaks off.
type Broken = std::io::Error;

pub(super) fn watch(shared: &Arc<Shared>, target: &Target, parameters: &Parameters) -> Response {
    let store = shared.store();
    let given = parameters.resource_version.as_deref().and_then(|it| it.parse().ok()).filter(|it| *it > 0);
    let version = given.unwrap_or(store.version);
    drop(store);
    let changed = shared.changed.subscribe();
    let epoch = *changed.borrow();
    let seconds = parameters.timeout_seconds.unwrap_or(1_800);
    let watching = Watching {
        shared: Arc::clone(shared),
        changed,
        epoch,
        target: Target {
            resource: target.resource,
            version: target.version.clone(),
            namespace: target.namespace.clone(),
            name: None,
            subresource: None,
        },
        name: parameters.name().map(str::to_owned),
        version,
        bookmarks: parameters.allow_watch_bookmarks.as_deref() == Some("true"),
        until: Instant::now() + Duration::from_secs(seconds),
        state: State::Going,
    };
    streamed(Body::from_stream(stream::unfold(watching, |mut watching| async {
        watching.next().await.map(|chunk| (chunk, watching))
    })))
}

impl Watching {
    async fn next(&mut self) -> Option<Result<String, Broken>> {
        loop {
            match self.state {
                State::Ended => return None,
                State::Breaking => {
                    self.state = State::Ended;
                    return Some(Err(std::io::ErrorKind::ConnectionReset.into()));
                }
                State::Going => {}
            }
            if let Some(chunk) = self.events() {
                return Some(Ok(chunk));
            }
            if *self.changed.borrow_and_update() != self.epoch {
                self.state = State::Breaking;
                return Some(Ok("{\"type\":\"MODIFIED\",\"object\":{\"kind\":".to_owned()));
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.until) => return None,
                () = tokio::time::sleep(BOOKMARKS), if self.bookmarks => {
                    self.version = self.shared.store().version.max(self.version);
                    let (kind, version) = (self.target.resource.kind, self.version.to_string());
                    let metadata = json!({"resourceVersion": version, "creationTimestamp": null});
                    let object = json!({"kind": kind, "apiVersion": self.target.api_version(), "metadata": metadata});
                    return Some(Ok(line("BOOKMARK", &object)));
                }
            }
        }
    }

    /// What happened since the last look; `None` when nothing did.
    fn events(&mut self) -> Option<String> {
        let store = self.shared.store();
        let Some(events) = store.events_after(self.version) else {
            self.state = State::Ended;
            let message = format!("too old resource version: {}", self.version);
            return Some(line(
                "ERROR",
                &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": "Expired", "code": 410}),
            ));
        };
        let lines: String = events
            .iter()
            .filter(|it| self.target.covers(&it.key) && self.name.as_ref().is_none_or(|name| it.key.name == *name))
            .map(|Event { kind, object, .. }| line(kind, object))
            .collect();
        self.version = events.last().map_or(self.version, |last| last.version);
        (!lines.is_empty()).then_some(lines)
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
