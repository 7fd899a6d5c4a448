//! What other controllers of a cluster read: routes at their Gateways, Gateways of their classes, `VirtualServices` for
//! Istio's Gateways only. What is wrong there is theirs to say. (In a directory nobody else says it.)
use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    ReadKind, broken,
    gateway_api::{self, Parent, Target},
    meta::Key,
};
use crate::source::{
    Object, Snapshot,
    cluster::{self, CONTROLLER},
};

/// What of a cluster is canary's.
#[derive(Debug, Clone, Default)]
pub(super) struct Own {
    classes: BTreeSet<String>,
    gateways: BTreeSet<Key>,
}

impl Own {
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let kind = |object: &Object| cluster::is_origin(&object.origin.file).then(|| ReadKind::of(object)).flatten();
        let mut own = Self::default();
        let classes = snapshot.objects.iter().filter(|it| matches!(kind(it), Some(ReadKind::GatewayClass)));
        let classes = classes.filter(|it| text(&it.unpacked(), "/spec/controllerName") == CONTROLLER);
        own.classes = classes.map(|it| it.name.clone()).collect();
        let gateways = snapshot.objects.iter().filter(|it| matches!(kind(it), Some(ReadKind::Gateway)));
        let gateways = gateways.filter(|it| own.is_of_own_class(&it.unpacked()));
        own.gateways = gateways.map(|it| Key::new(&it.namespace, &it.name)).collect();
        own
    }

    /// Whether only others read an object.
    pub(super) fn leaves_to_others(&self, kind: ReadKind, object: &Object) -> bool {
        if !cluster::is_origin(&object.origin.file) {
            return false;
        }
        match kind {
            // Without hosts it is a delegate, perhaps of one for the mesh.
            ReadKind::VirtualService => {
                let hosts = object.body.pointer("/spec/hosts").and_then(Value::as_array);
                hosts.is_some_and(|hosts| !hosts.is_empty()) && !broken::is_for_the_mesh(object)
            }
            ReadKind::GatewayRoute(_) => self.parents(object).next().is_none(),
            ReadKind::Gateway => !self.is_of_own_class(object),
            ReadKind::GatewayClass => !self.classes.contains(&object.name),
            _ => false,
        }
    }

    /// The parents of a route that are canary's, also of one that is not valid.
    pub(super) fn parents(&self, route: &Object) -> impl Iterator<Item = Parent> {
        gateway_api::parents(route).filter(|parent| match &parent.target {
            Target::Service(_) => true,
            Target::Gateway(key) => self.gateways.contains(key),
            Target::Other => false,
        })
    }

    /// Whether a Gateway is canary's.
    pub(super) fn is_of_own_class(&self, object: &Object) -> bool {
        self.classes.contains(text(object, "/spec/gatewayClassName"))
    }
}

fn text<'o>(object: &'o Object, pointer: &str) -> &'o str {
    object.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
