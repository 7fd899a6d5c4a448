//! Objects of which a cluster has very many: as text until somebody wants to know, and then what was made of it.
use std::{
    any::Any,
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use serde_json::Value;

use super::Object;

/// The rest of an [`Object`]: its body as text, if it has that form, and what was made of it.
#[derive(Debug, Default)]
pub struct Compact {
    text: Option<Box<str>>,
    made: OnceLock<Arc<dyn Any + Send + Sync>>,
}

/// What was made of it is another's: a clone may be changed.
impl Clone for Compact {
    fn clone(&self) -> Self {
        Self { text: self.text.clone(), made: OnceLock::new() }
    }
}

/// What was made of it says nothing new.
impl PartialEq for Compact {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Compact {}

impl Object {
    /// The same with its body as text: a tenth of the memory.
    pub(super) fn packed(mut self) -> Self {
        self.compact.text = Some(self.body.take().to_string().into());
        self
    }

    /// The object with its body.
    pub(crate) fn unpacked(&self) -> Cow<'_, Self> {
        let Some(text) = &self.compact.text else { return Cow::Borrowed(self) };
        let mut object = self.clone();
        object.compact = Compact::default();
        // It was written from a value.
        object.body = serde_json::from_str(text).unwrap_or(Value::Null);
        Cow::Owned(object)
    }

    /// What `make` makes of the object, made once as long as the object is the same in memory. Of one type only.
    pub(crate) fn made<T: Any + Send + Sync>(&self, make: impl Fn() -> T) -> Arc<T> {
        let there = self.compact.made.get_or_init(|| Arc::new(make())).clone();
        there.downcast().unwrap_or_else(|_| Arc::new(make()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn a_packed_object_is_what_it_was() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: b}}\nstatus: {podIP: 10.0.0.1}";
        let plain = crate::source::parse(text, Path::new("x")).objects.remove(0);
        let dense = (*plain).clone().packed();
        assert!(dense.body.is_null() && dense != *plain);
        assert_eq!(*dense.unpacked(), *plain);
        assert_eq!(*plain.unpacked(), *plain);
        assert_eq!((*dense.made(|| 1_u8), *dense.made(|| 2_u8)), (1, 1));
        assert_eq!(*dense.clone().made(|| 3_u8), 3, "a clone may be changed");
    }
}
