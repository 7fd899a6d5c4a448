//! `ReferenceGrant`: which objects of other namespaces may refer to those of its own.
use super::super::{
    meta::{Key, Meta},
    problem::Invalid,
    raw,
};
use crate::source::{GATEWAY_API, Object};

/// A valid grant.
#[derive(Debug, Clone)]
pub(crate) struct ReferenceGrant {
    meta: Meta,
    /// (group, kind, namespace).
    from: Vec<(String, String, String)>,
    /// (group, kind, name); without a name all of the kind.
    to: Vec<(String, String, Option<String>)>,
}

impl ReferenceGrant {
    pub(in crate::model) fn read(object: &Object) -> Result<Self, Vec<Invalid>> {
        let raw: raw::Resource<raw::ReferenceGrant> = raw::read(&object.body).map_err(|invalid| vec![invalid])?;
        let spec = raw.spec.unwrap_or_default();
        Ok(Self {
            meta: Meta::new(object, &raw.metadata),
            from: spec.from.into_iter().map(|from| (from.group, from.kind, from.namespace)).collect(),
            to: spec.to.into_iter().map(|to| (to.group, to.kind, to.name.filter(|name| !name.is_empty()))).collect(),
        })
    }

    /// Whether an object of kind `from` of the Gateway API, in `namespace`, may refer to the object of this group and kind.
    pub(super) fn allows(&self, (from, namespace): (&str, &str), (group, kind): (&str, &str), to: &Key) -> bool {
        self.meta.key.namespace == to.namespace
            && self.from.iter().any(|(group, kind, of)| group == GATEWAY_API && kind == from && of == namespace)
            && self.to.iter().any(|(to_group, to_kind, name)| {
                to_group == group && to_kind == kind && name.as_ref().is_none_or(|name| *name == to.name)
            })
    }
}
