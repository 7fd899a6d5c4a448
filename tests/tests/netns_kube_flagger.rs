//! Flagger's analyses of requests, step by step as it writes objects: some users see the canary (A/B), or whoever met it stays
//! with it (session affinity). Clients ask all the while; no request fails, and every step has its share exactly.
use anyhow::{Context, Result, ensure};
use canary_tests::{
    agent::EndpointState,
    cluster::{Cluster, service, sockets},
    requests::Requests,
    resources::PORT,
    story::vip,
};
use serde_json::{Value, json};

/// The object that Flagger writes for rules in their order, in the words of one API.
type Write = fn(Vec<Rule>) -> Value;

/// A rule as both APIs can say it.
struct Rule {
    /// Expression for the header `Cookie`.
    cookie: Option<&'static str>,
    /// Weights of primary and canary; `None` leaves the canary out.
    weights: (u64, Option<u64>),
    /// `Set-Cookie` for answers of the canary.
    from_canary: Option<&'static str>,
    /// `Set-Cookie` for all answers.
    always: Option<&'static str>,
}

impl Rule {
    fn new(cookie: Option<&'static str>, primary: u64, canary: impl Into<Option<u64>>) -> Self {
        Self { cookie, weights: (primary, canary.into()), from_canary: None, always: None }
    }

    /// What is in force then. One destination gets everything, whatever its weight, in a VirtualService.
    fn in_force(&self) -> Vec<(&'static str, u64)> {
        let (primary, canary) = self.weights;
        let primary = if canary.is_none() { 1 } else { primary };
        vec![("helloworld-primary", primary), ("helloworld-canary", canary.unwrap_or_default())]
    }

    fn versions(&self) -> [(&'static str, Option<u64>); 2] {
        [("primary", Some(self.weights.0)), ("canary", self.weights.1)]
    }
}

fn virtual_service(rules: Vec<Rule>) -> Value {
    let rule = |rule: Rule| {
        let to = |(name, weight): (&str, Option<u64>)| {
            let mut to = json!({"destination": {"host": format!("helloworld-{name}")}, "weight": weight?});
            if let Some(cookie) = rule.from_canary.filter(|_| name == "canary") {
                insert(&mut to, "headers", json!({"response": {"add": {"Set-Cookie": cookie}}}));
            }
            Some(to)
        };
        let mut written = json!({"route": rule.versions().into_iter().filter_map(to).collect::<Vec<_>>()});
        if let Some(cookie) = rule.cookie {
            insert(&mut written, "match", json!([{"headers": {"Cookie": {"regex": cookie}}}]));
        }
        if let Some(cookie) = rule.always {
            insert(&mut written, "headers", json!({"response": {"add": {"Set-Cookie": cookie}}}));
        }
        written
    };
    json!({
        "apiVersion": "networking.istio.io/v1beta1", "kind": "VirtualService",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {
            "gateways": ["mesh"], "hosts": ["helloworld"],
            "http": rules.into_iter().map(rule).collect::<Vec<_>>(),
        },
    })
}

fn http_route(rules: Vec<Rule>) -> Value {
    let add = |cookie: &str| json!([{"type": "ResponseHeaderModifier", "responseHeaderModifier": {"add": [{"name": "Set-Cookie", "value": cookie}]}}]);
    let rule = |rule: Rule| {
        let to = |(name, weight): (&str, Option<u64>)| {
            let name = format!("helloworld-{name}");
            let canary = name.ends_with("canary");
            let mut to = json!({"group": "", "kind": "Service", "name": name, "port": PORT, "weight": weight?});
            if let Some(cookie) = rule.from_canary.filter(|_| canary) {
                insert(&mut to, "filters", add(cookie));
            }
            Some(to)
        };
        let mut request = json!({"path": {"type": "PathPrefix", "value": "/"}});
        if let Some(cookie) = rule.cookie {
            insert(&mut request, "headers", json!([{"type": "RegularExpression", "name": "Cookie", "value": cookie}]));
        }
        let to: Vec<_> = rule.versions().into_iter().filter_map(to).collect();
        let mut written = json!({"matches": [request], "backendRefs": to});
        if let Some(cookie) = rule.always {
            insert(&mut written, "filters", add(cookie));
        }
        written
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "helloworld", "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "helloworld", "port": PORT}],
            "rules": rules.into_iter().map(rule).collect::<Vec<_>>(),
        },
    })
}

fn insert(object: &mut Value, field: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
}

/// An answer of helloworld: the version, and the cookie that it sets.
#[derive(Debug)]
struct Answer {
    version: String,
    cookie: Option<String>,
}

/// So many requests on one connection, with this cookie.
fn ask(cluster: &Cluster, cookie: Option<&str>, requests: u32) -> Result<Vec<Answer>> {
    let url = format!("http://{}/hello?[1-{requests}]", vip(false));
    let cookie = cookie.map(|cookie| format!("Cookie: {cookie}"));
    let header: Vec<&str> = cookie.iter().flat_map(|cookie| ["--header", cookie]).collect();
    let said = cluster
        .story
        .client
        .call("curl", &[&["--silent", "--include", "--fail", "--max-time", "20"], &header[..], &[&url]].concat())?;
    let answer = |text: &str| -> Result<Answer> {
        let (_, version) = text.split_once("version: ").with_context(|| format!("no version in {text}"))?;
        let version = version.split(',').next().context("no end of the version")?.to_owned();
        let cookie = text
            .lines()
            .find_map(|line| Some(line.split_once(':')?).filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")));
        Ok(Answer { version, cookie: cookie.map(|(_, value)| value.trim().to_owned()) })
    };
    let answers: Result<Vec<Answer>> = said.split("HTTP/1.1 200").skip(1).map(answer).collect();
    let answers = answers?;
    ensure!(answers.len() == requests as usize, "{} of {requests} answers: {said}", answers.len());
    Ok(answers)
}

fn of(answers: &[Answer], version: &str) -> usize {
    answers.iter().filter(|answer| answer.version == version).count()
}

/// Flagger's Services and a pod of each version, an agent with a proxy, and clients of the other family that ask all the while.
struct Stage {
    cluster: Cluster,
    clients: Requests,
    write: Write,
}

impl Stage {
    fn new(write: Write, first: Vec<Rule>) -> Result<Self> {
        let mut cluster = Cluster::without_routes(2, 1)?;
        cluster.agent.listen_at(&["10.0.0.1:15001", "[fd00:1::1]:15001"]);
        let own = |last: u8| [format!("10.96.1.{last}"), format!("fd00:96::1:{last}")];
        cluster.server.put([
            service("helloworld-primary", &json!({"version": "v1"}), &own(1)),
            service("helloworld-canary", &json!({"version": "v2"}), &own(2)),
            write(first),
        ])?;
        cluster.control()?;
        cluster.start()?;
        let clients = Requests::start(&cluster.story.client, vip(true), 2, 20);
        Ok(Self { cluster, clients, write })
    }

    /// Writes these rules and waits until they are in force.
    fn step(&self, rules: Vec<Rule>) -> Result<()> {
        let expected = rules.iter().map(Rule::in_force).collect::<Vec<_>>();
        self.cluster.server.put([(self.write)(rules)])?;
        self.cluster.wait_for_rules(&expected.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// The Deployment of the primary rolls to the new image: a new pod for each old one.
    fn roll_primary(&mut self) -> Result<()> {
        for old in self.cluster.story.endpoints_of("v1") {
            let new = self.cluster.add_pod("v1")?;
            self.cluster.agent.wait_for(&sockets(&[new]), &[EndpointState::Serving])?;
            self.cluster.terminate_pod(&old.pod)?;
            self.cluster.agent.wait_for(&sockets(&[old]), &[EndpointState::Draining])?;
        }
        Ok(())
    }

    fn end(self) -> Result<()> {
        let answered = self.clients.stop().with_context(|| self.cluster.agent.log())?;
        ensure!(answered > 100, "only {answered} requests meanwhile");
        Ok(())
    }
}

const INSIDER: &str = "canary=always";
const INSIDERS: &str = "^(.*?;)?(canary=always)(;.*)?$";

#[test]
fn some_users_see_the_canary_by_istio() -> Result<()> {
    some_users_see_the_canary(virtual_service, 0)
}

#[test]
fn some_users_see_the_canary_by_the_gateway_api() -> Result<()> {
    some_users_see_the_canary(http_route, 100)
}

/// A/B: the first rule is for some users. The last one has one destination, whose weight is `rest` while the analysis runs: 0 in
/// a VirtualService, where one destination has everything all the same; in a route Flagger leaves it at 100.
fn some_users_see_the_canary(write: Write, rest: u64) -> Result<()> {
    let rules = |primary, canary, rest| vec![Rule::new(Some(INSIDERS), primary, canary), Rule::new(None, rest, None)];
    let mut stage = Stage::new(write, rules(100, 0, 100))?;
    let v2 = |stage: &Stage, cookie| Ok::<_, anyhow::Error>(of(&ask(&stage.cluster, cookie, 20)?, "v2"));
    assert_eq!(v2(&stage, Some(INSIDER))?, 0);
    for promoted in [false, true] {
        stage.step(rules(0, 100, rest))?;
        for (cookie, canaries) in
            [(Some(INSIDER), 20), (Some("sid=1;canary=always"), 20), (Some("canary=never"), 0), (None, 0)]
        {
            assert_eq!(v2(&stage, cookie)?, canaries, "{cookie:?}");
        }
        if promoted {
            stage.roll_primary()?;
        }
        stage.step(rules(100, 0, 100))?;
        for cookie in [Some(INSIDER), None] {
            assert_eq!(v2(&stage, cookie)?, 0, "{cookie:?}");
        }
    }
    stage.end()
}

const COOKIE: &str = "flagger-cookie=LpsIaLdoNZ";
const STICKY: &str = ".*flagger-cookie.*LpsIaLdoNZ.*";
const SET: &str = "flagger-cookie=LpsIaLdoNZ; Max-Age=86400";
const TAKEN_BACK: &str = "flagger-cookie=LpsIaLdoNZ; Max-Age=-1";

#[test]
fn whoever_met_the_canary_stays_with_it_by_istio() -> Result<()> {
    whoever_met_the_canary_stays_with_it(virtual_service)
}

#[test]
fn whoever_met_the_canary_stays_with_it_by_the_gateway_api() -> Result<()> {
    whoever_met_the_canary_stays_with_it(http_route)
}

/// Session affinity: answers of the canary set a cookie, whose holders the first rule sends to it. The weights are for all others.
fn whoever_met_the_canary_stays_with_it(write: Write) -> Result<()> {
    // Before the first analysis both rules are the same.
    let mut stage = Stage::new(write, vec![Rule::new(None, 100, 0), Rule::new(None, 100, 0)])?;
    for answer in ask(&stage.cluster, Some(COOKIE), 20)? {
        assert_eq!((answer.version.as_str(), answer.cookie), ("v1", None));
    }
    for promoted in [false, true] {
        for canary in [10, 30, 50] {
            let weighted = Rule { from_canary: Some(SET), ..Rule::new(None, 100 - canary, canary) };
            stage.step(vec![Rule::new(Some(STICKY), 0, 100), weighted])?;
            let newcomers = ask(&stage.cluster, None, 100)?;
            assert_eq!(of(&newcomers, "v2") as u64, canary);
            for answer in newcomers {
                assert_eq!(answer.cookie.as_deref(), (answer.version == "v2").then_some(SET), "{}", answer.version);
            }
            for answer in ask(&stage.cluster, Some(&format!("theme=dark; {COOKIE}")), 50)? {
                assert_eq!((answer.version.as_str(), answer.cookie), ("v2", None), "at {canary} %");
            }
        }
        if promoted {
            stage.roll_primary()?;
        }
        // Everybody is back, and the cookie is taken from whoever has it.
        let back = Rule { always: Some(TAKEN_BACK), ..Rule::new(Some(STICKY), 100, 0) };
        stage.step(vec![back, Rule::new(None, 100, 0)])?;
        for answer in ask(&stage.cluster, Some(COOKIE), 20)? {
            assert_eq!((answer.version.as_str(), answer.cookie.as_deref()), ("v1", Some(TAKEN_BACK)));
        }
        for answer in ask(&stage.cluster, None, 50)? {
            assert_eq!((answer.version.as_str(), answer.cookie), ("v1", None));
        }
    }
    stage.end()
}
