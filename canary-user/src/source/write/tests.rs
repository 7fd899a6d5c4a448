//! What stays of a replaced file, and what a failure leaves.
use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;

#[test]
fn the_mode_and_the_link_stay() {
    let root = TempDir::new().unwrap();
    let (file, link) = (root.path().join("real.yaml"), root.path().join("link.yaml"));
    fs::write(&file, "old").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("real.yaml", &link).unwrap();
    replace(&link, "new").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "new");
    assert!(link.is_symlink());
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "no temporary file stays");
}

#[test]
fn a_new_file_is_made() {
    let root = TempDir::new().unwrap();
    let file = root.path().join("new.yaml");
    replace(&file, "text").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, NEW_FILE_MODE);
}

#[test]
fn a_failure_leaves_the_file_and_names_it() {
    let root = TempDir::new().unwrap();
    let taken = root.path().join("taken");
    fs::create_dir(&taken).unwrap();
    let error = replace(&taken, "text").unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot replace {}: ", taken.display())), "{error}");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "no temporary file stays");
    let nowhere = root.path().join("no/file.yaml");
    let error = replace(&nowhere, "text").unwrap_err().to_string();
    assert!(error.starts_with("cannot create a file in "), "{error}");
    let looped = root.path().join("loop");
    symlink("loop", &looped).unwrap();
    assert!(replace(&looped, "text").unwrap_err().to_string().contains("too many links"));
}
