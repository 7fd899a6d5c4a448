//! Names that Kubernetes would take. Objects that are there already keep theirs; new ones must have such a name.
use crate::{
    diagnostic::{Diagnostic, Severity},
    source::{Object, code},
};

/// A label of a domain name is no longer (RFC 1123).
const LABEL_MAX: usize = 63;
/// A domain name is no longer.
const NAME_MAX: usize = 253;

/// What is wrong with the name and the namespace of an object.
pub(super) fn problems(object: &Object) -> Vec<Diagnostic> {
    // A Service's name is one label of its host.
    let name_is_label = object.kind == "Service" && object.group().is_empty();
    let fields = [("metadata.namespace", &object.namespace, true), ("metadata.name", &object.name, name_is_label)];
    let wrong = fields.into_iter().filter(|(_, text, label)| !if *label { is_label(text) } else { is_name(text) });
    let say = |(field, text, label): (&str, &String, bool)| {
        let (dot, length) = if label { ("", LABEL_MAX) } else { (", `.`", NAME_MAX) };
        Diagnostic {
            severity: Severity::Error,
            code: code::NOT_AN_OBJECT,
            object: object.id(),
            field: field.into(),
            origin: object.origin_of(field),
            message: format!("`{text}` is not a name that Kubernetes takes"),
            remedy: format!(
                "use at most {length} of: lower-case letters, digits, `-`{dot}; begin and end with a letter or digit"
            ),
        }
    };
    wrong.map(say).collect()
}

/// As Kubernetes has it: the parts of a long name may be longer than a label.
fn is_name(text: &str) -> bool {
    text.len() <= NAME_MAX && text.split('.').all(is_part)
}

fn is_label(text: &str) -> bool {
    text.len() <= LABEL_MAX && is_part(text)
}

fn is_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_domains() {
        for good in ["a", "helloworld-v1", "0a", "a.b-c.d", &"a".repeat(253)] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "../a", "a b", "é", &"a".repeat(254), "a."] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_label(&"a".repeat(63)) && !is_label(&"a".repeat(64)) && !is_label("a.b"));
    }
}
