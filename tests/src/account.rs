//! The account of a pod, as the kubelet mounts it: where a program in a cluster looks for its API server.
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::{
    apiserver::{ApiServer, TOKEN},
    netns::Namespace,
};

/// Mounts what `$0` holds where accounts are, for the rest alone.
const MOUNT: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/secrets/kubernetes.io/serviceaccount
mount --bind "$0" /run/secrets/kubernetes.io/serviceaccount
exec "$@"
"#;

/// An account for one API server.
#[derive(Debug)]
pub(crate) struct Account {
    directory: PathBuf,
    server: SocketAddr,
}

impl Account {
    /// Writes it into a new directory in `parent`.
    pub(crate) fn new(parent: &Path, server: &ApiServer) -> Result<Self> {
        let directory = parent.join("serviceaccount");
        fs::create_dir_all(&directory)?;
        for (name, text) in [("token", TOKEN), ("namespace", "canary-system"), ("ca.crt", server.certificate())] {
            fs::write(directory.join(name), text)?;
        }
        Ok(Self { directory, server: server.address() })
    }

    /// A program that will have it, in the namespace.
    pub(crate) fn command(&self, namespace: &Namespace, program: &Path) -> Result<Command> {
        let mut command = namespace.command("unshare")?;
        command.args(["--mount", "sh", "-c", MOUNT]).arg(&self.directory).arg(program);
        command.env("KUBERNETES_SERVICE_HOST", self.server.ip().to_string());
        command.env("KUBERNETES_SERVICE_PORT", self.server.port().to_string());
        Ok(command)
    }
}
