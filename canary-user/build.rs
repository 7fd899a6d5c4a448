//! Builds the kernel programs for `bpfel-unknown-none` and hands the object to the agent.
//!
//! The toolchain needs `core` for BPF: `CANARY_BPF_TOOLCHAIN` names it (`cargo xtask setup` finds one), nightly with
//! rust-src is the default. `CANARY_BPF_OBJECT` takes a ready object instead: for packagers.
use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error={error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo")?);
    let object = out.join("canary.bpf.o");
    for name in ["CANARY_BPF_TOOLCHAIN", "CANARY_BPF_OBJECT"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for watched in ["canary-ebpf/src", "canary-ebpf/Cargo.toml", "canary-common/src", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    if let Some(ready) = env::var_os("CANARY_BPF_OBJECT") {
        return copy(Path::new(&ready), &object);
    }
    let toolchain = env::var("CANARY_BPF_TOOLCHAIN").unwrap_or_else(|_| "nightly".into());
    let target = out.join("ebpf");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").map_err(|error| error.to_string())?;
    let flags = [
        &format!("--cfg=bpf_target_arch=\"{arch}\""),
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        "-Ctarget-cpu=v3",
        "-Ctarget-feature=+allows-misaligned-mem-access",
    ]
    .join("\x1f");
    let status = Command::new("rustup")
        .args(["run", &toolchain, "cargo", "build", "--release", "--package", "canary-ebpf", "--bins"])
        .args(["-Zbuild-std=core", "--target", "bpfel-unknown-none", "--target-dir"])
        .arg(&target)
        .current_dir(&root)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO")
        .env_remove("RUSTUP_TOOLCHAIN")
        .status()
        .map_err(|error| format!("cannot run rustup ({error}): `cargo xtask setup` prepares the toolchain"))?;
    if !status.success() {
        return Err(format!(
            "building canary-ebpf with toolchain `{toolchain}` failed: `cargo xtask setup` prepares one, \
             `export CANARY_BPF_TOOLCHAIN=…` chooses one"
        ));
    }
    copy(&target.join("bpfel-unknown-none/release/canary"), &object)
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    std::fs::copy(from, to).map(drop).map_err(|error| format!("copying {}: {error}", from.display()))
}
