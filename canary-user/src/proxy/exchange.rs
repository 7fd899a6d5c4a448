//! One request: from its head to the head of its answer.
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use hyper::{
    Method, Request, Response, StatusCode, Uri, Version,
    body::{Bytes, Incoming},
    header::{CONNECTION, EXPECT, HOST, HeaderMap, HeaderValue},
    http::{request::Parts, uri::PathAndQuery},
};
use tokio::sync::watch;

use super::{
    Flag,
    body::Body,
    headers, matching,
    matching::Matched,
    own,
    rule::{Action, Destination, Ends, Route, Rule},
    server::HEADERS,
    table::{RouteTable, Service},
    target,
    telemetry::{Begun, Record, request_id},
    tunnel::Tunnel,
    upstream::{Failure, Pool},
    view::RequestView,
    wire::Control,
};

/// A client's connection, as its requests see it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) table: watch::Receiver<Arc<RouteTable>>,
    pub(super) pool: Arc<Pool>,
    pub(super) client: SocketAddr,
    /// The virtual address that the client asked for.
    pub(super) frontend: Option<SocketAddr>,
    pub(super) control: Arc<Control>,
    pub(super) tunnel: Tunnel,
}

/// An answer, and why it is none of an endpoint.
type Outcome = (Response<Body>, Option<Flag>);

impl Connection {
    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub(super) fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let this = self.clone();
        let hold = this.control.hold();
        async move {
            let single = request.version() < Version::HTTP_2;
            let (mut answer, close) = this.route(request).await;
            *answer.version_mut() = if single { Version::HTTP_11 } else { Version::HTTP_2 };
            if close && single && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|body| body.holding(hold)))
        }
    }

    /// The answer, and whether the connection should end with it.
    async fn route(&self, mut request: Request<Incoming>) -> (Response<Body>, bool) {
        let table = self.table.borrow().clone(); // The newest one for each request.
        request_id::ensure(request.headers_mut());
        let begun = Begun::new(&request, self, table.log());
        let known = self.frontend.and_then(|frontend| Some((frontend, table.service(frontend)?)));
        let Some((frontend, service)) = known else {
            let answer = (own::failure(Flag::NR), Some(Flag::NR));
            return (counted(begun.on(table.lost().clone()), answer), true);
        };
        let unmatched = |begun: Begun, answer| (counted(begun.on(service.unmatched.clone()), answer), true);
        let (mut parts, body) = request.into_parts();
        let authority = match authority(&mut parts, frontend) {
            Ok(authority) => authority,
            Err(status) => return unmatched(begun, (own::plain(status, Bytes::new()), None)),
        };
        // CONNECT asks for a tunnel to anywhere, which no rule grants.
        if parts.method == Method::CONNECT {
            return unmatched(begun, (own::failure(Flag::NR), Some(Flag::NR)));
        }
        let ends = Ends { client: self.client, frontend };
        let request = Request::from_parts(parts, body);
        (self.follow(service, ends, &authority, request, begun).await, service.leaving)
    }

    /// Counts what hyper answers, or drops, because it is no request.
    pub(super) fn noted(&self, ended: hyper::Result<()>) -> hyper::Result<()> {
        if let Err(error) = &ended
            && let Some(code) = refused(error)
        {
            let table = self.table.borrow();
            let service = self.frontend.and_then(|frontend| table.service(frontend));
            let tally = service.map_or_else(|| table.lost(), |service| &service.unmatched);
            Record::new(tally.clone()).refused(code);
        }
        ended
    }

    async fn follow(
        &self,
        service: &Service,
        ends: Ends,
        authority: &str,
        request: Request<Incoming>,
        begun: Begun,
    ) -> Response<Body> {
        let view = RequestView {
            method: request.method().as_str(),
            scheme: request.uri().scheme_str().unwrap_or("http"),
            authority,
            target: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
            headers: request.headers(),
            client: ends.client.ip(),
        };
        let Some((rule, matched)) = service.rule(&view) else {
            return counted(begun.on(service.unmatched.clone()), (own::failure(Flag::NR), Some(Flag::NR)));
        };
        match &rule.action {
            Action::Answer { status, body, tally } => {
                let mut answer = own::plain(*status, body.clone());
                rule.headers.response.apply(answer.headers_mut());
                counted(begun.on(tally.clone()), (answer, None))
            }
            Action::Redirect { status, to, tally } => {
                let mut answer = match target::location(to, &view) {
                    Some(location) => own::redirect(*status, location),
                    None => own::plain(StatusCode::BAD_REQUEST, Bytes::new()),
                };
                rule.headers.response.apply(answer.headers_mut());
                counted(begun.on(tally.clone()), (answer, None))
            }
            Action::Route(route) => {
                let Some(destination) = route.choose(ends) else {
                    return counted(begun.on(service.unmatched.clone()), (own::failure(Flag::NC), Some(Flag::NC)));
                };
                let mut record = begun.on(destination.tally.clone());
                let received = record.goes(request.body(), || service.destination(rule, destination));
                let tried = record.logged().then(Mutex::default);
                let way = Way { rule, route, destination, matched, received, tried };
                let outcome = self.forward(service, ends, &way, authority, request).await;
                record.tried(way.last_tried());
                counted(record, outcome)
            }
        }
    }

    async fn forward(
        &self,
        service: &Service,
        ends: Ends,
        way: &Way<'_>,
        authority: &str,
        mut request: Request<Incoming>,
    ) -> Outcome {
        let failed = |flag| (own::failure(flag), Some(flag));
        let Some(endpoints) = service.version(&way.destination.version) else { return failed(Flag::NC) };
        let Some(endpoint) = endpoints.next() else { return failed(Flag::UH) };
        way.tries(endpoint);
        let upgrade = headers::upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let Some(mut head) = outgoing(parts, ends, way, authority) else {
            return (own::plain(StatusCode::BAD_REQUEST, Bytes::new()), None);
        };
        if let Some(protocol) = upgrade {
            headers::restore_upgrade(&mut head.headers, protocol);
        }
        let sent =
            self.pool.send(endpoint, Request::from_parts(head, Body::passed(body, None).counted(way.received.clone())));
        let sent = match way.rule.timeout {
            None => sent.await,
            Some(limit) => match tokio::time::timeout(limit, sent).await {
                Ok(sent) => sent,
                Err(_) => return failed(Flag::UT),
            },
        };
        let mut answer = match sent {
            Ok(answer) => answer,
            Err(Failure::Connect(error)) => {
                tracing::debug!(%error, %endpoint, "cannot connect to an endpoint");
                return failed(Flag::UF);
            }
            Err(Failure::Ended(error)) => {
                tracing::debug!(%error, %endpoint, "an endpoint did not answer");
                return failed(Flag::UC);
            }
            Err(Failure::Client(error)) => {
                tracing::debug!(%error, client = %ends.client, "a request's body broke off");
                return (own::plain(StatusCode::BAD_REQUEST, Bytes::new()), None);
            }
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else { return failed(Flag::UC) }; // Nobody asked for it.
            let protocol = headers::upgrade(answer.headers());
            self.control.raw();
            self.tunnel.open(client, hyper::upgrade::on(&mut answer));
            way.change(answer.headers_mut());
            if let Some(protocol) = protocol {
                headers::restore_upgrade(answer.headers_mut(), protocol);
            }
            return (answer, None);
        }
        way.change(answer.headers_mut());
        (answer, None)
    }
}

/// What a request's rule and choice came to.
struct Way<'a> {
    rule: &'a Rule,
    route: &'a Route,
    destination: &'a Destination,
    matched: Matched,
    /// Counts the bytes of the request's body, if nobody knows them yet.
    received: Option<Arc<AtomicU64>>,
    /// The endpoint that was tried last, if somebody wants to know.
    tried: Option<Mutex<Option<SocketAddr>>>,
}

impl Way<'_> {
    fn tries(&self, endpoint: SocketAddr) {
        if let Some(tried) = &self.tried {
            *tried.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint);
        }
    }

    fn last_tried(&self) -> Option<SocketAddr> {
        *self.tried.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the headers of an answer, the destination's first: where both set the same, the rule's hold, as in Envoy.
    fn change(&self, answer: &mut HeaderMap) {
        headers::strip_hop_by_hop(answer);
        self.destination.headers.response.apply(answer);
        self.rule.headers.response.apply(answer);
    }
}

fn counted(record: Record, (answer, flag): Outcome) -> Response<Body> {
    record.answered(answer, flag)
}

/// What hyper answered to what it could not read; 0: nothing, for the rest of a head did not come in time.
fn refused(error: &hyper::Error) -> Option<u16> {
    if error.is_parse_too_large() {
        return Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE.as_u16());
    }
    if error.is_parse() {
        return Some(StatusCode::BAD_REQUEST.as_u16());
    }
    let cause = std::error::Error::source(error)?.downcast_ref::<io::Error>()?;
    (cause.kind() == io::ErrorKind::TimedOut).then_some(0)
}

/// The authority of a request. `Host` is taken out: an address in the request line is the one that counts (RFC 9112 §3.2.2).
fn authority(parts: &mut Parts, frontend: SocketAddr) -> Result<String, StatusCode> {
    if parts.headers.len() > HEADERS {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    let hosts = parts.headers.get_all(HOST).iter().count();
    if hosts > 1 || (hosts == 0 && parts.version == Version::HTTP_11) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let host = parts.headers.remove(HOST);
    if let Some(authority) = parts.uri.authority() {
        return Ok(authority.as_str().to_owned());
    }
    match host {
        Some(host) => host.to_str().map(str::to_owned).map_err(|_| StatusCode::BAD_REQUEST),
        None if parts.version == Version::HTTP_2 => Err(StatusCode::BAD_REQUEST),
        None => Ok(frontend.to_string()), // HTTP/1.0 need not say it.
    }
}

/// The head as the endpoint gets it; `None` when what is put in makes no address.
fn outgoing(mut parts: Parts, ends: Ends, way: &Way<'_>, authority: &str) -> Option<Parts> {
    headers::strip_hop_by_hop(&mut parts.headers);
    // The client is told to continue when its body is asked for.
    parts.headers.remove(EXPECT);
    headers::forwarded(&mut parts.headers, ends.client.ip(), parts.uri.scheme_str().unwrap_or("http"));
    let changes = [&way.destination.headers.request, &way.rule.headers.request];
    for change in changes {
        change.apply(&mut parts.headers);
    }
    let set = changes.iter().rev().find_map(|change| change.authority());
    let authority = match set.or(way.route.authority.as_ref()) {
        Some(replacement) => replacement.clone(),
        None => HeaderValue::from_str(authority).ok()?,
    };
    let same = parts.uri.path_and_query();
    let path = match (&way.route.uri, same) {
        (Some(uri), same) => {
            let target = same.map_or("/", PathAndQuery::as_str);
            matching::rewritten(target, way.matched, uri).parse().ok()?
        }
        (None, Some(same)) => same.clone(),
        (None, None) => PathAndQuery::from_static("/"),
    };
    let mut uri = Uri::builder().path_and_query(path);
    if parts.version == Version::HTTP_2 {
        // Pseudo headers come from here. Endpoints are spoken to in the clear.
        uri = uri.scheme("http").authority(authority.as_bytes());
    } else {
        parts.headers.insert(HOST, authority);
        parts.version = Version::HTTP_11;
    }
    parts.uri = uri.build().ok()?;
    Some(parts)
}
