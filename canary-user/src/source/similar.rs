//! Finds what somebody who mistyped a name probably meant.

/// The known name nearest to `name`, if it is near enough to be a slip: up to a third of the letters, at least one.
pub(crate) fn similar<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let far = (name.chars().count() / 3).max(1);
    let near = known.into_iter().map(|known| (distance(name, known), known)).filter(|&(distance, _)| distance <= far);
    near.min().map(|(_, known)| known)
}

/// ` — did you mean …?`-style text for [`similar`]; empty when nothing is near.
pub(crate) fn did_you_mean<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    similar(name, known).map(|known| format!("did you mean `{known}`? ")).unwrap_or_default()
}

/// Letters to insert, remove, replace or swap with their neighbour, without regard to case.
fn distance(from: &str, to: &str) -> usize {
    strsim::osa_distance(&from.to_lowercase(), &to.to_lowercase())
}

#[cfg(test)]
mod tests {
    //! Distances by hand.
    use super::*;

    #[test]
    fn slips_are_found_and_other_names_are_not() {
        let known = ["v1", "v2", "stable", "canary"];
        let cases = [
            ("v3", Some("v1")),
            ("V2", Some("v2")),
            ("cannary", Some("canary")),
            ("satble", Some("stable")),
            ("2v", Some("v2")),
            ("stable-2", Some("stable")),
            ("production", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(similar(name, known), expected, "{name}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
    }
}
