//! What is said about objects at the API server: conditions in their status, and Events. Never anything else of them.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client, Error,
    api::{DynamicObject, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Access, CONTROLLER, ConnectError, KINDS, Object,
    follow::resource,
    lease::{Lease, RENEWAL},
};

/// The manager of the fields that are written.
const MANAGER: &str = "canary";
/// An Event holds no longer a note.
const NOTE_MAX: usize = 1_000;

/// All that there is to say about one object.
#[derive(Debug, Clone, PartialEq)]
pub struct Remark {
    /// The object, as it is in force.
    pub object: Arc<Object>,
    /// What its status should say.
    pub says: Option<Says>,
    /// Errors: code and text.
    pub problems: Vec<(&'static str, String)>,
}

/// A status, or a part of one. Conditions have neither times nor generations yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Says {
    /// Entries of `status.parents` by the controller that each names; those of others are theirs.
    Parents(Vec<Value>),
    /// Fields of `status`.
    Fields(Value),
}

impl Access {
    /// Writes the newest `remarks`, for ever, while the Lease in `namespace` is held.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn tell(
        &self,
        namespace: String,
        remarks: watch::Receiver<Arc<Vec<Remark>>>,
    ) -> Result<impl Future<Output = ()> + use<>, ConnectError> {
        let client = Client::try_from(self.config().await?).map_err(|error| ConnectError::Client(error.into()))?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let holder = format!("{host}-{}", std::process::id());
        let reporter = Reporter { controller: "canary.io/agent".into(), instance: Some(host) };
        let writer = Writer {
            lease: Lease::new(client.clone(), &namespace, holder),
            recorder: Recorder::new(client.clone(), reporter),
            client,
            remarks,
            said: BTreeMap::new(),
            told: BTreeSet::new(),
            trouble: None,
            renewed: Instant::now(),
        };
        Ok(writer.run())
    }
}

struct Writer {
    client: Client,
    lease: Lease,
    recorder: Recorder,
    remarks: watch::Receiver<Arc<Vec<Remark>>>,
    /// What was written of each object, by its id.
    said: BTreeMap<String, Remark>,
    /// Events that were sent: object and text.
    told: BTreeSet<(String, String)>,
    trouble: Option<String>,
    /// When the Lease was looked at last.
    renewed: Instant,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let done = self.turn().await;
            self.report(done);
            // What could not be written is tried again with the next renewal, at the latest.
            tokio::select! {
                () = tokio::time::sleep(RENEWAL) => {}
                changed = self.remarks.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Holds the Lease on; without it another agent may write.
    async fn hold(&mut self) -> Result<bool, Error> {
        let held = self.lease.hold().await?;
        self.renewed = Instant::now();
        if !held {
            self.said.clear();
        }
        Ok(held)
    }

    async fn turn(&mut self) -> Result<(), Error> {
        if !self.hold().await? {
            return Ok(());
        }
        let remarks = self.remarks.borrow_and_update().clone();
        let saying = remarks.iter().filter(|remark| remark.says.is_some());
        let now: BTreeSet<String> = saying.map(|remark| remark.object.id()).collect();
        let mut last = Ok(());
        for remark in remarks.iter() {
            // Many may take longer than the Lease lasts.
            if self.renewed.elapsed() > RENEWAL && !self.hold().await? {
                return Ok(());
            }
            let id = remark.object.id();
            let same = |it: &Remark| it.says == remark.says && it.object.body == remark.object.body;
            if remark.says.is_some() && !self.said.get(&id).is_some_and(same) {
                match self.write(&remark.object, remark.says.as_ref()).await {
                    Ok(()) => drop(self.said.insert(id.clone(), remark.clone())),
                    Err(error) => last = Err(error),
                }
            }
            for (code, text) in &remark.problems {
                let key = (id.clone(), text.clone());
                if !self.told.contains(&key) {
                    match self.event(&remark.object, code, text).await {
                        Ok(()) => drop(self.told.insert(key)),
                        Err(error) => last = Err(error),
                    }
                }
            }
        }
        // What was said of an object that nothing is to be said of any more is taken back.
        let stale: Vec<Remark> =
            self.said.iter().filter(|(id, _)| !now.contains(*id)).map(|(_, remark)| remark.clone()).collect();
        for remark in stale {
            let done = match remark.says {
                Some(Says::Parents(_)) => self.write(&remark.object, Some(&Says::Parents(Vec::new()))).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                last = Err(error);
                continue;
            }
            self.said.remove(&remark.object.id());
        }
        self.told.retain(|(id, text)| {
            remarks.iter().any(|remark| remark.object.id() == *id && remark.problems.iter().any(|(_, it)| it == text))
        });
        last
    }

    /// Writes the status of an object, unless it says so already or the object is gone.
    async fn write(&self, object: &Object, says: Option<&Says>) -> Result<(), Error> {
        let (Some(says), Some(api)) = (says, self.api(object)) else { return Ok(()) };
        let found = match api.get_status(&object.name).await {
            Err(Error::Api(status)) if status.code == 404 => return Ok(()),
            found => found?,
        };
        let old = found.data.get("status").cloned().unwrap_or_default();
        let generation = object.body.pointer("/metadata/generation").and_then(Value::as_i64);
        let new = status(&old, says, generation, &Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
        if new == old {
            return Ok(());
        }
        let patch = json!({"metadata": {"resourceVersion": found.metadata.resource_version}, "status": new});
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        match api.patch_status(&object.name, &parameters, &Patch::Merge(&patch)).await {
            Err(Error::Api(status)) if status.code == 404 => Ok(()),
            written => written.map(drop),
        }
    }

    async fn event(&self, object: &Object, code: &str, text: &str) -> Result<(), Error> {
        let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= NOTE_MAX).unwrap_or(text.len());
        let event = Event {
            type_: EventType::Warning,
            reason: code.to_owned(),
            note: text.get(..end).map(str::to_owned),
            action: "Compile".into(),
            secondary: None,
        };
        let text = |pointer: &str| object.body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let about = ObjectReference {
            api_version: Some(object.api_version.clone()),
            kind: Some(object.kind.clone()),
            name: Some(object.name.clone()),
            namespace: Some(object.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            uid: text("/metadata/uid"),
            ..ObjectReference::default()
        };
        self.recorder.publish(&event, &about).await
    }

    fn api(&self, object: &Object) -> Option<Api<DynamicObject>> {
        let kind = KINDS.iter().find(|kind| kind.name == object.kind && kind.group == object.group())?;
        let version = object.api_version.rsplit('/').next()?;
        let described = resource(kind, version);
        Some(if object.namespace.is_empty() {
            Api::all_with(self.client.clone(), &described)
        } else {
            Api::namespaced_with(self.client.clone(), &object.namespace, &described)
        })
    }

    /// Says once what keeps it from writing, and when that is over.
    fn report(&mut self, done: Result<(), Error>) {
        let trouble = done.err().map(|error| crate::diagnostic::chain(&error));
        match (&trouble, &self.trouble) {
            (Some(now), before) if before.as_ref() != Some(now) => {
                tracing::warn!("cannot write statuses or Events: {now}; they are tried again");
            }
            (None, Some(_)) => tracing::info!("statuses and Events are written again"),
            _ => {}
        }
        self.trouble = trouble;
    }
}

/// The status with what is to be said in it. Conditions that hold as before keep their time.
pub(super) fn status(old: &Value, says: &Says, generation: Option<i64>, now: &str) -> Value {
    let mut new = old.as_object().cloned().unwrap_or_default();
    match says {
        Says::Parents(entries) => {
            let before = old.get("parents").and_then(Value::as_array).cloned().unwrap_or_default();
            let own = |entry: &Value| entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER);
            let same_parent = |a: &Value, b: &Value| own(a) && a.get("parentRef") == b.get("parentRef");
            let entries = entries.iter().map(|entry| {
                let old = before.iter().find(|it| same_parent(it, entry));
                dated(entry, old.unwrap_or(&Value::Null), generation, now)
            });
            let parents: Vec<Value> = before.iter().filter(|it| !own(it)).cloned().chain(entries).collect();
            new.insert("parents".into(), parents.into());
        }
        Says::Fields(fields) => {
            let mut fields = dated(fields, old, generation, now);
            for listener in fields.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
                let before = old.get("listeners").and_then(Value::as_array).into_iter().flatten();
                let before = before.into_iter().find(|it| it.get("name") == listener.get("name"));
                *listener = dated(listener, before.unwrap_or(&Value::Null), generation, now);
            }
            new.extend(fields.as_object().cloned().unwrap_or_default());
        }
    }
    Value::Object(new)
}

/// The same with times and generations in its conditions, those of `old` where nothing has changed.
fn dated(of: &Value, old: &Value, generation: Option<i64>, now: &str) -> Value {
    let mut of = of.clone();
    for condition in of.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let before = old
            .get("conditions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|it| ["type", "status"].iter().all(|field| it.get(*field) == condition.get(*field)));
        let since = before.and_then(|it| it.get("lastTransitionTime")).cloned().unwrap_or_else(|| now.into());
        if let Some(condition) = condition.as_object_mut() {
            condition.insert("lastTransitionTime".into(), since);
            condition.extend(generation.map(|generation| ("observedGeneration".to_owned(), generation.into())));
        }
    }
    of
}
