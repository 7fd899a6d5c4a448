//! `cargo xtask tidy`: what the compiler does not check — arrows between modules, length and opening of files.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::process;

/// Look hard at a file that is longer.
const LINES_WARN: usize = 400;
/// No hand-written file is longer.
const LINES_MAX: usize = 600;

/// Only this module of the agent knows the kernel's interface.
const KERNEL_DOOR: &str = "canary-user/src/dataplane";
const KERNEL: [&str; 4] = ["aya::", "use aya", "aya_log", "aya_obj"];

/// Only this module knows the library that speaks to API servers.
const CLUSTER_DOOR: &str = "canary-user/src/source/cluster/";
const CLUSTER: [&str; 2] = ["kube::", "k8s_openapi"];

/// Modules that decide, and must not be able to act.
const PURE: [&str; 6] = [
    "canary-user/src/model",
    "canary-user/src/compile",
    "canary-user/src/state.rs",
    "canary-user/src/diagnostic.rs",
    "canary-user/src/analyze",
    "canary-user/src/source/edit",
];
const ACTS: [&str; 5] = ["tokio", "aya::", "kube::", "std::env", "::now()"];

/// The files where `unsafe` is at home. Everywhere else its need is a sign that the code is in the wrong place.
const UNSAFE_HOMES: [&str; 16] = [
    "canary-common/src/abi.rs",                   // types that are bytes
    "canary-common/src/packet.rs",                // reading them from a frame
    "canary-common/src/rewrite.rs",               // writing them to one
    "canary-ebpf/src/context.rs",                 // pointers into packets
    "canary-ebpf/src/call.rs",                    // the calls of processes
    "canary-ebpf/src/connections.rs",             // counters in maps, and the context of sock_ops
    "canary-ebpf/src/maps.rs",                    // references into maps
    "canary-ebpf/src/tables.rs",                  // the same, for the pipeline
    "canary-ebpf/src/main.rs",                    // what the kernel hands to a program
    "canary-user/src/dataplane/device.rs",        // ioctl
    "canary-user/src/dataplane/maps.rs",          // mmap and bpf(2)
    "canary-user/src/dataplane/survey.rs",        // bpf(2)
    "canary-user/src/proxy/sockets/inherited.rs", // descriptors that a number names
    "tests/src/netns.rs",                         // setns
    "tests/src/probe.rs",                         // socket options that no library has
    "tests/src/probe/wire.rs",                    // raw sockets
];
const UNSAFE: [&str; 5] = ["unsafe {", "unsafe fn", "unsafe impl", "unsafe trait", "unsafe extern"];

/// Left-overs. In pieces, so that this file passes its own check.
const LEFT_OVERS: [&str; 4] = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!("), concat!("X", "XX")];
/// Directories of one person's machine.
const MACHINES: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];

/// One source file.
struct Source {
    /// Path from the root of the repository.
    path: String,
    text: String,
}

/// What was found, in two degrees.
#[derive(Debug, Default, PartialEq, Eq)]
struct Findings {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Checks every file and prints what it finds; true when there is no error.
pub(crate) fn run() -> Result<bool> {
    let findings = check(&sources(&process::root())?);
    for warning in &findings.warnings {
        println!("tidy: warning: {warning}");
    }
    for error in &findings.errors {
        println!("tidy: error: {error}");
    }
    Ok(findings.errors.is_empty())
}

fn sources(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
            let path: PathBuf = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    directories.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                found.push(Source { path: path.strip_prefix(root)?.to_string_lossy().into_owned(), text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn check(sources: &[Source]) -> Findings {
    let mut findings = Findings::default();
    for source in sources {
        shape(source, &mut findings);
        content(source, &mut findings);
    }
    findings
}

fn shape(Source { path, text }: &Source, findings: &mut Findings) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        findings.errors.push(format!("{path} has {lines} lines; split it (at most {LINES_MAX})"));
    } else if lines > LINES_WARN {
        findings.warnings.push(format!("{path} has {lines} lines; look hard at more than {LINES_WARN}"));
    }
    let first = text.lines().find(|line| !line.starts_with("// SPDX-License-Identifier"));
    if !first.is_some_and(|line| line.starts_with("//! ")) {
        findings.errors.push(format!("{path}:1 does not open with a `//!` sentence that says what the file is for"));
    }
    if path.ends_with("/mod.rs") {
        findings.errors.push(format!("{path}: modules are `name.rs` with `name/part.rs` here"));
    }
}

fn content(Source { path, text }: &Source, findings: &mut Findings) {
    let under = |prefixes: &[&str]| prefixes.iter().any(|prefix| path.starts_with(prefix));
    for (number, line) in (1..).zip(text.lines()) {
        let mut find = |words: &[&str], within: &str, rule: &str| {
            if let Some(word) = words.iter().find(|word| within.contains(*word)) {
                findings.errors.push(format!("{path}:{number} `{word}`: {rule}"));
            }
        };
        find(&LEFT_OVERS, line, "finish it, or open an issue and say what holds today");
        find(&MACHINES, line, "a path of one person's machine");
        let code = line.split("//").next().unwrap_or_default();
        if path.starts_with("canary-user/src/") && !path.starts_with(KERNEL_DOOR) {
            find(&KERNEL, code, "only dataplane talks to the kernel");
        }
        if path.starts_with("canary-user/src/") && !path.starts_with(CLUSTER_DOOR) {
            find(&CLUSTER, code, "only source::cluster speaks to API servers");
        }
        if under(&PURE) {
            find(&ACTS, code, "this module decides and must not act");
        }
        if !under(&UNSAFE_HOMES) {
            // In pieces of source that are strings the words are harmless.
            find(&UNSAFE, code.split('"').next().unwrap_or_default(), "unsafe code has its own files");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, check, process, sources};

    fn errors(path: &str, text: &str) -> Vec<String> {
        check(&[Source { path: path.to_owned(), text: text.to_owned() }]).errors
    }

    #[test]
    fn this_repository_is_tidy() {
        let sources = sources(&process::root()).unwrap();
        assert!(sources.iter().any(|source| source.path == "xtask/src/tidy.rs"), "the walk finds this file");
        assert_eq!(check(&sources).errors, Vec::<String>::new());
    }

    #[test]
    fn each_rule_catches_its_case() {
        let left_over = format!("//! Opens.\n// {}: later\n", super::LEFT_OVERS[0]);
        let machine = format!("//! Opens.\nlet p = \"{}a\";\n", super::MACHINES[0]);
        let long = format!("//! Opens.\n{}", "fn f() {}\n".repeat(600));
        let cases = [
            ("no sentence", "xtask/src/a.rs", "fn f() {}\n", "does not open"),
            ("kernel outside its door", "canary-user/src/agent.rs", "//! Opens.\nuse aya::Ebpf;\n", "only dataplane"),
            (
                "kube outside its door",
                "canary-user/src/agent.rs",
                "//! Opens.\nuse kube::Client;\n",
                "only source::cluster",
            ),
            ("tokio in model", "canary-user/src/model/a.rs", "//! Opens.\nuse tokio::fs;\n", "must not act"),
            ("clock in compile", "canary-user/src/compile.rs", "//! Opens.\nInstant::now();\n", "must not act"),
            ("unsafe in cli", "canary-user/src/cli.rs", "//! Opens.\nunsafe { f() }\n", "its own files"),
            ("left-over", "xtask/src/a.rs", left_over.as_str(), "finish it"),
            ("machine", "xtask/src/a.rs", machine.as_str(), "one person's machine"),
            ("too long", "xtask/src/a.rs", long.as_str(), "split it"),
            ("mod.rs", "xtask/src/a/mod.rs", "//! Opens.\n", "modules are"),
        ];
        for (name, path, text, expected) in cases {
            let found = errors(path, text);
            assert!(found.len() == 1 && found[0].contains(expected), "{name}: {found:?}");
        }
    }

    #[test]
    fn what_is_allowed_is_not_reported() {
        let cases = [
            (
                "kernel behind its door",
                "canary-user/src/dataplane/maps.rs",
                "//! Opens.\nuse aya::Ebpf;\nunsafe { f() }\n",
            ),
            (
                "in a comment",
                "canary-user/src/model.rs",
                "//! Opens.\n// tokio and aya:: are elsewhere, unsafe { } too\n",
            ),
            ("licence first", "xtask/src/a.rs", "// SPDX-License-Identifier: Apache-2.0\n//! Opens.\n"),
        ];
        for (name, path, text) in cases {
            assert_eq!(errors(path, text), Vec::<String>::new(), "{name}");
        }
    }
}
