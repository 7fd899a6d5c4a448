//! `cargo xtask setup`: what building for BPF and testing with namespaces need. Idempotent; says what it does.
use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{self, Environment};

mod wheels;

/// Links programs to bpfel objects. This version reads LLVM 22's bitcode without LLVM's development package.
const BPF_LINKER: &str = "0.10.4";
/// The newest LLVM whose bitcode `BPF_LINKER` is known to read.
const LLVM_MAX: u32 = 22;
/// A nightly with that LLVM, for machines that have none or a newer one.
const NIGHTLY: &str = "nightly-2026-05-20";
/// Checks licences and sources of dependencies; only `ci` needs it.
const CARGO_DENY: &str = "0.20.2";
/// Names the toolchain to `canary-user/build.rs`.
const TOOLCHAIN_VARIABLE: &str = "CANARY_BPF_TOOLCHAIN";
const DEBIAN: &str = "debian-web";
const BPFFS: &str = "/sys/fs/bpf";
/// A download that takes longer than this is treated as one that does not work.
const DOWNLOAD: Duration = Duration::from_mins(5);

/// Programs that tests call, or modules of the distribution's Python, and the Debian packages that hold them.
const PROGRAMS: [(&str, &str); 12] = [
    ("ip", "iproute2"),
    ("curl", "curl"),
    ("ethtool", "ethtool"),
    ("h2load", "nghttp2-client"),
    ("kubectl", "kubernetes-client"),
    ("nft", "nftables"),
    ("nghttpd", "nghttp2-server"),
    ("openssl", "openssl"),
    ("python:grpc", "python3-grpcio"),
    ("python:httpx", "python3-httpx"),
    ("python:h2", "python3-h2"),
    ("python:websockets", "python3-websockets"),
];

/// Sets everything up. The result is for every command that builds.
pub(crate) fn run() -> Result<Environment> {
    ensure!(
        cfg!(target_os = "linux"),
        "canary runs in the Linux kernel: this is {}; use a Linux machine or virtual machine (kernel 5.15 or newer)",
        std::env::consts::OS
    );
    let mut environment = Environment::default();
    let mut toolchain = String::new();
    step("toolchain with `core` for BPF", || {
        toolchain = bpf_toolchain()?;
        Ok(toolchain.clone())
    })?;
    environment.set(TOOLCHAIN_VARIABLE, &toolchain);
    environment.set("PATH", path_with_llvm(&toolchain)?);
    step("bpf-linker", || bpf_linker(&environment))?;
    packages("programs that tests call", &PROGRAMS)?;
    wheels::run(&mut environment)?;
    step("bpffs", bpffs)?;
    Ok(environment)
}

/// Makes sure that `cargo deny` is there.
pub(crate) fn cargo_deny(environment: &Environment) -> Result<()> {
    step("cargo-deny", || {
        if process::output(&mut environment.cargo(&["deny", "--version"])).is_some() {
            return Ok("there".to_owned());
        }
        process::run(&mut environment.cargo(&["install", "cargo-deny", "--version", CARGO_DENY, "--locked"]))?;
        Ok(format!("installed {CARGO_DENY}"))
    })
}

/// Where cargo puts what it builds.
pub(crate) fn target_directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| process::root().join("target"), PathBuf::from)
}

/// Builds the workspace's programs, `what` in words, with these further arguments of `cargo build`; returns the directory
/// that they are in.
pub(crate) fn build(environment: &Environment, what: &str, arguments: &[&str]) -> Result<PathBuf> {
    step(&format!("build {what}"), || {
        process::run(environment.cargo(&["build", "--quiet", "-p", "canary-tests"]).args(arguments))?;
        Ok("ready".to_owned())
    })?;
    let profile = if arguments.contains(&"--release") { "release" } else { "debug" };
    Ok(target_directory().join(profile))
}

/// Does one step of set-up and says what it came to and how long it took.
pub(crate) fn step(name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
    let started = Instant::now();
    let result = work().with_context(|| format!("set-up: {name}"))?;
    eprintln!("set-up: {name}: {result} ({:.1} s)", started.elapsed().as_secs_f32());
    Ok(())
}

/// Announces work that takes a while.
fn say(what: &str) {
    eprintln!("set-up: … {what}");
}

/// The name of a rustup toolchain that can compile `core` for BPF, in order of effort.
fn bpf_toolchain() -> Result<String> {
    if let Ok(chosen) = std::env::var(TOOLCHAIN_VARIABLE) {
        usable(&chosen).with_context(|| format!("{TOOLCHAIN_VARIABLE} names `{chosen}`"))?;
        return Ok(chosen);
    }
    ensure!(
        process::output(Command::new("rustup").arg("--version")).is_some(),
        "rustup is not there; it manages the second toolchain that BPF needs: install it from https://rustup.rs"
    );
    for name in ["nightly", NIGHTLY, DEBIAN] {
        if usable(name).is_ok() {
            return Ok(name.to_owned());
        }
    }
    let by_rustup = fetch_nightly();
    let Err(no_nightly) = by_rustup else { return by_rustup };
    say(&format!("no nightly with its sources ({no_nightly:#}); taking Debian's compiler instead"));
    link_debian().with_context(|| {
        format!(
            "neither rustup nor Debian gave a toolchain with the sources of `core`; rustup said: {no_nightly:#}; \
             remedy: `rustup toolchain install {NIGHTLY} --profile minimal --component rust-src`"
        )
    })
}

/// Whether `toolchain` has the sources of `core` and an LLVM that the linker reads.
fn usable(toolchain: &str) -> Result<()> {
    let rustc = |argument: &[&str]| {
        process::output(Command::new("rustup").args(["run", toolchain, "rustc"]).args(argument))
            .with_context(|| format!("toolchain `{toolchain}` is not installed"))
    };
    let version = rustc(&["-vV"])?;
    let llvm =
        llvm_major(&version).with_context(|| format!("toolchain `{toolchain}` does not say its LLVM version"))?;
    ensure!(llvm <= LLVM_MAX, "toolchain `{toolchain}` has LLVM {llvm}; bpf-linker {BPF_LINKER} reads {LLVM_MAX}");
    let core = Path::new(&rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    ensure!(core.exists(), "toolchain `{toolchain}` has no rust-src");
    Ok(())
}

fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

fn fetch_nightly() -> Result<String> {
    // A nightly that is there and only lacks the sources costs one small download.
    let nightly = process::output(Command::new("rustup").args(["run", "nightly", "rustc", "-vV"]));
    if nightly.as_deref().and_then(llvm_major).is_some_and(|llvm| llvm <= LLVM_MAX) {
        say("rustup adds rust-src to nightly");
        let mut add = Command::new("rustup");
        add.args(["component", "add", "rust-src", "--toolchain", "nightly"]);
        if process::run_within(&mut add, DOWNLOAD).is_ok() && usable("nightly").is_ok() {
            return Ok("nightly".to_owned());
        }
    }
    say(&format!("rustup installs {NIGHTLY}"));
    let mut install = Command::new("rustup");
    install.args(["toolchain", "install", NIGHTLY, "--profile", "minimal"]).args(["-c", "rust-src", "-c", "clippy"]);
    process::run_within(&mut install, DOWNLOAD)?;
    usable(NIGHTLY)?;
    Ok(NIGHTLY.to_owned())
}

fn link_debian() -> Result<String> {
    if !Path::new("/usr/lib/rustlib/src/rust/library/core/src/lib.rs").exists() {
        apt_install(&["rustc-web", "cargo-web", "rust-web-src"])?;
    }
    process::run_within(Command::new("rustup").args(["toolchain", "link", DEBIAN, "/usr"]), DOWNLOAD)?;
    usable(DEBIAN)?;
    Ok(DEBIAN.to_owned())
}

/// `PATH` with the toolchains' `bin` at its end: bpf-linker looks for LLVM's shared library in `<entry>/../lib`.
fn path_with_llvm(toolchain: &str) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut entries: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for name in [toolchain, "stable"] {
        if let Some(sysroot) =
            process::output(Command::new("rustup").args(["run", name, "rustc", "--print", "sysroot"]))
        {
            let bin = Path::new(&sysroot).join("bin");
            if !entries.contains(&bin) {
                entries.push(bin);
            }
        }
    }
    std::env::join_paths(entries).context("PATH with the toolchains' directories")
}

fn bpf_linker(environment: &Environment) -> Result<String> {
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let found = process::output(environment.command("bpf-linker").arg("--version"));
    if found.as_deref() == Some(&wanted) {
        return Ok(format!("{BPF_LINKER}, there"));
    }
    say(&format!("cargo installs {wanted} (about two minutes); found {}", found.as_deref().unwrap_or("none")));
    let stable = process::output(Command::new("rustup").args(["run", "stable", "rustc", "--version"])).is_some();
    let mut install = environment.command("cargo");
    if stable {
        install.arg("+stable");
    }
    install.args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"]);
    // `cargo run` names its toolchain to everything below it; the linker is built with the one asked for here.
    process::run(install.env_remove("RUSTUP_TOOLCHAIN"))?;
    Ok(format!("{BPF_LINKER}, installed"))
}

fn is_there(program: &str) -> bool {
    match program.strip_prefix("python:") {
        None => find(program).is_some(),
        Some(module) => {
            let mut import = Command::new("/usr/bin/python3");
            process::output(import.args(["-c", &format!("import {module}")])).is_some()
        }
    }
}

/// `program` on `PATH`, or where Debian keeps an administrator's programs.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(also).map(|entry| entry.join(program)).find(|file| file.is_file())
}

/// Brings programs that are not there; each with its Debian package.
pub(crate) fn packages(what: &str, programs: &[(&str, &str)]) -> Result<()> {
    step(what, || {
        let missing: Vec<&str> =
            programs.iter().filter(|(program, _)| !is_there(program)).map(|(_, package)| *package).collect();
        if missing.is_empty() {
            return Ok("there".to_owned());
        }
        apt_install(&missing)?;
        Ok(format!("installed {}", missing.join(", ")))
    })
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    ensure!(find("apt-get").is_some(), "missing: {list}, and there is no apt-get here: install them by your own means");
    ensure!(is_root(), "missing: {list}; as root: `apt-get update && apt-get install -y {list}`, then run this again");
    say(&format!("apt-get installs {list}"));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        process::run_within(&mut command, 2 * DOWNLOAD)
    };
    apt(&["update", "-qq"])?;
    apt(&[&["install", "-y", "-qq", "--no-install-recommends"], packages].concat())
}

fn bpffs() -> Result<String> {
    if is_mounted(&fs::read_to_string("/proc/mounts")?) {
        return Ok(format!("{BPFFS} is mounted"));
    }
    ensure!(
        is_root(),
        "{BPFFS} is not mounted; as root: `mount -t bpf bpffs {BPFFS}`, then run this again \
         (tests and demo need root too: they load programs and create network namespaces)"
    );
    match process::run_within(Command::new("mount").args(["-t", "bpf", "bpffs", BPFFS]), DOWNLOAD) {
        Ok(()) => Ok(format!("mounted {BPFFS}")),
        Err(error) => bail!("{error:#}; is CONFIG_BPF_SYSCALL on, and may this container mount?"),
    }
}

fn is_mounted(mounts: &str) -> bool {
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next() == Some(BPFFS) && fields.next() == Some("bpf")
    })
}

fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).as_deref() == Some("0")
}

#[cfg(test)]
mod tests {
    use super::{is_mounted, llvm_major};

    #[test]
    fn a_bpffs_counts_only_at_its_place() {
        let cases = [
            ("there", "sysfs /sys sysfs rw 0 0\nbpffs /sys/fs/bpf bpf rw,relatime 0 0\n", true),
            ("other type", "tmpfs /sys/fs/bpf tmpfs rw 0 0\n", false),
            ("other place", "bpffs /mnt/bpf bpf rw 0 0\n", false),
            ("nothing", "", false),
        ];
        for (name, mounts, expected) in cases {
            assert_eq!(is_mounted(mounts), expected, "{name}");
        }
    }

    #[test]
    fn the_compiler_says_its_llvm() {
        assert_eq!(llvm_major("rustc 1.97.0\nhost: x\nLLVM version: 22.1.4"), Some(22));
        assert_eq!(llvm_major("rustc 1.97.0\n"), None);
    }
}
