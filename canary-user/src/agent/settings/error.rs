//! Settings that cannot be used.
use std::{io, net::SocketAddr, path::PathBuf};

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// No `--config`, no `--kube`.
    #[error(
        "no services: give --config DIR or --kube, or `config = \"DIR\"` or `kube = true` in the file of --config-file"
    )]
    NoConfig,
    /// No `--attach`.
    #[error(
        "nothing to attach to: give --attach xdp:IFACE or --attach tc:IFACE, or `attach = [\"tc:IFACE\"]` in the file of --config-file"
    )]
    NoAttach,
    /// No hook from which packets can be put elsewhere.
    #[error("--direct is for interfaces with hook tc, and there is none: give --attach tc:IFACE, or leave it out")]
    NothingDirect,
    /// No cgroup whose sockets could be counted.
    #[error("--connection-metrics is for sockets, and there are none: give --attach cgroup:PATH, or leave it out")]
    NoSockets,
    /// Nobody can be sent there.
    #[error(
        "--proxy {address}: packets cannot be sent on to it; give an address of an interface, and a port, such as 192.0.2.1:15001"
    )]
    Proxy {
        /// The address.
        address: SocketAddr,
    },
    /// There is no API server to write to.
    #[error("--kube-status without --kube: there is no API server to write to")]
    StatusOfNothing,
    /// There is no API server to ask.
    #[error("--kube-node without --kube: there is no API server to ask about it; a directory has the Node itself")]
    NodeOfNothing,
    /// Nothing is logged.
    #[error("--access-log-sample without --access-log FILE: there is no access log to take a share of")]
    SampleOfNothing,
    /// The same interface twice.
    #[error("--attach names interface `{interface}` twice: an interface has one hook, xdp or tc")]
    AttachTwice {
        /// The interface.
        interface: String,
    },
    /// A capacity of zero.
    #[error("{name} is 0: canary needs at least one")]
    Zero {
        /// Name of the setting.
        name: &'static str,
    },
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("configuration file {path} is not valid")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: toml::de::Error,
    },
}
