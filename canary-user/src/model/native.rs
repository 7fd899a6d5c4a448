//! Services, `EndpointSlices` and Pods: a cluster has very many, and few change, so each is read once.
use std::sync::Arc;

use super::{
    Broken, Key, Model, ReadKind,
    endpoints::{EndpointSlice, Pod},
    fields,
    problem::{Invalid, diagnose},
    service::Service,
    strict,
};
use crate::{diagnostic::Diagnostic, source::Object};

/// What was read from one object.
struct Read {
    piece: Piece,
    diagnostics: Vec<Diagnostic>,
}

enum Piece {
    Service(Arc<Service>),
    Slice(Arc<EndpointSlice>),
    Pod(Arc<Pod>),
    /// One that has nothing to read.
    Nothing,
    Broken(Broken),
}

impl Model {
    /// Takes an object in the form that was made of it when it was seen first.
    pub(super) fn take_native(&mut self, kind: ReadKind, object: &Arc<Object>, diagnostics: &mut Vec<Diagnostic>) {
        let read = object.made(|| Read::of(kind, &object.unpacked()));
        diagnostics.extend(read.diagnostics.iter().cloned());
        let key = Key::new(&object.namespace, &object.name);
        match &read.piece {
            Piece::Service(service) => drop(self.services.insert(key, Arc::clone(service))),
            Piece::Slice(slice) => drop(self.slices.insert(key, Arc::clone(slice))),
            Piece::Pod(pod) => drop(self.pods.insert(key, Arc::clone(pod))),
            Piece::Nothing => {}
            Piece::Broken(broken) => self.broken.push(broken.clone()),
        }
    }
}

impl Read {
    fn of(kind: ReadKind, object: &Object) -> Self {
        let mut faults = strict::unknown(object);
        let piece = match piece(kind, object) {
            Ok(piece) => Some(piece),
            Err(found) => {
                faults.extend(found);
                None
            }
        };
        if let Some(piece) = piece.filter(|_| faults.is_empty()) {
            return Self { piece, diagnostics: fields::not_enforced(object) };
        }
        let diagnostics = faults.iter().map(|invalid| diagnose(object, invalid)).collect();
        Self { piece: Piece::Broken(Broken::new(object)), diagnostics }
    }
}

fn piece(kind: ReadKind, object: &Object) -> Result<Piece, Vec<Invalid>> {
    Ok(match kind {
        ReadKind::Service => Piece::Service(Arc::new(Service::read(object)?)),
        ReadKind::EndpointSlice => EndpointSlice::read(object)?.map_or(Piece::Nothing, |it| Piece::Slice(Arc::new(it))),
        ReadKind::Pod => Piece::Pod(Arc::new(Pod::read(object)?)),
        _ => Piece::Nothing,
    })
}
