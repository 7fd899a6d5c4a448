//! What is said about objects at the API server: conditions in their status, and Events. Never anything else of them.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};

use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::{
    Api, Client, Error,
    api::{DynamicObject, ListParams, Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Access, CONTROLLER, ConnectError, KINDS, Object,
    follow::resource,
    lease::{self, Lease, RENEWAL},
    trim::trim,
};
use crate::source::GATEWAY_API;

/// The manager of the fields that are written.
const MANAGER: &str = "canary";
/// Objects in one answer.
const PAGE: u32 = 500;
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

/// All that there is to say; `None` before anybody knows.
pub type Remarks = Option<Arc<Vec<Remark>>>;

impl Access {
    /// Writes the newest `remarks`, once there are any, for ever, while the Lease in `namespace` is held.
    ///
    /// # Errors
    /// When there is no cluster.
    pub async fn tell(
        &self,
        namespace: String,
        remarks: watch::Receiver<Remarks>,
    ) -> Result<impl Future<Output = ()> + use<>, ConnectError> {
        let client = Client::try_from(self.config().await?).map_err(|error| ConnectError::Client(error.into()))?;
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        let node = self.node.clone().unwrap_or_else(host);
        let lease = Lease::new(client.clone(), &namespace, lease::identity(&node));
        let reporter = Reporter { controller: "canary.io/agent".into(), instance: Some(node) };
        let writer = Writer {
            lease,
            recorder: Recorder::new(client.clone(), reporter),
            client,
            remarks,
            said: BTreeMap::new(),
            told: BTreeSet::new(),
            knows_all: false,
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
    remarks: watch::Receiver<Remarks>,
    /// What was written of each object, by its id.
    said: BTreeMap<String, Remark>,
    /// Events that were sent: object and text.
    told: BTreeSet<(String, String)>,
    /// What other agents have written is among what was written.
    knows_all: bool,
    trouble: Option<String>,
    /// When the Lease was looked at last.
    renewed: Instant,
}

impl Writer {
    async fn run(mut self) {
        loop {
            let done = self.turn().await;
            self.report(done);
            // What could not be written is tried again with the next renewal, at the latest. Whoever may not write does not ask
            // at every change whether he may now.
            let held = self.lease.is_held();
            tokio::select! {
                () = tokio::time::sleep(self.lease.pause()) => {}
                changed = self.remarks.changed(), if held => if changed.is_err() { return },
            }
        }
    }

    /// Holds the Lease on; without it another agent may write.
    async fn hold(&mut self) -> Result<bool, Error> {
        let held = self.lease.hold().await?;
        self.renewed = Instant::now();
        if !held {
            self.said.clear();
            self.knows_all = false;
        }
        Ok(held)
    }

    async fn turn(&mut self) -> Result<(), Error> {
        if !self.hold().await? {
            return Ok(());
        }
        let Some(remarks) = self.remarks.borrow_and_update().clone() else { return Ok(()) };
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
        if !self.knows_all {
            self.look_for_others(&now).await?;
            self.knows_all = true;
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

    /// Finds routes of which an agent that held the Lease before has said something, and nothing is to be said `now`.
    async fn look_for_others(&mut self, now: &BTreeSet<String>) -> Result<(), Error> {
        for kind in KINDS.iter().filter(|kind| kind.group == GATEWAY_API && kind.name.ends_with("Route")) {
            for version in kind.versions {
                let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource(kind, version));
                let mut page = ListParams::default().limit(PAGE);
                let found = loop {
                    let found = match api.list(&page).await {
                        Err(Error::Api(status)) if status.code == 404 => break false,
                        found => found?,
                    };
                    let more = found.metadata.continue_.clone().filter(|it| !it.is_empty());
                    for object in found {
                        let Ok(body) = serde_json::to_value(object) else { continue };
                        let own = body.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten();
                        let own = own.filter(|it| is_own(it)).cloned().collect::<Vec<_>>();
                        let Some(object) = trim(kind, version, body).filter(|_| !own.is_empty()) else { continue };
                        let (id, object) = (object.id(), Arc::new(object));
                        if !now.contains(&id) {
                            let says = Some(Says::Parents(own));
                            self.said.insert(id, Remark { object, says, problems: Vec::new() });
                        }
                    }
                    match more {
                        Some(more) => page = page.continue_token(&more),
                        None => break true,
                    }
                };
                if found {
                    break;
                }
            }
        }
        Ok(())
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

/// Whether an entry of `status.parents` is canary's.
fn is_own(entry: &Value) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(CONTROLLER)
}

/// The status with what is to be said in it. Conditions that hold as before keep their time.
pub(super) fn status(old: &Value, says: &Says, generation: Option<i64>, now: &str) -> Value {
    let mut new = old.as_object().cloned().unwrap_or_default();
    match says {
        Says::Parents(entries) => {
            let before = old.get("parents").and_then(Value::as_array).cloned().unwrap_or_default();
            let same_parent = |a: &Value, b: &Value| is_own(a) && a.get("parentRef") == b.get("parentRef");
            let entries = entries.iter().map(|entry| {
                let old = before.iter().find(|it| same_parent(it, entry));
                dated(entry, old.unwrap_or(&Value::Null), generation, now)
            });
            let parents: Vec<Value> = before.iter().filter(|it| !is_own(it)).cloned().chain(entries).collect();
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
