//! One request: from its head to the head of its answer.
use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
};

use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Bytes, Incoming},
    header::{CONNECTION, HeaderValue, SET_COOKIE},
    http::uri::PathAndQuery,
};
use tokio::{sync::watch, time::sleep_until};

use super::{
    Flag,
    body::Body,
    cors::Verdict,
    fault,
    filled::Facts,
    headers,
    limited::{Limited, Reason},
    matching::Matched,
    mirror, outgoing,
    own::{self, Flags},
    rate::Rate,
    retry::Attempts,
    rule::{Action, Destination, Ends, Route, Rule},
    table::{RouteTable, Service},
    target,
    telemetry::{Arrival, Record, request_id},
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
    /// How fast requests may come.
    pub(super) rate: Rate,
    pub(super) limited: Arc<Limited>,
}

/// An answer, and why it is none of an endpoint.
type Outcome = (Response<Body>, Flags);

impl Connection {
    /// The service, if it has rules for connections that are passed on as they are.
    pub(super) fn passed(&self) -> Option<(Arc<Service>, Ends)> {
        let table = self.table.borrow();
        let frontend = self.frontend.filter(|_| table.passes())?;
        let service = table.service(frontend).filter(|service| service.tls.is_some())?;
        Some((service.clone(), Ends { client: self.client, frontend }))
    }

    /// Answers a request. Never fails: what goes wrong is an answer too.
    pub(super) fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send + use<> {
        let this = self.clone();
        let hold = this.control.hold();
        async move {
            if let Some(until) = this.rate.come() {
                this.limited.count(Reason::Rate);
                // Boxed: what is seldom takes no room in the state of every request.
                Box::pin(sleep_until(until)).await;
            }
            let single = request.version() < Version::HTTP_2;
            let last = request.version() == Version::HTTP_11 && headers::closes(request.headers());
            let (mut answer, mut close) = this.route(request).await;
            if this.control.has_stalled() {
                // What the endpoint made of half a body is no answer.
                (answer, close) = (own::plain(StatusCode::REQUEST_TIMEOUT, Bytes::new()), true);
            }
            *answer.version_mut() = if single { Version::HTTP_11 } else { Version::HTTP_2 };
            if (close || last || this.control.is_leaving())
                && single
                && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                this.control.closing();
            }
            Ok(answer.map(|body| body.holding(hold)))
        }
    }

    /// The answer, and whether the connection should end with it.
    async fn route(&self, mut request: Request<Incoming>) -> (Response<Body>, bool) {
        let table = self.table.borrow().clone(); // The newest one for each request.
        request_id::ensure(request.headers_mut());
        let arrival = Arrival::new(&request, self, table.log());
        let known = self.frontend.and_then(|frontend| Some((frontend, table.service(frontend)?)));
        let Some((frontend, service)) = known else {
            return (counted(arrival.on(table.lost().clone()), failed(Flag::NR)), true);
        };
        let unmatched = |arrival: Arrival, answer| (counted(arrival.on(service.unmatched.clone()), answer), true);
        let (mut parts, body) = request.into_parts();
        let authority = match outgoing::authority(&mut parts, frontend) {
            Ok(authority) => authority,
            Err(status) => return unmatched(arrival, (own::plain(status, Bytes::new()), Flags::NONE)),
        };
        // CONNECT asks for a tunnel to anywhere, which no rule grants.
        if parts.method == Method::CONNECT {
            return unmatched(arrival, failed(Flag::NR));
        }
        let ends = Ends { client: self.client, frontend };
        let request = Request::from_parts(parts, body);
        (self.follow(service, ends, &authority, request, arrival).await, service.leaving)
    }

    /// Counts what hyper answered, or dropped (0), because it is no request.
    pub(super) fn count_refused(&self, code: u16) {
        let table = self.table.borrow();
        let service = self.frontend.and_then(|frontend| table.service(frontend));
        let tally = service.map_or_else(|| table.lost(), |service| &service.unmatched);
        Record::new(tally.clone()).over(code, Flag::DPE.into());
    }

    async fn follow(
        &self,
        service: &Service,
        ends: Ends,
        authority: &str,
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> Response<Body> {
        let view = view(&request, authority, ends);
        let Some((rule, matched)) = service.rule(&view) else {
            return counted(arrival.on(service.unmatched.clone()), failed(Flag::NR));
        };
        let matched = (rule.as_ref(), matched);
        let verdict = rule.cors.as_ref().map(|cors| (cors, cors.look(view.method, view.headers)));
        match verdict {
            None | Some((_, Verdict::Pass)) => self.act(service, ends, authority, matched, request, arrival).await,
            Some((cors, Verdict::From(origin))) => {
                let mut answer = self.act(service, ends, authority, matched, request, arrival).await;
                cors.tell(origin, answer.headers_mut());
                answer
            }
            Some((cors, Verdict::Preflight(answer))) => counted(arrival.on(cors.tally.clone()), (*answer, Flags::NONE)),
        }
    }

    /// Does what a rule says.
    async fn act(
        &self,
        service: &Service,
        ends: Ends,
        authority: &str,
        (rule, matched): (&Rule, Matched),
        request: Request<Incoming>,
        arrival: Arrival,
    ) -> Response<Body> {
        let asked = request.version();
        let change = |answer: &mut Response<Body>| {
            let facts = Facts::of_answer(ends, asked, answer.status());
            rule.headers.response.apply(answer.headers_mut(), &facts);
        };
        match &rule.action {
            Action::Answer { status, body, tally } => {
                let mut answer = own::plain(*status, body.clone());
                change(&mut answer);
                counted(arrival.on(tally.clone()), (answer, Flags::NONE))
            }
            Action::Redirect { status, to, tally } => {
                let mut answer = match target::location(to, &view(&request, authority, ends), matched) {
                    Some(location) => own::redirect(*status, location),
                    None => own::plain(StatusCode::BAD_REQUEST, Bytes::new()),
                };
                change(&mut answer);
                counted(arrival.on(tally.clone()), (answer, Flags::NONE))
            }
            Action::Route(route) => {
                let Some(destination) = route.choose(ends) else {
                    return counted(arrival.on(service.unmatched.clone()), failed(Flag::NC));
                };
                let mut record = arrival.on(destination.tally.clone());
                let received = record.goes(request.body(), || service.destination(rule, destination));
                // Boxed, as retries are.
                if let Some(fault) = &rule.fault
                    && let Some(answer) = Box::pin(fault.inject(request.headers(), &mut record)).await
                {
                    return record.answered(answer, Flag::FI.into());
                }
                let way = Way { rule, route, destination, matched, ends, asked, received };
                let outcome = self.forward(service, &way, authority, request, &mut record).await;
                counted(record, outcome)
            }
        }
    }

    async fn forward(
        &self,
        service: &Service,
        way: &Way<'_>,
        authority: &str,
        mut request: Request<Incoming>,
        record: &mut Record,
    ) -> Outcome {
        if way.destination.refused {
            return (fault::refused(request.headers()), Flag::NC.into());
        }
        let Some(endpoints) = service.version(&way.destination.version) else { return failed(Flag::NC) };
        let picked = endpoints.pick(|| (view(&request, authority, way.ends), way.ends));
        let Some(picked) = picked else { return failed(Flag::UH) };
        let upgrade = headers::upgrade(request.headers()).filter(|_| request.version() == Version::HTTP_11);
        let client = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let version = outgoing::spoken_to(service, &picked, &request, upgrade.is_some());
        let (parts, body) = request.into_parts();
        let Some(mut head) = outgoing::head(parts, way, authority, version) else {
            return (own::plain(StatusCode::BAD_REQUEST, Bytes::new()), Flags::NONE);
        };
        if let Some(protocol) = upgrade {
            headers::restore_upgrade(&mut head.headers, protocol);
        }
        let further = Mutex::default();
        let (tally, retry) = (&way.destination.tally, way.rule.retry.as_ref());
        let attempts = Attempts { pool: &self.pool, endpoints, tally, retry, further: &further };
        let body = match way.rule.mirrors.as_slice() {
            // What comes after an upgrade cannot be copied.
            mirrors if !mirrors.is_empty() && client.is_none() => {
                mirror::split(mirrors, service, &self.pool, &head, body)
            }
            _ => Body::passed(body, None),
        };
        let body = body.counted(way.received.clone());
        record.tries(picked.address);
        // In one place for both: a future that moves into another is held twice, and this is the largest one.
        let mut sent = pin!(attempts.send(&picked, Request::from_parts(head, body)));
        let sent = match way.rule.timeout {
            None => sent.await,
            Some(limit) => {
                let Ok(sent) = tokio::time::timeout(limit, sent.as_mut()).await else {
                    let last = further.lock().unwrap_or_else(PoisonError::into_inner);
                    let last = last.as_ref().unwrap_or(&picked);
                    last.timed_out();
                    record.tries(last.address);
                    return failed(Flag::UT);
                };
                sent
            }
        };
        record.tries(sent.endpoint);
        if sent.exhausted {
            record.note(Flag::URX);
        }
        let mut answer = match sent.sent {
            Ok(answer) => answer,
            Err(why) => return unanswered(&why, sent.endpoint, way.ends.client, sent.exhausted),
        };
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = client else { return failed(Flag::UC) }; // Nobody asked for it.
            let protocol = headers::upgrade(answer.headers());
            self.control.raw();
            self.tunnel.open(client, hyper::upgrade::on(&mut answer));
            way.change(&mut answer);
            if let Some(protocol) = protocol {
                headers::restore_upgrade(answer.headers_mut(), protocol);
            }
            return (answer, Flags::NONE);
        }
        way.change(&mut answer);
        if let Some(cookie) = picked.cookie.as_deref() {
            answer.headers_mut().append(SET_COOKIE, cookie.clone());
        }
        (answer, Flags::NONE)
    }
}

/// What rules and policies see of a request.
fn view<'a>(request: &'a Request<Incoming>, authority: &'a str, ends: Ends) -> RequestView<'a> {
    RequestView {
        method: request.method().as_str(),
        scheme: request.uri().scheme_str().unwrap_or("http"),
        authority,
        target: request.uri().path_and_query().map_or("/", PathAndQuery::as_str),
        headers: request.headers(),
        client: ends.client.ip(),
    }
}

/// What a request's rule and choice came to.
pub(super) struct Way<'a> {
    pub(super) rule: &'a Rule,
    pub(super) route: &'a Route,
    pub(super) destination: &'a Destination,
    pub(super) matched: Matched,
    pub(super) ends: Ends,
    /// The client's version of HTTP.
    pub(super) asked: Version,
    /// Counts the bytes of the request's body, if nobody knows them yet.
    received: Option<Arc<AtomicU64>>,
}

impl Way<'_> {
    /// Changes the headers of an answer, the destination's first: where both set the same, the rule's hold, as in Envoy.
    fn change(&self, answer: &mut Response<Body>) {
        headers::strip_hop_by_hop(answer.headers_mut());
        let facts = Facts::of_answer(self.ends, self.asked, answer.status());
        self.destination.headers.response.apply(answer.headers_mut(), &facts);
        self.rule.headers.response.apply(answer.headers_mut(), &facts);
    }
}

/// What the client is told when no endpoint answers.
fn unanswered(why: &Failure, endpoint: SocketAddr, client: SocketAddr, exhausted: bool) -> Outcome {
    let flag = match why {
        Failure::Connect(error) => {
            tracing::debug!(%error, %endpoint, "cannot connect to an endpoint");
            Flag::UF
        }
        Failure::Ended(error) => {
            tracing::debug!(%error, %endpoint, "an endpoint did not answer");
            Flag::UC
        }
        Failure::Slow => Flag::UT,
        Failure::Overflow => Flag::UO,
        Failure::Client(error) => {
            tracing::debug!(%error, %client, "a request's body broke off");
            return (own::plain(StatusCode::BAD_REQUEST, Bytes::new()), Flags::NONE);
        }
    };
    let mut answer = own::failure(flag);
    if flag == Flag::UO {
        own::overloaded(&mut answer);
    }
    if exhausted {
        own::exhausted(&mut answer);
    }
    (answer, flag.into())
}

fn failed(flag: Flag) -> Outcome {
    (own::failure(flag), flag.into())
}

fn counted(record: Record, (answer, flags): Outcome) -> Response<Body> {
    record.answered(answer, flags)
}
