//! What the documents say is so: their YAML compiles, their links lead somewhere, every reason is explained.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use canary_common::{limits, verdict::Leave};
use canary_user::{
    compile::{ProxyAddresses, compile},
    diagnostic::{Diagnostic, Severity},
    model::Model,
    source::{self, Snapshot},
    state::State,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README, changelog and everything under `docs` with this extension: path from the root, and text.
fn documents(extension: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut open = vec![root().join("docs")];
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() { open.push(path) } else { files.push(path) }
        }
    }
    for path in files.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)) {
        let name = path.strip_prefix(root())?.to_string_lossy().into_owned();
        found.push((name, fs::read_to_string(&path)?));
    }
    found.sort();
    Ok(found)
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| path.to_owned())
}

/// Fenced blocks of a language: first line of the block, and its text.
fn blocks(text: &str, language: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    let mut wanted = false;
    for (number, line) in (1..).zip(text.lines()) {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            inside = !inside;
            wanted = inside && info.trim() == language;
            if wanted {
                found.push((number + 1, String::new()));
            }
        } else if wanted && let Some((_, block)) = found.last_mut() {
            block.push_str(line);
            block.push('\n');
        }
    }
    found
}

/// Text outside fenced blocks, by line: shell has brackets too.
fn prose(text: &str) -> Vec<(usize, &str)> {
    let mut inside = false;
    let outside = |(_, line): &(usize, &str)| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    };
    (1..).zip(text.lines()).filter(outside).collect()
}

/// Targets of `[text](target)` on a line.
fn links(line: &str) -> Vec<&str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
}

/// The anchor that a heading has.
fn anchor(heading: &str) -> String {
    let kept = |letter: char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    heading.trim().to_lowercase().chars().filter(|&letter| kept(letter)).collect::<String>().replace(' ', "-")
}

fn errors(snapshot: &Snapshot) -> Vec<String> {
    let (model, found) = Model::read(snapshot);
    let compiled = compile(&model, &State::default(), &ProxyAddresses::default());
    let all = snapshot.diagnostics.iter().chain(&found).chain(&compiled.diagnostics);
    all.filter(|found| found.severity == Severity::Error).map(show).collect()
}

fn show(found: &Diagnostic) -> String {
    format!("{} {}:{} {}", found.code, found.origin.file.display(), found.origin.line, found.message)
}

fn parse(name: &str, text: &str) -> Snapshot {
    source::parse(text, Path::new(name))
}

/// What an example needs to be complete: the helloworld that all of them are about, without the files that it replaces.
fn with_helloworld(snapshot: Snapshot) -> Result<Snapshot> {
    let mine: Vec<String> = snapshot.objects.iter().map(|object| object.id()).collect();
    let mut base = Snapshot::merge(
        documents("yaml")?
            .iter()
            .filter(|(name, _)| name.starts_with("docs/examples/helloworld/"))
            .map(|(name, text)| parse(name, text)),
    );
    base.objects.retain(|object| !mine.contains(&object.id()));
    Ok(Snapshot::merge([base, snapshot]))
}

#[test]
fn every_example_compiles() -> Result<()> {
    let examples = documents("yaml")?;
    assert!(examples.len() >= 8, "the walk finds the examples: {}", examples.len());
    for (name, text) in examples.iter().filter(|(name, _)| !name.starts_with("docs/examples/broken/")) {
        let snapshot = parse(name, text);
        assert!(!snapshot.objects.is_empty(), "{name} holds objects");
        assert_eq!(errors(&with_helloworld(snapshot)?), Vec::<String>::new(), "{name}");
    }
    Ok(())
}

#[test]
fn the_helloworld_of_the_blog_is_split_90_to_10() -> Result<()> {
    let (model, _) = Model::read(&with_helloworld(Snapshot::default())?);
    let compiled = compile(&model, &State::default(), &ProxyAddresses::default());
    let service = compiled.state.services.values().next().unwrap();
    assert_eq!(compiled.state.services.len(), 1);
    assert_eq!(format!("{:?}", service.rules[0].split.weights), r#"[("v1", 90), ("v2", 10)]"#);
    Ok(())
}

#[test]
fn broken_examples_get_their_diagnosis() -> Result<()> {
    let broken: Vec<_> = documents("yaml")?.into_iter().filter(|(name, _)| name.contains("/broken/")).collect();
    assert_eq!(broken.len(), 1, "say here what a new one is about");
    let (name, text) = &broken[0];
    let found = errors(&parse(name, text)).join("\n");
    for expected in ["CAN0102 docs/examples/broken/service.yaml:4", "`name` (line 5)", "CAN0101", "yaml:11"] {
        assert!(found.contains(expected), "{expected} in {found}");
    }
    Ok(())
}

#[test]
fn every_yaml_in_the_text_compiles() -> Result<()> {
    let examples = documents("yaml")?;
    let mut count = 0;
    for (name, text) in documents("md")? {
        for (line, block) in blocks(&text, "yaml") {
            count += 1;
            let good = |(file, text): &(String, String)| text.contains(&block) && !file.contains("/broken/");
            if examples.iter().any(good) {
                continue; // A part of a file that compiles as a whole: `every_example_compiles`.
            }
            let snapshot = parse(&name, &block);
            assert!(!snapshot.objects.is_empty(), "{name}:{line} is not an object; write `text` if it is not YAML");
            assert_eq!(errors(&with_helloworld(snapshot)?), Vec::<String>::new(), "{name}:{line}");
        }
    }
    assert!(count >= 2, "the walk finds the blocks: {count}");
    Ok(())
}

#[test]
fn every_link_leads_somewhere() -> Result<()> {
    let mut count = 0;
    for (name, text) in documents("md")? {
        let here = root().join(&name);
        for (line, target) in
            prose(&text).into_iter().flat_map(|(line, text)| links(text).into_iter().map(move |it| (line, it)))
        {
            if target.contains("://") {
                continue;
            }
            count += 1;
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { here.clone() } else { here.parent().unwrap().join(file) };
            assert!(path.exists(), "{name}:{line} links to {target}, which is not there");
            if !fragment.is_empty() {
                let text = fs::read_to_string(&path).unwrap();
                let mut headings =
                    text.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#')));
                assert!(
                    headings.any(|heading| heading == fragment),
                    "{name}:{line} links to {target}: no such heading"
                );
            }
        }
    }
    assert!(count >= 20, "the walk finds the links: {count}");
    Ok(())
}

#[test]
fn operations_explain_every_reason() -> Result<()> {
    let text = read("docs/operations.md")?;
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `")).collect();
    for leave in Leave::ALL {
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{}` |", leave.label())));
        let row = row.unwrap_or_else(|| panic!("docs/operations.md has no row for `{}`", leave.label()));
        let verdict = format!("{:?}", leave.verdict()).to_lowercase();
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "reason, verdict, meaning, remedy: {row}");
        assert_eq!(cells[2], verdict, "{row}");
        assert!(cells[3].len() > 20 && cells[4].len() > 20, "say what it means and what to do: {row}");
    }
    Ok(())
}

#[test]
fn the_limits_are_those_of_the_code() -> Result<()> {
    let text = read("docs/reference-limits.md")?;
    let rows = [
        ("services", limits::SERVICES),
        ("virtual addresses", limits::FRONTENDS),
        ("splits", limits::SPLITS),
        ("versions", limits::VERSIONS),
        ("endpoints", limits::ENDPOINTS),
        ("versions in one split", limits::VERSIONS_PER_SPLIT),
        ("rules of one service", limits::RULES_PER_SERVICE),
        ("endpoints of one version", limits::ENDPOINTS_PER_VERSION),
        ("slots of the largest ring", limits::RING_MAX),
        ("fragmented datagrams", limits::FRAGMENTS),
    ];
    for (what, limit) in rows {
        let row = format!("| {what} | {} |", spaced(limit));
        assert!(text.contains(&row), "docs/reference-limits.md lacks `{row}`");
    }
    Ok(())
}

/// 262144 → `262 144`.
fn spaced(number: u32) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or_default()).collect();
    groups.join(" ")
}

#[test]
fn the_two_commands_stand_in_the_readme() -> Result<()> {
    let shell: Vec<String> = blocks(&read("README.md")?, "sh").into_iter().map(|(_, block)| block).collect();
    for command in ["cargo xtask demo\n", "cargo xtask test\n"] {
        assert!(shell.iter().any(|block| block == command), "a fenced block with `{}` alone", command.trim());
    }
    Ok(())
}

#[test]
fn blocks_links_and_anchors_are_found() {
    let text = "a [b](c.md#d)\n```yaml\nkind: [x](y)\n```\n```text\nno\n```\n[e](f)";
    assert_eq!(blocks(text, "yaml"), [(3, "kind: [x](y)\n".to_owned())]);
    let found: Vec<&str> = prose(text).into_iter().flat_map(|(_, line)| links(line)).collect();
    assert_eq!(found, ["c.md#d", "f"]);
    assert_eq!(anchor(" What is `exact`, and why?"), "what-is-exact-and-why");
    assert_eq!(spaced(4_194_304), "4 194 304");
}
