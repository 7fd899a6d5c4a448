//! States, endpoints and clients for the tests.
use std::{
    convert::Infallible,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

use crate::{
    proxy::{
        door::{Door, House},
        server::{Settings, serve},
        table::RouteTable,
    },
    state::{
        Choosing, DeadVersion, Frontend, HeaderChanges, Http, HttpAction, HttpDestination, HttpPolicy, HttpRoute,
        HttpRule, Protocol, Rewrite, Service, ServiceId, State, Version,
    },
};

pub(in crate::proxy) const FRONTEND: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 1), 80));

pub(in crate::proxy) fn endpoints(of: &[&str]) -> Version {
    Version { endpoints: of.iter().map(|it| (it.parse().unwrap(), 1)).collect(), drain_seconds: 300 }
}

pub(in crate::proxy) fn at(endpoint: SocketAddr) -> Version {
    endpoints(&[&endpoint.to_string()])
}

pub(in crate::proxy) fn route(to: &[(&str, u32)]) -> HttpAction {
    let destinations = to.iter().map(|&(version, weight)| HttpDestination {
        version: version.into(),
        weight,
        headers: HeaderChanges::default(),
        refused: false,
    });
    HttpAction::Route(HttpRoute {
        choosing: Choosing::Exact,
        dead: DeadVersion::Fail,
        destinations: destinations.collect(),
        rewrite: Rewrite::default(),
    })
}

pub(in crate::proxy) fn rule(action: HttpAction) -> HttpRule {
    HttpRule {
        name: "http[0]".into(),
        matches: vec![],
        action,
        headers: HeaderChanges::default(),
        timeout_ms: None,
        policy: HttpPolicy::default(),
    }
}

pub(in crate::proxy) fn split(v1: u32, v2: u32) -> HttpRule {
    rule(route(&[("v1", v1), ("v2", v2)]))
}

pub(in crate::proxy) fn state(rules: Vec<HttpRule>, versions: &[(&str, Version)]) -> State {
    let id = ServiceId::tcp("web", 80);
    let service = Service {
        rules: vec![],
        versions: versions.iter().map(|(name, version)| ((*name).into(), version.clone())).collect(),
        http: Some(Http { rules, ..Http::default() }),
        tls: None,
    };
    let frontend = Frontend { addr: FRONTEND.ip(), port: FRONTEND.port(), protocol: Protocol::Tcp };
    State { frontends: [(frontend, id.clone())].into(), services: [(id, service)].into(), ..State::default() }
}

/// A running proxy.
pub(in crate::proxy) struct Proxy {
    pub(in crate::proxy) address: SocketAddr,
    pub(in crate::proxy) table: watch::Sender<Arc<RouteTable>>,
    pub(in crate::proxy) stop: watch::Sender<bool>,
    pub(in crate::proxy) task: JoinHandle<()>,
    pub(in crate::proxy) house: House,
}

pub(in crate::proxy) async fn proxy(state: &State) -> Proxy {
    proxy_with(RouteTable::build(state, None), 1_000).await
}

/// One for so many connections at a time.
pub(in crate::proxy) async fn proxy_with_room(state: &State, connections: usize) -> Proxy {
    proxy_with(RouteTable::build(state, None), connections).await
}

/// One that begins with this table.
pub(in crate::proxy) async fn proxy_with(table: RouteTable, connections: usize) -> Proxy {
    proxy_at(table, connections, Settings::default().rate).await
}

/// One for so many requests a second on each connection.
pub(in crate::proxy) async fn proxy_at(table: RouteTable, connections: usize, rate: u32) -> Proxy {
    let settings = Settings {
        head: Duration::from_millis(300),
        idle: Duration::from_secs(2),
        body: Duration::from_secs(3),
        drain: Duration::from_secs(1),
        linger: Duration::from_millis(500),
        rate,
    };
    let house = House::new(connections);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (table, tables) = watch::channel(Arc::new(table));
    let (stop, stopped) = watch::channel(false);
    let task =
        tokio::spawn(serve(Door::new(listener, house.clone()), |_, _| Some(FRONTEND), tables, stopped, settings));
    Proxy { address, table, stop, task, house }
}

impl Proxy {
    pub(in crate::proxy) fn change(&self, state: &State) {
        let next = RouteTable::build(state, Some(&self.table.borrow()));
        self.table.send_replace(Arc::new(next));
    }
}

pub(in crate::proxy) type Reply = Response<BoxBody<Bytes, hyper::Error>>;

pub(in crate::proxy) fn text(body: impl Into<Bytes>) -> Reply {
    Response::new(Full::new(body.into()).map_err(|never| match never {}).boxed())
}

/// A server that answers with what `reply` makes of a request: HTTP/1 or HTTP/2.
pub(in crate::proxy) async fn server<F, R>(http2: bool, reply: F) -> SocketAddr
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let reply = reply.clone();
            let service = service_fn(move |request| {
                let reply = reply(request);
                async move { Ok::<_, Infallible>(reply.await) }
            });
            let stream = TokioIo::new(stream);
            tokio::spawn(async move {
                if http2 {
                    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
                } else {
                    let _ = http1::Builder::new().serve_connection(stream, service).with_upgrades().await;
                }
            });
        }
    });
    address
}

/// A server that answers every request with its name.
pub(in crate::proxy) async fn named(name: &'static str) -> SocketAddr {
    server(false, move |_| async move { text(name) }).await
}

/// A client that says exactly these bytes, and hears until `enough` or the end.
pub(in crate::proxy) struct Raw(pub(in crate::proxy) TcpStream);

impl Raw {
    pub(in crate::proxy) async fn to(proxy: &Proxy) -> Self {
        Self(TcpStream::connect(proxy.address).await.unwrap())
    }

    pub(in crate::proxy) async fn say(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Up to and with `end`.
    pub(in crate::proxy) async fn hear(&mut self, end: &str) -> String {
        let mut heard = Vec::new();
        let until = async {
            while !heard.ends_with(end.as_bytes()) {
                heard.push(self.0.read_u8().await.unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(5), until).await.expect(end);
        String::from_utf8(heard).unwrap()
    }

    /// Up to the end of the connection.
    pub(in crate::proxy) async fn hear_all(&mut self) -> String {
        let mut heard = Vec::new();
        let until = self.0.read_to_end(&mut heard);
        // A reset after the answer is an end too.
        let ended = tokio::time::timeout(Duration::from_secs(5), until).await.is_ok();
        let heard = String::from_utf8_lossy(&heard).into_owned();
        assert!(ended, "the connection goes on after {heard:?}");
        heard
    }

    /// One GET of `path` on a connection that stays: status and body.
    pub(in crate::proxy) async fn get(&mut self, path: &str) -> (u16, String) {
        self.say(format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
        let head = self.hear("\r\n\r\n").await;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        (status, String::from_utf8(body).unwrap())
    }
}

/// An address where nobody listens.
pub(in crate::proxy) async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// A server that closes each connection at once.
pub(in crate::proxy) async fn rude() -> SocketAddr {
    accepting(|_, _| async {}).await.0
}

/// Serves each connection with `each`, which counts what it wants to.
pub(in crate::proxy) async fn accepting<F, R>(each: F) -> (SocketAddr, Arc<AtomicU32>)
where
    F: Fn(TcpStream, Arc<AtomicU32>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream, counted.clone()));
        }
    });
    (address, count)
}

/// Passes connections on to `behind`, and counts them.
pub(in crate::proxy) async fn counting(behind: SocketAddr) -> (SocketAddr, Arc<AtomicU32>) {
    accepting(move |mut near, accepted| async move {
        accepted.fetch_add(1, Relaxed);
        let mut far = TcpStream::connect(behind).await.unwrap();
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    })
    .await
}
