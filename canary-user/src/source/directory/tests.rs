//! Reading and watching real directories.
use std::{os::unix::fs::symlink, time::Duration};

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n")
}

fn write(root: &TempDir, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = root.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

fn names(directory: &Directory) -> Vec<String> {
    directory.read().unwrap().objects.into_iter().map(|object| object.name.clone()).collect()
}

#[test]
fn files_are_read_in_order_and_others_are_not() {
    let root = TempDir::new().unwrap();
    for (path, name) in [
        ("b.yml", "b"),
        ("a.yaml", "a"),
        ("sub/c.json", "c"),
        ("1/2/3/4/deep.yaml", "deep"),
        ("1/2/3/4/5/too-deep.yaml", "x"),
        (".hidden.yaml", "x"),
        (".git/x.yaml", "x"),
        ("a.yaml~", "x"),
        ("#a.yaml", "x"),
        (".#a.yaml", "x"),
        ("a.yaml.swp", "x"),
        ("readme.md", "x"),
    ] {
        write(&root, path, pod(name));
    }
    rustix::fs::mknodat(rustix::fs::CWD, root.path().join("pipe.yaml"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .unwrap();
    let directory = Directory::open(root.path()).unwrap();
    let found = directory.read().unwrap();
    assert_eq!(found.diagnostics, []);
    assert_eq!(names(&directory), ["deep", "a", "b", "c"]);
    assert_eq!(names(&Directory::open(root.path().join("b.yml")).unwrap()), ["b"]);
}

#[test]
fn a_mounted_config_map_is_read() {
    let root = TempDir::new().unwrap();
    write(&root, "..2026_01/a.yaml", pod("a"));
    symlink("..2026_01", root.path().join("..data")).unwrap();
    symlink("..data/a.yaml", root.path().join("a.yaml")).unwrap();
    assert_eq!(names(&Directory::open(root.path()).unwrap()), ["a"]);
}

#[test]
fn bad_files_are_said_and_good_ones_stay() {
    let root = TempDir::new().unwrap();
    write(&root, "a.yaml", pod("a"));
    write(&root, "b.yaml", b"a: 1\nb: \xff\n");
    write(&root, "c.yaml", vec![b' '; (8 << 20) + 1]);
    write(&root, "d.yaml", "a: [");
    write(&root, "e.yaml", pod("a"));
    symlink("nowhere", root.path().join("f.yaml")).unwrap();
    let found = Directory::open(root.path()).unwrap().read().unwrap();
    assert_eq!(found.objects.len(), 1);
    let said: Vec<String> = found
        .diagnostics
        .iter()
        .map(|diagnostic| {
            let origin = &diagnostic.origin;
            format!("{}:{} {}", origin.file.strip_prefix(root.path()).unwrap().display(), origin.line, diagnostic.code)
        })
        .collect();
    assert_eq!(
        said,
        ["b.yaml:2 CAN0101", "c.yaml:0 CAN0104", "d.yaml:1 CAN0101", "e.yaml:3 CAN0103", "f.yaml:0 CAN0104"]
    );
    assert!(found.diagnostics[3].message.contains("a.yaml:1"), "{}", found.diagnostics[3]);
}

#[test]
fn nothing_there_is_an_error_that_names_the_path() {
    let error = Directory::open("/nonexistent/canary").unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nonexistent/canary: "), "{error}");
}

/// A change must be told within this; the poll, at 30 s, must not be what tells it.
const SOON: Duration = Duration::from_secs(10);
/// What must not be told has had its chance after this.
const A_WHILE: Duration = Duration::from_millis(400);

type Change<'a> = (&'a str, Box<dyn Fn()>);

#[tokio::test]
async fn every_way_to_change_a_file_is_told() {
    let root = TempDir::new().unwrap();
    let outside = TempDir::new().unwrap();
    let target = write(&outside, "target", pod("linked"));
    let file = write(&root, "conf/a.yaml", pod("a"));
    let conf = root.path().join("conf");
    symlink(&target, conf.join("link.yaml")).unwrap();
    fs::create_dir(conf.join("..1")).unwrap();
    symlink("..1", conf.join("..data")).unwrap();
    let directory = Directory::open(&conf).unwrap();
    let mut watch = directory.watch().unwrap();
    let changes: Vec<Change<'_>> = vec![
        ("edited in place", {
            let file = file.clone();
            Box::new(move || fs::write(&file, pod("b")).unwrap())
        }),
        ("replaced", {
            let file = file.clone();
            Box::new(move || crate::source::write::replace(&file, &pod("c")).unwrap())
        }),
        ("new", {
            let conf = conf.clone();
            Box::new(move || fs::write(conf.join("new.yaml"), pod("new")).unwrap())
        }),
        ("removed", {
            let conf = conf.clone();
            Box::new(move || fs::remove_file(conf.join("new.yaml")).unwrap())
        }),
        ("in a new directory", {
            let conf = conf.clone();
            Box::new(move || {
                fs::create_dir(conf.join("sub")).unwrap();
                fs::write(conf.join("sub/s.yaml"), pod("s")).unwrap();
            })
        }),
        ("edited in that directory", {
            let conf = conf.clone();
            Box::new(move || fs::write(conf.join("sub/s.yaml"), pod("t")).unwrap())
        }),
        ("behind a link", { Box::new(move || fs::write(&target, pod("other")).unwrap()) }),
        ("config map exchanged", {
            let conf = conf.clone();
            Box::new(move || {
                symlink("..2", conf.join("..data_tmp")).unwrap();
                fs::rename(conf.join("..data_tmp"), conf.join("..data")).unwrap();
            })
        }),
        ("directory removed", {
            let conf = conf.clone();
            Box::new(move || fs::remove_dir_all(&conf).unwrap())
        }),
        ("directory made again", {
            let conf = conf.clone();
            Box::new(move || {
                fs::create_dir(&conf).unwrap();
                fs::write(conf.join("a.yaml"), pod("again")).unwrap();
            })
        }),
        ("edited after that", {
            let file = file.clone();
            Box::new(move || fs::write(&file, pod("once more")).unwrap())
        }),
    ];
    for (name, change) in changes {
        change();
        timeout(SOON, watch.changed()).await.unwrap_or_else(|_| panic!("{name} was not told")).unwrap();
        assert!(timeout(A_WHILE, watch.changed()).await.is_err(), "{name} was told twice");
    }
    assert_eq!(names(&directory), ["once more"]);
}

#[tokio::test]
async fn a_burst_is_told_once_and_other_files_not_at_all() {
    let root = TempDir::new().unwrap();
    let conf = root.path().join("conf");
    fs::create_dir(&conf).unwrap();
    let directory = Directory::open(&conf).unwrap();
    let mut watch = directory.watch().unwrap();
    fs::write(conf.join(".a.yaml.swp"), "x").unwrap();
    fs::write(root.path().join("beside.yaml"), "x").unwrap();
    assert!(timeout(A_WHILE, watch.changed()).await.is_err());
    for n in 0..200 {
        fs::write(conf.join(format!("{n}.yaml")), pod(&format!("p{n}"))).unwrap();
    }
    timeout(SOON, watch.changed()).await.unwrap().unwrap();
    assert_eq!(names(&directory).len(), 200);
    assert!(timeout(A_WHILE, watch.changed()).await.is_err());
}

/// `select!` drops the future when something else is ready first.
#[tokio::test]
async fn a_cancelled_wait_loses_nothing() {
    let root = TempDir::new().unwrap();
    let file = write(&root, "a.yaml", pod("a"));
    let mut watch = Directory::open(&file).unwrap().watch().unwrap();
    fs::write(&file, pod("b")).unwrap();
    assert!(timeout(Duration::from_millis(20), watch.changed()).await.is_err(), "the burst has not ended");
    timeout(SOON, watch.changed()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_single_file_is_watched_by_name() {
    let root = TempDir::new().unwrap();
    let file = write(&root, "a.yaml", pod("a"));
    let mut watch = Directory::open(&file).unwrap().watch().unwrap();
    write(&root, "b.yaml", pod("b"));
    assert!(timeout(A_WHILE, watch.changed()).await.is_err());
    fs::remove_file(&file).unwrap();
    timeout(SOON, watch.changed()).await.unwrap().unwrap();
    write(&root, "a.yaml", pod("c"));
    timeout(SOON, watch.changed()).await.unwrap().unwrap();
}
