//! The API over a real socket, with a kernel in memory.
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    runtime::Runtime,
};

use super::*;
use crate::{
    agent::{
        fake::{FakeKernel, SERVICE, pods, route},
        run::{Running, runtime},
        settings::{Options, Settings, parse_attach},
    },
    cli::client::{Client, ClientError},
};

/// A whole agent in a directory of its own.
pub(crate) struct Whole {
    pub(crate) dir: TempDir,
    pub(crate) kernel: FakeKernel,
    pub(crate) settings: Settings,
    pub(crate) running: Option<Running>,
    pub(crate) runtime: Runtime,
}

impl Whole {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// The directory of objects.
    pub(crate) fn config(&self) -> &Path {
        self.settings.config.as_deref().unwrap()
    }

    /// With a proxy: rules that need the request are followed.
    pub(crate) fn proxied() -> Self {
        Self::start_with(|settings| settings.proxy = vec!["127.0.0.1:0".parse().unwrap()])
    }

    fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = dir.path().join("objects");
        fs::create_dir(&objects).unwrap();
        fs::write(objects.join("service.yaml"), SERVICE).unwrap();
        fs::write(objects.join("pods.yaml"), pods(&[("v1", 3), ("v2", 1)])).unwrap();
        fs::write(objects.join("route.yaml"), route(90, 10)).unwrap();
        let options = Options {
            config: Some(objects),
            attach: vec![parse_attach("tc:eth0").unwrap()],
            pin: Some(dir.path().join("pins")),
            state: Some(dir.path().join("state")),
            socket: Some(dir.path().join("agent.sock")),
            metrics: Some("127.0.0.1:0".parse().unwrap()),
            ..Options::default()
        };
        let mut settings = Settings::read(options, None, |_| unreachable!()).unwrap();
        change(&mut settings);
        let kernel = FakeKernel::default();
        let runtime = runtime().unwrap();
        let opened = kernel.clone();
        let running = Running::start(&settings, &runtime, move || Ok(opened)).unwrap();
        let whole = Self { dir, kernel, settings, running: Some(running), runtime };
        whole.wait_for(|whole| !whole.kernel.inside().state.services.is_empty());
        whole
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.settings.socket.clone()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.settings.socket).unwrap()
    }

    pub(crate) fn wait_for(&self, done: impl Fn(&Self) -> bool) {
        for _ in 0..500 {
            if done(self) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("it did not happen within ten seconds");
    }

    pub(crate) fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(&self.runtime);
        }
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.stop();
    }
}

fn refused(result: Result<Value, ClientError>) -> crate::api::dto::ErrorBodyV1 {
    match result {
        Err(ClientError::Refused(body)) => body,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_openapi_document_lists_every_path_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.clone(), path.clone()))
        })
        .collect();
    let served: BTreeSet<(String, String)> =
        routes().into_iter().map(|(method, path, _)| (method.to_owned(), path.to_owned())).collect();
    assert_eq!(documented, served);
}

/// Whether `value` has exactly the fields that the document gives to `schema`.
fn conforms(document: &Value, schema: &Value, value: &Value, path: &str) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().unwrap();
        return conforms(document, &document["components"]["schemas"][name], value, path);
    }
    if let Some(options) = schema["oneOf"].as_array() {
        if !value.is_null() {
            conforms(document, &options[0], value, path);
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
        one => one.as_str().into_iter().collect(),
    };
    let fits = types.iter().any(|&name| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    });
    assert!(fits, "{path}: {value} is none of {types:?}");
    if let (Some(properties), Some(fields)) = (schema["properties"].as_object(), value.as_object()) {
        let wanted: BTreeSet<&String> = properties.keys().collect();
        assert_eq!(fields.keys().collect::<BTreeSet<_>>(), wanted, "{path}");
        for (name, field) in fields {
            conforms(document, &properties[name], field, &format!("{path}.{name}"));
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        conforms(document, &schema["items"], item, &format!("{path}[{index}]"));
    }
}

#[test]
fn answers_have_the_fields_that_the_document_promises() {
    let whole = Whole::start();
    let client = whole.client();
    let document: Value = client.get("/v1/openapi.json").unwrap();
    let requests = [
        (
            "/v1/weights",
            json!({"service": "helloworld", "weights": [{"version": "v1", "weight": 1}, {"version": "v2", "weight": 1}]}),
        ),
        ("/v1/apply", json!({"files": [{"name": "-", "text": route(80, 20)}], "dry_run": true})),
        (
            "/v1/delete",
            json!({"objects": [{"kind": "VirtualService", "namespace": "default", "name": "helloworld"}], "dry_run": true}),
        ),
        ("/v1/undo", json!({})),
        ("/v1/trace", json!({"from": "192.0.2.1:1", "to": "10.96.0.10:5000", "protocol": "tcp", "count": 2})),
        (
            "/v1/trace/http",
            json!({"to": "10.96.0.10:5000", "method": "GET", "target": "/a", "headers": [{"name": "X", "value": "y"}]}),
        ),
    ];
    for (path, request) in &requests {
        let answer: Value = client.post(path, request).unwrap();
        let schema = &document["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["schema"];
        conforms(&document, schema, &answer, path);
    }
    for (_, path, _) in routes().iter().filter(|(method, path, _)| *method == "get" && *path != "/v1/openapi.json") {
        let answer: Value = client.get(path).unwrap();
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        conforms(&document, schema, &answer, path);
    }
}

#[test]
fn errors_have_code_message_and_remedy() {
    let whole = Whole::start();
    let client = whole.client();
    for (result, code, message) in [
        (client.get("/v2/status"), "no-such-path", "there is nothing at /v2/status"),
        (client.get("/v1/apply"), "wrong-method", "/v1/apply does not take GET"),
        (client.get("/v1/flows?limit=x"), "bad-request", "limit"),
        (client.post("/v1/undo", &json!({"id": 1})), "bad-request", "unknown field `id`"),
        (client.post("/v1/undo", &json!({})), "undo", "there is no change of weights to undo"),
        (
            client.post("/v1/trace", &json!({"from": "192.0.2.1:1", "to": "[::1]:1", "protocol": "tcp"})),
            "bad-request",
            "`from` and `to` are of different address families",
        ),
        (
            client.post("/v1/trace/http", &json!({"to": "10.96.0.10:5000", "method": "GET", "target": "*"})),
            "bad-request",
            "`target`: `*` is no path",
        ),
        (
            client.post("/v1/weights", &json!({"service": "x", "weights": []})),
            "no-such-service",
            "there is no service `x`",
        ),
    ] {
        let body = refused(result);
        assert_eq!(body.code, code);
        assert!(body.message.contains(message), "{}", body.message);
        if code != "undo" {
            assert!(!body.remedy.is_empty(), "{code}");
        }
    }
    let long = json!({"files": [{"name": "-", "text": "x".repeat(BODY_MAX)}]});
    assert_eq!(refused(client.post("/v1/apply", &long)).code, "too-large");
}

#[test]
fn the_socket_is_for_owner_and_group_and_goes_with_the_agent() {
    let mut whole = Whole::start();
    let mode = fs::metadata(whole.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    whole.stop();
    assert!(!whole.socket().exists());
    // As after kill -9.
    drop(std::os::unix::net::UnixListener::bind(whole.socket()).unwrap());
    assert!(matches!(whole.client().get::<Value>("/v1/status"), Err(ClientError::NoAgent { .. })));
    // What a dead agent leaves is no obstacle.
    let opened = whole.kernel.clone();
    whole.running = Some(Running::start(&whole.settings, &whole.runtime, move || Ok(opened)).unwrap());
    whole.client().get::<Value>("/v1/version").unwrap();
}

#[test]
fn a_second_agent_is_refused() {
    let whole = Whole::start();
    let opened = whole.kernel.clone();
    let same = Running::start(&whole.settings, &whole.runtime, move || Ok(opened)).unwrap_err();
    assert!(same.to_string().contains("is running on socket"), "{same}");

    let mut other = whole.settings.clone();
    other.socket = whole.dir.path().join("other.sock");
    other.state = whole.dir.path().join("other");
    let opened = whole.kernel.clone();
    let error = Running::start(&other, &whole.runtime, move || Ok(opened)).unwrap_err();
    assert!(error.to_string().contains("is running on pin directory"), "{error}");
    let remedy = error.remedy(&other);
    assert!(remedy.starts_with("stop it first") && remedy.contains("interfaces of its own (--attach)"), "{remedy}");
    assert!(crate::agent::run::detach(&whole.settings.dataplane.pin).is_err(), "no detach under a running agent");
    whole.client().get::<Value>("/v1/status").unwrap();
}

#[test]
fn a_change_of_the_directory_is_noticed() {
    let whole = Whole::start();
    whole.wait_for(|whole| whole.client().get::<Value>("/v1/status").unwrap()["phase"] == "ready");
    fs::write(whole.config().join("route.yaml"), route(50, 50)).unwrap();
    whole.wait_for(|whole| {
        let versions: Value = whole.client().get("/v1/versions").unwrap();
        versions["items"][0]["weight"] == 50
    });
}

#[test]
fn metrics_are_served_on_an_address_of_their_own() {
    let whole = Whole::start();
    let address = whole.running.as_ref().unwrap().metrics.unwrap();
    let fetch = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        whole.runtime.block_on(async {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        })
    };
    let page = fetch("/metrics");
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("canary_flows_total{service=\"default/helloworld:5000/tcp\",version=\"v2\"} 0"));
    assert!(fetch("/v1/status").starts_with("HTTP/1.1 404"), "the API is not there");
}

#[test]
fn a_slow_or_broken_client_does_not_hold_up_others() {
    let whole = Whole::start();
    let idle: Vec<UnixStream> = whole.runtime.block_on(async {
        let mut idle = Vec::new();
        for text in ["", "GET /v1/sta", "nonsense\r\n\r\n", "POST /v1/apply HTTP/1.1\r\ncontent-length: 99\r\n\r\n{"] {
            let mut stream = UnixStream::connect(whole.socket()).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            idle.push(stream);
        }
        idle
    });
    whole.client().get::<Value>("/v1/status").unwrap();
    drop(idle);
}
