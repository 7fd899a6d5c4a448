//! What `-f` names: files, directories as the agent reads them, standard input.
use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    api::dto::FileV1,
    cli::Failure,
    diagnostic::chain,
    source::{
        self, Snapshot,
        directory::{DEPTH_MAX, Directory, SourceError},
    },
};

/// How findings name standard input.
const STDIN: &str = "<stdin>";

/// Texts of all files.
pub(super) fn texts(paths: &[PathBuf]) -> Result<Vec<FileV1>, Failure> {
    let mut texts = Vec::new();
    for path in paths {
        if is_stdin(path) {
            texts.push(FileV1 { name: STDIN.into(), text: stdin()? });
            continue;
        }
        let (_, files) = open(path)?;
        for file in files {
            let text = fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
            texts.push(FileV1 { name: file.display().to_string(), text });
        }
    }
    Ok(texts)
}

/// The objects of all files, as one Snapshot.
pub(super) fn snapshot(paths: &[PathBuf]) -> Result<Snapshot, Failure> {
    let mut parts = Vec::new();
    for path in paths {
        parts.push(if is_stdin(path) {
            source::parse(&stdin()?, Path::new(STDIN))
        } else {
            open(path)?.0.read().map_err(|error| unusable(&error))?
        });
    }
    let whole = Snapshot::merge(parts);
    if whole.objects.is_empty() && whole.diagnostics.is_empty() {
        let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let remedy = "an object is a YAML document with apiVersion, kind and metadata.name";
        return Err(Failure::new(format!("there is no object in {}", names.join(", ")), remedy));
    }
    Ok(whole)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    io::stdin().read_to_string(&mut text).map_err(|error| unreadable(Path::new(STDIN), &error))?;
    Ok(text)
}

/// A directory with its files, or one file. What the agent would read is what is read here.
fn open(path: &Path) -> Result<(Directory, Vec<PathBuf>), Failure> {
    let directory = Directory::open(path).map_err(|error| unusable(&error))?;
    let files = directory.files().map_err(|error| unusable(&error))?;
    if files.is_empty() {
        let message = format!("there is no *.yaml, *.yml or *.json in {}", path.display());
        let remedy =
            format!("subdirectories were looked at too, {DEPTH_MAX} deep, hidden files were not: name the files");
        return Err(Failure::new(message, remedy));
    }
    Ok((directory, files))
}

fn unusable(error: &SourceError) -> Failure {
    Failure::new(chain(error), "give -f a file or directory that exists")
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot read {}: {error}", path.display()), "")
}
