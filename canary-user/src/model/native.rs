//! Services, `EndpointSlices`, Pods and Nodes: a cluster has very many, and few change, so each is read once.
use std::sync::Arc;

use super::{
    Broken, Key, Model,
    endpoints::{EndpointSlice, Pod},
    judged,
    node::Node,
    problem::Invalid,
    service::Service,
};
use crate::{diagnostic::Diagnostic, source::Object};

/// The kinds of which there are very many.
#[derive(Debug, Clone, Copy)]
pub(super) enum NativeKind {
    Service,
    EndpointSlice,
    Pod,
    Node,
}

/// What was read from one object.
enum Piece {
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Pod(Arc<Pod>),
    Node(Arc<Node>),
    /// A slice that has no addresses.
    Nothing,
}

type Read = (Result<Piece, Broken>, Vec<Diagnostic>);

impl NativeKind {
    pub(super) fn of(object: &Object) -> Option<Self> {
        Some(match (object.kind.as_str(), object.api_version.as_str()) {
            ("Service", "v1") => Self::Service,
            ("Pod", "v1") => Self::Pod,
            ("Node", "v1") => Self::Node,
            ("EndpointSlice", "discovery.k8s.io/v1") => Self::EndpointSlice,
            _ => return None,
        })
    }

    fn read(self, object: &Object) -> Result<Piece, Vec<Invalid>> {
        Ok(match self {
            Self::Service => Piece::Service(Arc::new(Service::read(object)?)),
            Self::EndpointSlice => {
                EndpointSlice::read(object)?.map_or(Piece::Nothing, |slice| Piece::Slice(Arc::new(slice)))
            }
            Self::Pod => Piece::Pod(Arc::new(Pod::read(object)?)),
            Self::Node => Piece::Node(Arc::new(Node::read(object)?)),
        })
    }
}

impl Model {
    /// Takes an object in the form that was made of it when it was seen first.
    pub(super) fn take_native(&mut self, kind: NativeKind, object: &Arc<Object>, diagnostics: &mut Vec<Diagnostic>) {
        let read = object.made(|| -> Read {
            let whole = object.unpacked();
            judged(&whole, |_| kind.read(&whole))
        });
        let (piece, found) = &*read;
        diagnostics.extend(found.iter().cloned());
        let key = Key::new(&object.namespace, &object.name);
        match piece {
            Ok(Piece::Service(service)) => drop(self.services.insert(key, Arc::clone(service))),
            Ok(Piece::Slice(slice)) => drop(self.slices.insert(key, Arc::clone(slice))),
            Ok(Piece::Pod(pod)) => drop(self.pods.insert(key, Arc::clone(pod))),
            Ok(Piece::Node(node)) => drop(self.nodes.insert(key, Arc::clone(node))),
            Ok(Piece::Nothing) => {}
            Err(broken) => self.broken.push(broken.clone()),
        }
    }
}
