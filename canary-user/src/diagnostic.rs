//! What is wrong with an object, where it stands and what to do about it.
use std::{error::Error, fmt, path::PathBuf};

use serde::Serialize;

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Works, but probably not as the author meant.
    Warning,
    /// The object, or a part of it, is not in force.
    Error,
}

/// A place in a source: a file and a line (1-based; 0 when unknown).
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Origin {
    /// File as the user named it; `-` for standard input.
    pub file: PathBuf,
    /// Line, 1-based; 0 when unknown.
    pub line: u32,
}

/// One finding about one object: who, which field, where, what and what to do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Istio's analyzer code where there is one (`IST0101`), else one of ours (`CAN0101`).
    pub code: &'static str,
    /// `Kind namespace/name`, as `istioctl analyze` prints it.
    pub object: String,
    /// Path of the field, such as `spec.http[0].route[1].weight`; empty for the whole object.
    pub field: String,
    /// Where the field (or the object) stands.
    pub origin: Origin,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it; empty when the message says it all.
    pub remedy: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            // What is in a cluster has no lines.
            0 => write!(f, "{}", self.file.display()),
            line => write!(f, "{}:{line}", self.file.display()),
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity} [{}] {} ({})", self.code, self.object, self.origin)?;
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)?;
        if !self.remedy.is_empty() {
            write!(f, " — {}", self.remedy)?;
        }
        Ok(())
    }
}

/// An error and its causes in one line.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Transparent wrappers are their cause, and some errors tell theirs in their own text.
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    //! The references know every code.
    use std::{collections::BTreeSet, fs, path::Path};

    /// Codes in the sources, tests left out.
    fn codes(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests") {
                codes(&path, found);
            } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("tests.rs") {
                let text = fs::read_to_string(&path).unwrap();
                let quoted = text.split("\"CAN").skip(1).filter_map(|rest| rest.split_once('"'));
                found.extend(quoted.filter(|(digits, _)| digits.len() == 4).map(|(digits, _)| format!("CAN{digits}")));
            }
        }
    }

    #[test]
    fn every_code_is_in_a_reference() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = BTreeSet::new();
        codes(&root.join("src"), &mut found);
        assert!(found.len() > 20, "{found:?}");
        let read = |name: &str| fs::read_to_string(root.join("../docs").join(name)).unwrap();
        let text = read("reference-analyze.md") + &read("reference-resources.md");
        let missing: Vec<_> = found.iter().filter(|code| !text.contains(code.as_str())).collect();
        assert!(missing.is_empty(), "{missing:?} are in no reference");
    }
}
