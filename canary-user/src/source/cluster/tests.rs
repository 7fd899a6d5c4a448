//! What is kept of objects, and what is known when.
use serde_json::{Value, json};

use super::*;

fn kind(plural: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.plural == plural).unwrap()
}

fn object(plural: &str, body: Value) -> Object {
    let kind = kind(plural);
    trim::trim(kind, kind.versions[0], body).unwrap().unpacked().into_owned()
}

/// Holdings that know of every kind, and the reader.
fn listed() -> (Holdings, Cluster) {
    let (holdings, cluster) = Holdings::new();
    for kind in KINDS {
        holdings.replace(kind, Vec::new());
    }
    (holdings, cluster)
}

fn service(name: &str, port: u16) -> Object {
    object("services", json!({"metadata": {"name": name, "namespace": "a"}, "spec": {"ports": [{"port": port}]}}))
}

#[test]
fn of_a_pod_little_is_kept_and_lists_keep_their_places() {
    let pod = object(
        "pods",
        json!({
            "metadata": {"name": "v1-0", "namespace": "a", "labels": {"app": "x"}, "annotations": {"big": "…"},
                "resourceVersion": "7", "managedFields": [{}], "uid": "u"},
            "spec": {"nodeName": "n", "hostNetwork": true, "serviceAccountName": "s",
                "containers": [{"name": "a"}, {"image": "i", "ports": [{"name": "http", "containerPort": 80, "hostPort": 1}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "hostIP": "192.0.2.1", "conditions":
                [{"type": "Ready", "status": "True", "lastProbeTime": null}]},
        }),
    );
    let expected = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "v1-0", "namespace": "a", "labels": {"app": "x"}, "uid": "u"},
        "spec": {"hostNetwork": true, "nodeName": "n", "containers": [{}, {"ports": [{"name": "http", "containerPort": 80}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]},
    });
    assert_eq!(pod.body, expected);
    assert_eq!((pod.id().as_str(), pod.origin.to_string().as_str()), ("Pod a/v1-0", "kubernetes:pods"));
}

#[test]
fn of_a_route_everything_is_kept_but_what_others_write_about_it() {
    let route = object(
        "virtualservices",
        json!({
            "metadata": {"name": "r", "namespace": "a", "resourceVersion": "7",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "canary.io/udp": "true"}},
            "spec": {"hosts": ["x"], "future": {"field": 1}},
            "status": {"conditions": []},
        }),
    );
    let expected = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "r", "namespace": "a", "annotations": {"canary.io/udp": "true"}},
        "spec": {"hosts": ["x"], "future": {"field": 1}},
    });
    assert_eq!(route.body, expected);
}

#[test]
fn nothing_is_read_before_everything_was_listed() {
    let (holdings, cluster) = Holdings::new();
    for kind in KINDS.iter().filter(|kind| kind.plural != "pods") {
        holdings.replace(kind, Vec::new());
    }
    assert_eq!(cluster.read().unwrap_err().missing, ["pods: no answer yet"]);
    holdings.trouble(kind("pods"), "forbidden".into());
    assert_eq!(cluster.read().unwrap_err().missing, ["pods: forbidden"]);
    assert_eq!(cluster.troubles(), ["pods: forbidden"]);
    holdings.replace(kind("pods"), Vec::new());
    assert_eq!(cluster.read().unwrap(), Snapshot::default());
    assert!(cluster.troubles().is_empty());
}

#[test]
fn what_is_not_installed_is_empty_at_once_but_what_was_there_stays_a_while() {
    let (holdings, cluster) = Holdings::new();
    for kind in KINDS {
        holdings.absent(kind);
    }
    assert_eq!(cluster.read().unwrap(), Snapshot::default());
    holdings.replace(kind("services"), vec![service("x", 80)]);
    holdings.absent(kind("services"));
    assert_eq!(cluster.read().unwrap().objects.len(), 1);
}

#[test]
fn a_silent_server_takes_nothing_away() {
    let (holdings, cluster) = listed();
    holdings.put(kind("services"), service("x", 80));
    holdings.trouble(kind("services"), "gone".into());
    assert_eq!(cluster.read().unwrap().objects.len(), 1);
    assert_eq!(cluster.troubles(), ["services: gone"]);
    holdings.remove(kind("services"), &service("x", 80));
    assert_eq!(cluster.read().unwrap(), Snapshot::default());
}

#[tokio::test]
async fn changes_are_told_once_and_only_if_they_are_some() {
    let (holdings, mut cluster) = listed();
    assert!(cluster.changed().await);
    let mut told = async |what: &str| {
        let patience = if what == "told" { Duration::from_secs(10) } else { Duration::from_millis(100) };
        let told = tokio::time::timeout(patience, cluster.changed()).await;
        assert_eq!(told.is_ok(), what == "told", "{what}");
    };
    told("nothing").await;
    holdings.put(kind("services"), service("x", 80));
    holdings.put(kind("services"), service("y", 80));
    told("told").await;
    told("nothing").await;
    holdings.put(kind("services"), service("x", 80)); // Its status, perhaps.
    told("nothing").await;
    holdings.replace(kind("services"), vec![service("x", 81)]);
    told("told").await;
    holdings.replace(kind("services"), vec![service("x", 81)]); // Listed again, and nothing has happened.
    told("nothing").await;
    holdings.replace(kind("services"), Vec::new());
    told("told").await;
    holdings.remove(kind("services"), &service("y", 80));
    told("nothing").await;
}

#[test]
fn a_status_keeps_what_others_say_and_the_times_of_what_stays() {
    let condition = |status: &str| json!({"type": "Accepted", "status": status, "reason": "R", "message": "m"});
    let parent = json!({"kind": "Service", "name": "x"});
    let entry =
        |status: &str| json!({"parentRef": parent, "controllerName": CONTROLLER, "conditions": [condition(status)]});
    let others = json!({"parentRef": {"name": "gw"}, "controllerName": "x.io/other", "conditions": []});
    let old = json!({"parents": [others], "field": 1});
    let first = remarks::status(&old, &Says::Parents(vec![entry("True")]), Some(3), "T1");
    let at = |status: &Value, pointer: &str| status.pointer(pointer).cloned().unwrap();
    assert_eq!((at(&first, "/parents/0"), at(&first, "/field")), (others.clone(), json!(1)));
    assert_eq!(at(&first, "/parents/1/conditions/0/lastTransitionTime"), "T1");
    assert_eq!(at(&first, "/parents/1/conditions/0/observedGeneration"), 3);
    // Nothing has changed, so there is nothing to write, however late it is.
    assert_eq!(remarks::status(&first, &Says::Parents(vec![entry("True")]), Some(3), "T2"), first);
    let changed = remarks::status(&first, &Says::Parents(vec![entry("False")]), Some(4), "T2");
    assert_eq!(at(&changed, "/parents/1/conditions/0/lastTransitionTime"), "T2");
    assert_eq!(at(&changed, "/parents").as_array().unwrap().len(), 2);
    // Taken back.
    assert_eq!(remarks::status(&changed, &Says::Parents(vec![]), None, "T3"), old);

    let fields = |routes: u8| json!({"conditions": [condition("True")], "listeners": [{"name": "a", "attachedRoutes": routes, "conditions": [condition("True")]}]});
    let first = remarks::status(&json!({}), &Says::Fields(fields(1)), Some(1), "T1");
    let second = remarks::status(&first, &Says::Fields(fields(2)), Some(1), "T2");
    assert_eq!(at(&second, "/listeners/0/attachedRoutes"), 2);
    assert_eq!(at(&second, "/listeners/0/conditions/0/lastTransitionTime"), "T1");
    assert_eq!(at(&second, "/conditions/0/lastTransitionTime"), "T1");
}

#[test]
fn where_services_are_not_to_be_had_nothing_is_absent() {
    let (holdings, cluster) = listed();
    let route = object("virtualservices", json!({"metadata": {"name": "r", "namespace": "a"}, "spec": {}}));
    holdings.put(kind("virtualservices"), route);
    holdings.trouble(kind("services"), "404 page not found".into());
    holdings.lock().get_mut("virtualservices").unwrap().absent_since = Instant::now().checked_sub(ABSENT_AFTER);
    holdings.absent(kind("virtualservices"));
    assert_eq!(cluster.read().unwrap().objects.len(), 1);
    assert_eq!(cluster.troubles().len(), 2);
}

/// What is reported when it is not done must not be cut off before.
#[test]
fn what_is_reported_is_kept() {
    for field in [
        "externalTrafficPolicy",
        "internalTrafficPolicy",
        "loadBalancerSourceRanges",
        "sessionAffinity",
        "trafficDistribution",
    ] {
        assert!(kind("services").keep.unwrap().contains(&format!("spec.{field}").as_str()), "{field}");
    }
}

/// Every kind that is followed can be read in the form in which it is kept.
#[test]
fn what_is_kept_can_be_read() {
    let (holdings, cluster) = listed();
    let labels = json!({"team": "shop"});
    let namespace = json!({"metadata": {"name": "shop", "labels": labels}, "spec": {"finalizers": ["kubernetes"]}});
    holdings.put(kind("namespaces"), trim::trim(kind("namespaces"), "v1", namespace).unwrap());
    let service = json!({"metadata": {"name": "x", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
    holdings.put(kind("services"), trim::trim(kind("services"), "v1", service).unwrap());
    let (model, found) = crate::model::Model::read(&cluster.read().unwrap());
    assert_eq!((found, model.broken().len(), model.services().len()), (vec![], 0, 1));
}

/// The node is where it was when its Node is deleted: what comes to it is served as before, and the status says why.
#[test]
fn a_node_outlives_its_object() {
    let (holdings, cluster) = listed();
    let node = |zone: &str| object("nodes", json!({"metadata": {"name": "a", "labels": {"zone": zone}}}));
    holdings.replace(kind("nodes"), vec![node("x")]);
    let before = cluster.read().unwrap();
    assert!(before.objects.len() == 1 && cluster.troubles().is_empty());
    // Told of, or found by a new list.
    for gone in [
        |it: &Holdings, node: &Object| it.remove(kind("nodes"), node),
        |it: &Holdings, _: &Object| it.replace(kind("nodes"), Vec::new()),
    ] {
        gone(&holdings, &node("x"));
        assert_eq!(cluster.read().unwrap(), before);
        assert_eq!(cluster.troubles(), [format!("nodes: {OUTLIVED}")]);
        holdings.put(kind("nodes"), node("x"));
        assert!(cluster.troubles().is_empty());
    }
    // It comes back as another one.
    holdings.replace(kind("nodes"), Vec::new());
    holdings.replace(kind("nodes"), vec![node("y")]);
    assert_eq!(*cluster.read().unwrap().objects[0], node("y"));
    assert!(cluster.troubles().is_empty());
}
