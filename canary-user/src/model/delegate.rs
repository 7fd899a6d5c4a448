//! Rules that stand in another VirtualService: as Istio, a root's rule and each rule of its delegate become one.
use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use super::{
    broken::Broken,
    meta::{Key, Meta},
    names::Host,
    problem::{Faults, Problem},
    raw,
    request::{HttpAction, HttpMatch, HttpRule},
    settings::{RoutePolicy, Settings},
    virtual_service::{SourceMatch, VirtualService},
};
use crate::{
    diagnostic::{Diagnostic, Severity},
    source::Object,
    state::{RequestMatch, Text},
};

/// Where a rule stands that a root's rule leaves to a delegate.
#[derive(Debug, Clone)]
pub(crate) struct Delegated {
    /// The delegate.
    pub(crate) meta: Meta,
    /// Path of the rule in it.
    pub(crate) field: String,
    /// Path of the root's rule in the root; none for routes of the Gateway API, which stand beside each other.
    pub(crate) root_field: Option<String>,
    /// Fields that the rule has from the root's.
    inherited: Vec<String>,
}

impl Delegated {
    /// A rule at `field` of an object that means the same host.
    pub(super) fn beside(meta: Meta, field: String) -> Self {
        Self { meta, field, root_field: None, inherited: Vec::new() }
    }

    /// Whether a field of the rule, such as `headers.request`, is the root's.
    pub(crate) fn is_inherited(&self, field: &str) -> bool {
        let name = field.split(['.', '[']).next().unwrap_or(field);
        self.inherited.iter().any(|it| it == name)
    }
}

/// What a rule does itself: never the root's.
const OWN: &[&str] = &["name", "match", "route", "redirect", "directResponse", "delegate"];

/// Puts the rules of delegates in the places of the rules that refer to them. One whose delegate is not valid stays, so
/// that the service keeps its last good state.
pub(super) fn merge(
    all: &mut [VirtualService],
    objects: &[&Object],
    broken: &[Broken],
    policies: &BTreeMap<Key, RoutePolicy>,
) -> Vec<Diagnostic> {
    let refers = |route: &VirtualService| route.http.iter().any(|rule| matches!(rule.action, HttpAction::Delegate(_)));
    if !all.iter().any(refers) {
        return Vec::new();
    }
    let bodies = objects.iter().map(|object| (Key::new(&object.namespace, &object.name), *object)).collect();
    let delegates = all.iter().map(|route| (route.meta.key.clone(), route.clone())).collect();
    let mut merger = Merger { bodies, delegates, broken, policies, diagnostics: Vec::new() };
    for root in all.iter_mut().filter(|route| refers(route)) {
        let rules = std::mem::take(&mut root.http);
        root.http = rules.into_iter().flat_map(|rule| merger.rules(&root.meta, rule)).collect();
    }
    merger.diagnostics
}

struct Merger<'s> {
    bodies: HashMap<Key, &'s Object>,
    delegates: HashMap<Key, VirtualService>,
    broken: &'s [Broken],
    policies: &'s BTreeMap<Key, RoutePolicy>,
    diagnostics: Vec<Diagnostic>,
}

impl Merger<'_> {
    /// The rules in place of one of a root.
    fn rules(&mut self, root: &Meta, rule: HttpRule) -> Vec<HttpRule> {
        let HttpAction::Delegate(key) = &rule.action else { return vec![rule] };
        if self.broken.iter().any(|broken| broken.meta.is_kind("VirtualService") && broken.meta.key == *key) {
            return vec![rule];
        }
        let why = match self.delegates.get(key) {
            None => "is not known",
            Some(delegate) if !delegate.hosts.is_empty() => "has `hosts`, so it is no delegate",
            Some(delegate) if !delegate.export_to.includes(&root.key.namespace) => "is not exported to this namespace",
            Some(delegate) => {
                let delegate = delegate.clone();
                self.report_settings(&delegate);
                let found = delegate.http.into_iter().enumerate();
                return found.filter_map(|(at, leaf)| self.rule(root, &rule, &delegate.meta, leaf, at)).collect();
            }
        };
        let message = format!("VirtualService {}/{} {why}: the rule is left out", key.namespace, key.name);
        let remedy = "create it without `hosts`, or correct `name` and `namespace`";
        let field = format!("spec.{}.delegate", rule.position);
        self.diagnostics.push(root.diagnostic(Severity::Error, "IST0101", field, message, remedy));
        Vec::new()
    }

    /// Settings are those of the VirtualService whose hosts they are for.
    fn report_settings(&mut self, delegate: &VirtualService) {
        let remedy = "write it for the VirtualService that refers to it";
        let mut report = |meta: &Meta, field: &str, what: &str| {
            let message = format!("{what} not enforced: {} is a delegate, which has no settings", delegate.meta.id());
            self.diagnostics.push(meta.diagnostic(Severity::Warning, "CAN0005", field, message, remedy));
        };
        if delegate.settings != Settings::default() {
            report(&delegate.meta, "metadata.annotations", "annotations of canary.io are");
        }
        for policy in self.policies.values().filter(|policy| policy.target == delegate.meta.key) {
            report(&policy.meta, "spec.targetRef", "the policy is");
        }
    }

    /// A root's rule and one of its delegate as one; `None` when they contradict each other.
    fn rule(&mut self, root: &Meta, of: &HttpRule, delegate: &Meta, leaf: HttpRule, at: usize) -> Option<HttpRule> {
        let field = format!("spec.http[{at}]");
        let root_field = format!("spec.{}", of.position);
        let merged = matches(&of.matches, &leaf.matches).and_then(|matches| {
            let cookies = texts(&of.cookies, &leaf.cookies)?;
            let (json, inherited) = self.json(&root.key, of, &delegate.key, at)?;
            let mut faults = Faults::default();
            let raw: raw::HttpRoute = serde_json::from_value(json).ok()?;
            let read = HttpRule::read(raw, &field, &delegate.key.namespace, &mut faults)?;
            let mut rule = faults.finish(read).ok()?;
            rule.name = match (of.name.clone(), leaf.name) {
                (Some(root), Some(leaf)) => Some(format!("{root}-{leaf}")),
                (root, leaf) => leaf.or(root),
            };
            let (meta, field) = (delegate.clone(), field.clone());
            rule.position = format!("{}.http[{at}]", of.position);
            rule.delegated = Some(Delegated { meta, field, root_field: Some(root_field.clone()), inherited });
            Some(HttpRule { matches, cookies, ..rule })
        });
        if merged.is_none() {
            let message =
                format!("the rule is left out: it contradicts `{root_field}` of {}, which leads here", root.id());
            let remedy = "let every `match` here ask for the same as one of that rule, or for a part of it; regular expressions cannot be compared";
            self.diagnostics.push(delegate.diagnostic(Severity::Warning, "CAN0315", field, message, remedy));
        }
        merged
    }

    /// The delegate's rule as it is written, with what it does not say itself from the root's, and the names of that.
    fn json(&self, root: &Key, of: &HttpRule, delegate: &Key, at: usize) -> Option<(Value, Vec<String>)> {
        let rules = |key| self.bodies.get(key)?.body.pointer("/spec/http")?.as_array();
        let namespace = root.namespace.clone();
        let root = rules(root)?.get(of.index()?)?.as_object()?;
        let mut merged: Map<String, Value> = rules(delegate)?.get(at)?.as_object()?.clone();
        merged.retain(|_, value| !value.is_null());
        merged.remove("match");
        let has = |names: &[&str]| names.iter().any(|name| merged.contains_key(*name));
        // The proxy's own answers are not sent on; and mirrors are either one or a list.
        let (answers, mirrors) = (has(&["redirect", "directResponse"]), has(&["mirror", "mirrors"]));
        let inherits = |name: &str| {
            let excluded =
                (answers && matches!(name, "rewrite" | "fault")) || (mirrors && matches!(name, "mirror" | "mirrors"));
            !(excluded || OWN.contains(&name) || merged.contains_key(name))
        };
        let inherited: Vec<_> = root.iter().filter(|(name, value)| !value.is_null() && inherits(name)).collect();
        let names = inherited.iter().map(|(name, _)| (*name).clone()).collect();
        merged.extend(inherited.into_iter().map(|(name, value)| {
            let leads_somewhere = matches!(name.as_str(), "mirror" | "mirrors");
            (name.clone(), if leads_somewhere { completed(value, &namespace) } else { value.clone() })
        }));
        Some((raw::without_nulls(&Value::Object(merged)), names))
    }
}

/// A field of the root with short names of hosts in it written out: in the delegate they would be others.
fn completed(value: &Value, namespace: &str) -> Value {
    match value {
        Value::Object(map) => {
            let fields = map.iter().map(|(name, value)| {
                let host = value.as_str().filter(|_| name == "host").and_then(|it| Host::read(it, namespace).ok());
                let value = host.map_or_else(|| completed(value, namespace), |host| host.to_string().into());
                (name.clone(), value)
            });
            Value::Object(fields.collect())
        }
        Value::Array(list) => list.iter().map(|value| completed(value, namespace)).collect(),
        other => other.clone(),
    }
}

/// Every entry of the delegate with each of the root's that it can be a part of; `None` when one is a part of none.
fn matches(root: &[HttpMatch], leaf: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() || leaf.is_empty() {
        return Some([root, leaf].concat());
    }
    let parts = leaf.iter().map(|leaf| {
        let parts: Vec<HttpMatch> = root.iter().filter_map(|root| entry(root, leaf)).collect();
        (!parts.is_empty()).then_some(parts)
    });
    parts.collect::<Option<Vec<_>>>().map(|parts| parts.concat())
}

/// Both as one; `None` when the delegate's is no part of the root's.
fn entry(root: &HttpMatch, leaf: &HttpMatch) -> Option<HttpMatch> {
    if root.port.is_some() && leaf.port.is_some() && root.port != leaf.port {
        return None;
    }
    Some(HttpMatch {
        source: source(&root.source, &leaf.source)?,
        port: leaf.port.or(root.port),
        request: request(&root.request, &leaf.request)?,
    })
}

fn source(root: &SourceMatch, leaf: &SourceMatch) -> Option<SourceMatch> {
    let labels_differ = leaf.labels.iter().any(|(key, value)| root.labels.get(key).is_some_and(|it| it != value));
    // As Istio has it, a root's namespace must be said again.
    let namespace_differs = root.namespace.is_some() && root.namespace != leaf.namespace;
    let more_gateways = root.gateways_mesh == Some(false) && leaf.gateways_mesh == Some(true);
    if labels_differ || namespace_differs || more_gateways {
        return None;
    }
    let mut labels = root.labels.clone();
    labels.extend(leaf.labels.clone());
    let gateways_mesh = leaf.gateways_mesh.or(root.gateways_mesh);
    Some(SourceMatch { gateways_mesh, labels, namespace: leaf.namespace.clone() })
}

fn request(root: &RequestMatch, leaf: &RequestMatch) -> Option<RequestMatch> {
    if root.ignore_uri_case != leaf.ignore_uri_case {
        return None;
    }
    Some(RequestMatch {
        sources: Vec::new(),
        uri: text(root.uri.as_ref(), leaf.uri.as_ref()).ok()?,
        ignore_uri_case: leaf.ignore_uri_case,
        scheme: text(root.scheme.as_ref(), leaf.scheme.as_ref()).ok()?,
        method: text(root.method.as_ref(), leaf.method.as_ref()).ok()?,
        authority: text(root.authority.as_ref(), leaf.authority.as_ref()).ok()?,
        headers: texts(&root.headers, &leaf.headers)?,
        without_headers: texts(&root.without_headers, &leaf.without_headers)?,
        query: texts(&root.query, &leaf.query)?,
        cookies: BTreeMap::new(),
    })
}

fn texts(root: &BTreeMap<String, Text>, leaf: &BTreeMap<String, Text>) -> Option<BTreeMap<String, Text>> {
    let mut all = root.clone();
    for (name, test) in leaf {
        all.extend(text(root.get(name), Some(test)).ok()?.map(|test| (name.clone(), test)));
    }
    Some(all)
}

/// What the delegate asks for is no part of what the root does.
struct Contradiction;

/// The delegate's test if it asks for a part of what the root's does; one of them alone is itself.
fn text(root: Option<&Text>, leaf: Option<&Text>) -> Result<Option<Text>, Contradiction> {
    let (Some(root), Some(part)) = (root, leaf) else { return Ok(leaf.or(root).cloned()) };
    let fits = match (root, part) {
        (Text::Exact(root), Text::Exact(leaf)) => root == leaf,
        (Text::Prefix(root), Text::Exact(leaf) | Text::Prefix(leaf)) => leaf.starts_with(root),
        _ => false,
    };
    if fits { Ok(Some(part.clone())) } else { Err(Contradiction) }
}

/// A VirtualService without hosts is a delegate: it has no place of its own, and leads nowhere else.
pub(super) fn check(spec: &raw::VirtualService, faults: &mut Faults) {
    if !spec.hosts.is_empty() {
        return;
    }
    let lists = [("gateways", spec.gateways.is_empty()), ("tcp", spec.tcp.is_empty()), ("tls", spec.tls.is_empty())];
    for (what, is_empty) in lists {
        if !is_empty {
            faults.push(format!("spec.{what}"), Problem::InDelegate { what });
        }
    }
    for (index, _) in spec.http.iter().enumerate().filter(|(_, rule)| rule.delegate.is_some()) {
        faults.push(format!("spec.http[{index}].delegate"), Problem::InDelegate { what: "delegate" });
    }
}
