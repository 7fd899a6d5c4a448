//! `canary set-weight --kube`: weights at the API server, which all agents follow.
use std::path::Path;

use serde_json::Value;

use crate::{
    agent::{routes, run},
    api::dto::{ChangeV1, EditedV1, ObjectOutcomeV1, WeightV1},
    cli::{Exit, Failure, args::SetWeightArgs, change, output::Screen},
    diagnostic::chain,
    source::{
        Object,
        cluster::{Access, Route, RouteError, Routes},
        edit::{Lists, set_weights},
        parse,
    },
};

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        let remedy = match &error {
            RouteError::Connect(_) => "give --kubeconfig FILE, or set KUBECONFIG",
            RouteError::NotInstalled => {
                "install the CustomResourceDefinitions of Istio or of the Gateway API, or name another --kube-context"
            }
            RouteError::Conflict { .. } => "look at it, and say it again",
            RouteError::Server(_) => "check with `kubectl auth can-i patch virtualservices` (or httproutes)",
        };
        Self::new(chain(&error), remedy)
    }
}

/// Sets weights of one rule of the `VirtualService` that has the service among its hosts, or of the route that has it as a
/// parent.
pub(super) fn set_weight(screen: &mut Screen<'_>, args: &SetWeightArgs) -> Result<Exit, Failure> {
    let runtime = run::runtime().map_err(|error| Failure::new(chain(&error), ""))?;
    runtime.block_on(async {
        let access = Access { kubeconfig: args.kubeconfig.clone(), context: args.kube_context.clone(), node: None };
        // As the agent shows it: without port and protocol.
        let named = args.service.split(':').next().unwrap_or_default();
        let (namespace, name) = named.split_once('/').map_or((None, named), |(space, name)| (Some(space), name));
        let routes = access.routes(namespace.or(args.namespace.as_deref())).await?;
        let route = route_of(&routes, name).await?;
        let (edited, section) = edit(&route.object, args)?;
        let rules = edited.body.pointer(&format!("/spec/{section}")).cloned().unwrap_or_default();
        routes.change(&route, section, &rules, args.dry_run).await?;
        change::report(screen, &told(args, &route.object, &edited), args.output)
    })
}

/// The only route that is for the service.
async fn route_of(routes: &Routes, name: &str) -> Result<Route, Failure> {
    let namespace = routes.namespace();
    let mut found: Vec<Route> =
        routes.all().await?.into_iter().filter(|route| is_for(&route.object, name, namespace)).collect();
    match (found.pop(), found.as_slice()) {
        (Some(route), []) => Ok(route),
        (None, _) => {
            let message =
                format!("no VirtualService of namespace {namespace} has the host {name}, and no route the parent");
            Err(Failure::new(message, "name another --namespace, or apply one with `kubectl apply` first"))
        }
        (Some(last), others) => {
            let names: Vec<String> = others.iter().chain([&last]).map(|route| route.object.id()).collect();
            let message = format!("several objects are for {name}: {}", names.join(", "));
            Err(Failure::new(message, "see which is in force (`canary get services`); change it with `kubectl edit`"))
        }
    }
}

/// Whether a VirtualService has the Service among its hosts, or a route among its parents.
fn is_for(object: &Object, name: &str, namespace: &str) -> bool {
    let list = |pointer: &str| object.body.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let full = format!("{name}.{namespace}.svc.cluster.local");
    let is_host = |host: &Value| host.as_str().is_some_and(|host| host == full || host == name);
    let is_parent = |parent: &Value| {
        let text = |field: &str| parent.get(field).and_then(Value::as_str);
        let own = text("namespace").is_none_or(|it| it == namespace);
        text("kind") == Some("Service") && text("name") == Some(name) && own
    };
    list("/spec/hosts").iter().any(is_host) || list("/spec/parentRefs").iter().any(is_parent)
}

/// The object with these weights, and the list that the rule is in.
fn edit(object: &Object, args: &SetWeightArgs) -> Result<(Object, &'static str), Failure> {
    let failed = |error: &dyn std::error::Error| Failure::new(chain(error), "nothing was changed");
    let text = object.body.to_string();
    let place = Path::new("-");
    // Lines and places of fields are those of this text.
    let read = parse(&text, place);
    let written = read.objects.first().ok_or_else(|| Failure::new("the API server's object cannot be read", ""))?;
    let text = set_weights(&text, written, args.rule.as_deref(), &args.weights).map_err(|error| failed(&error))?;
    let edited = parse(&text, place).objects.first().map(|object| Object::clone(object));
    let edited = edited.ok_or_else(|| Failure::new("the changed object cannot be read", ""))?;
    let sections = Lists::of(object).map(|lists| lists.sections).unwrap_or_default();
    let section = sections.iter().copied().find(|section| {
        let at = format!("/spec/{section}");
        object.body.pointer(&at) != edited.body.pointer(&at)
    });
    let section = section.or(sections.first().copied()).unwrap_or_default();
    Ok((edited, section))
}

/// What has changed, in the form in which an agent would say it.
fn told(args: &SetWeightArgs, old: &Object, new: &Object) -> EditedV1 {
    let same = old.body.get("spec") == new.body.get("spec");
    let outcome = if same { "unchanged" } else { "configured" };
    // A version without a weight gets nothing, and is left out.
    let weights = |written: &routes::Written| {
        let weighed = written.weights.iter().filter(|(_, weight)| *weight > 0);
        weighed.map(|(version, weight)| WeightV1 { version: version.clone(), weight: *weight }).collect()
    };
    let (before, after) = (routes::written(old), routes::written(new));
    let different = before.iter().zip(&after).filter(|(old, new)| old != new);
    let changes = different.map(|(old, new)| ChangeV1 {
        service: args.service.clone(),
        rule: old.rule.clone(),
        old: weights(old),
        new: weights(new),
    });
    EditedV1 {
        dry_run: args.dry_run,
        objects: vec![ObjectOutcomeV1 { object: old.id(), outcome: outcome.into() }],
        changes: changes.collect(),
        ..EditedV1::default()
    }
}
