//! An API server of Kubernetes, as far as canary and kubectl talk to one: objects with versions, lists in pages, watches that
//! end, forget and break off, conflicts, refusals. It is an imitation for tests; the promises are those of the API's concepts
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/>).
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use axum::{
    Router,
    body::Body,
    extract::{Query, Request, State},
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use crate::netns::Namespace;

pub(crate) mod change;
mod discovery;
mod store;
mod tls;
mod watching;

pub use discovery::RESOURCES;
use store::{Key, Store};
use tls::Identity;

/// What a server is told to do wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Resources (`pods`) that nobody may read: 403.
    pub forbidden: Vec<&'static str>,
    /// So many of the next patches come just after a change by somebody else.
    pub overtaken: u32,
    /// So many of the next requests are answered with 500.
    pub failing: u32,
    /// Every answer waits so long.
    pub delay: Duration,
}

/// A running server. Its objects outlive a stop.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    identity: Arc<Identity>,
    shared: Arc<Shared>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: oneshot::Sender<()>,
    thread: thread::JoinHandle<()>,
}

/// What requests share.
#[derive(Debug)]
struct Shared {
    store: Mutex<Store>,
    faults: Mutex<Faults>,
    /// Told of each change of the store; the number goes up when streams are to break off.
    changed: watch::Sender<u64>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiServer {
    /// Starts a server without objects on a free port of loopback, in `namespace` or in the caller's own.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(namespace: Option<&Namespace>) -> Result<Self> {
        let shared = Arc::new(Shared {
            store: Mutex::new(Store::default()),
            faults: Mutex::default(),
            changed: watch::Sender::new(0),
        });
        let (address, identity) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Arc::new(Identity::new()?));
        let mut server = Self { address, identity, shared, running: None };
        server.resume(namespace)?;
        Ok(server)
    }

    /// Starts again after [`stop`](Self::stop), on the same port.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn resume(&mut self, namespace: Option<&Namespace>) -> Result<()> {
        let address = self.address;
        let listen = || -> Result<_> {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = match namespace {
            Some(namespace) => namespace.run(listen)??,
            None => listen()?,
        };
        self.address = listener.local_addr()?;
        let (shared, identity) = (Arc::clone(&self.shared), Arc::clone(&self.identity));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A socket keeps the namespace that it was made in, whichever thread serves it.
        let thread = thread::Builder::new().name("apiserver".into()).spawn(move || {
            let served = runtime.block_on(async {
                let listener = identity.listener(tokio::net::TcpListener::from_std(listener)?);
                let router = Router::new().fallback(answer).with_state(shared);
                tokio::select! {
                    served = axum::serve(listener, router) => served,
                    _ = stopped => Ok(()),
                }
            });
            if let Err(error) = served {
                eprintln!("the API server ended: {error}");
            }
            // Open connections break off here, with the runtime.
        })?;
        self.running = Some(Running { stop, thread });
        Ok(())
    }

    /// Ends the server and all its connections.
    pub fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            let _ = running.thread.join();
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next start on it is somebody else, whose certificate nobody knows.
    ///
    /// # Errors
    /// When there is none to be made.
    pub fn become_another(&mut self) -> Result<()> {
        self.identity = Arc::new(Identity::new()?);
        Ok(())
    }

    /// The certificate that it proves to be its own, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.identity.certificate
    }

    /// A kubeconfig for it, which names the certificate as the file `ca.crt` beside it.
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        let server = format!("https://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority": "ca.crt"}}],
            "users": [{"name": "test", "user": {"token": TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        })
        .to_string()
    }

    /// Creates or replaces objects, as a controller would.
    ///
    /// # Errors
    /// When one of them is no object of a resource that the server has.
    pub fn put(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        for object in objects {
            let key = Key::of(&object).with_context(|| format!("no object of a known resource: {object}"))?;
            self.shared.store().put(key, object);
        }
        self.tell();
        Ok(())
    }

    /// Changes an object in place: `with` is a JSON merge patch.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn patch(&self, resource: &str, namespace: &str, name: &str, with: &Value) -> Result<()> {
        let key = Key::named(resource, namespace, name)?;
        {
            let mut store = self.shared.store();
            let mut object = store.get(&key).context("no such object")?.clone();
            change::merge(&mut object, with);
            store.put(key, object);
        }
        self.tell();
        Ok(())
    }

    /// Removes an object.
    ///
    /// # Errors
    /// When there is no such resource.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) -> Result<()> {
        self.shared.store().remove(&Key::named(resource, namespace, name)?);
        self.tell();
        Ok(())
    }

    /// An object as it is now.
    #[must_use]
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.shared.store().get(&Key::named(resource, namespace, name).ok()?).cloned()
    }

    /// All objects of a resource.
    #[must_use]
    pub fn list(&self, resource: &str) -> Vec<Value> {
        self.shared.store().all(resource)
    }

    /// Takes a resource away, as if its definition were not there, or brings it back.
    pub fn serve_resource(&self, resource: &'static str, served: bool) {
        self.shared.store().serve(resource, served);
        self.cut();
    }

    /// Breaks off all watches, in the middle of a line.
    pub fn cut(&self) {
        self.shared.changed.send_modify(|epoch| *epoch += 1);
    }

    /// Forgets all events: who watches from an older version gets 410.
    pub fn compact(&self) {
        self.shared.store().compact();
        self.cut();
    }

    /// What it does wrong from now on.
    pub fn misbehave(&self, faults: Faults) {
        *self.shared.faults() = faults;
        self.cut();
    }

    /// Requests so far, as `verb resource`, such as `list pods`.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.shared.store().requests.clone()
    }

    fn tell(&self) {
        self.shared.changed.send_modify(|_| {});
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The token that clients must show.
pub(crate) const TOKEN: &str = "a-token-of-the-test";

/// Parameters of requests.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Parameters {
    watch: Option<String>,
    limit: Option<usize>,
    #[serde(rename = "continue")]
    go_on: Option<String>,
    resource_version: Option<String>,
    allow_watch_bookmarks: Option<String>,
    timeout_seconds: Option<u64>,
    dry_run: Option<String>,
    field_manager: Option<String>,
    field_selector: Option<String>,
}

impl Parameters {
    /// The one object that is asked for.
    fn name(&self) -> Option<&str> {
        self.field_selector.as_deref().and_then(|it| it.strip_prefix("metadata.name="))
    }
}

/// An answer that is no success.
#[derive(Debug)]
struct Refusal(StatusCode, Value);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, axum::Json(self.1)).into_response()
    }
}

/// One, in the API's form.
fn refuse(code: StatusCode, reason: &str, message: impl Into<String>) -> Refusal {
    let message = message.into();
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    Refusal(code, status)
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Result<Response, Infallible> {
    let delay = shared.faults().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    Ok(answered(&shared, parameters, request).await.unwrap_or_else(IntoResponse::into_response))
}

async fn answered(shared: &Arc<Shared>, parameters: Parameters, request: Request) -> Result<Response, Refusal> {
    let token = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if token != Some(&format!("Bearer {TOKEN}")) {
        return Err(refuse(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized"));
    }
    {
        let mut faults = shared.faults();
        if faults.failing > 0 {
            faults.failing -= 1;
            return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", "told to fail"));
        }
    }
    let path = request.uri().path().to_owned();
    if let Some(document) = discovery::document(&path, &shared.store()) {
        return Ok(axum::Json(document).into_response());
    }
    let not_found = || refuse(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource");
    let target = store::Target::parse(&path).filter(|target| shared.store().serves(target.resource.plural));
    let target = target.ok_or_else(not_found)?;
    let method = request.method().clone();
    let watching = matches!(parameters.watch.as_deref(), Some("true" | "1"));
    let verb = match (&method, watching, target.name.is_some()) {
        (&Method::GET, true, _) => "watch",
        (&Method::GET, false, false) => "list",
        (&Method::GET, false, true) => "get",
        (&Method::POST, ..) => "create",
        (&Method::PUT, ..) => "update",
        (&Method::PATCH, ..) => "patch",
        _ => "delete",
    };
    let status = target.subresource.as_deref().map(|sub| format!("/{sub}")).unwrap_or_default();
    let plural = target.resource.plural;
    shared.store().requests.push(format!("{verb} {plural}{status}"));
    if shared.faults().forbidden.contains(&plural) {
        let who = "User \"test\" cannot";
        let message = format!("{plural} is forbidden: {who} {verb} resource \"{plural}\" at the cluster scope");
        return Err(refuse(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    match verb {
        "watch" => Ok(watching::watch(shared, &target, &parameters)),
        "list" => shared.store().list(&target, &parameters),
        _ => {
            let kind = request.headers().get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok()).unwrap_or_default();
            let kind = kind.to_owned();
            let body = axum::body::to_bytes(request.into_body(), 8 << 20).await.unwrap_or_default();
            if verb == "patch" && overtake(shared) {
                change::touch(&mut shared.store(), &target.key());
            }
            let changed = change::change(shared, &target, verb, &kind, &body, &parameters);
            if changed.is_ok() && verb != "get" {
                shared.changed.send_modify(|_| {});
            }
            changed
        }
    }
}

/// Whether somebody else comes first.
fn overtake(shared: &Shared) -> bool {
    let mut faults = shared.faults();
    let overtaken = faults.overtaken > 0;
    faults.overtaken = faults.overtaken.saturating_sub(1);
    overtaken
}

/// A body that is a stream.
fn streamed(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
