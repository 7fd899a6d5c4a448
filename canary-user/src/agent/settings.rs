//! What the agent is told: flags and a TOML file with the same names, flags first.
use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    dataplane::{self, Attach, Capacity, Hook, IdleTimeouts},
    proxy::{
        self,
        access_log::{self, Sample},
    },
    source::cluster::Access,
    telemetry::log,
};

mod attach;
mod error;
mod logs;

use attach::attach_list;
pub use attach::parse_attach;
pub use error::SettingsError;
pub use logs::LogFormat;
use logs::{access_log, log_filter, parse_sample, sample};

/// Where pins are unless the user says otherwise.
pub const PIN: &str = "/sys/fs/bpf/canary";
/// Where the agent remembers what was in force.
pub const STATE: &str = "/var/lib/canary";
/// Where the agent listens, and where the command line looks for it.
pub const SOCKET: &str = "/run/canary/agent.sock";

/// One setting each, as a flag and as a key of the configuration file; unset ones take their defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct Options {
    /// Directory with services, endpoints and routes: its *.yaml, *.yml and *.json, also in subdirectories.
    #[arg(long, value_name = "DIR")]
    pub config: Option<PathBuf>,
    /// Follow the API server of a Kubernetes cluster: its services, endpoints and routes. Services without routes of their own are left to kube-proxy.
    #[arg(long)]
    pub kube: bool,
    /// Where the API server is, in the file that kubectl reads; implies --kube [default: $KUBECONFIG, ~/.kube/config, or the account of the pod].
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in that file; implies --kube [default: the current one].
    #[arg(long, value_name = "NAME")]
    pub kube_context: Option<String>,
    /// Name of the Node that this agent is on: what node ports, `Local` traffic policies and topology hints are about [default: these are not followed].
    #[arg(long, value_name = "NAME")]
    pub kube_node: Option<String>,
    /// Write conditions into the status of routes and Gateways, and Events about errors; of all agents one does, which a Lease in this namespace
    /// decides [default: nothing is written].
    #[arg(long, value_name = "NAMESPACE")]
    pub kube_status: Option<String>,
    /// Attach to an interface, such as `xdp:eth0` or `tc:eth0` (`clsact:eth0` for filters as before Linux 6.6; `tc:lxc*` for all of such a name, as they come and go), or to the sockets of a cgroup,
    /// such as `cgroup:/sys/fs/cgroup`, whose processes are connected to endpoints when they connect; may be repeated.
    #[arg(long, value_name = "HOOK:IFACE", value_parser = parse_attach)]
    #[serde(deserialize_with = "attach_list")]
    pub attach: Vec<Attach>,
    /// Directory on a bpffs for pins [default: /sys/fs/bpf/canary].
    #[arg(long, value_name = "DIR")]
    pub pin: Option<PathBuf>,
    /// Directory for what must survive a restart: last good state, history [default: /var/lib/canary].
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Socket of the agent; a flag of the whole command line, a key here.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
    /// Group that may use the socket besides root [default: the agent's own group].
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    /// Serve Prometheus metrics at this address, such as 127.0.0.1:9464 [default: off].
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Put clients' packets straight into the network namespaces of endpoints that are behind a veth of this host, past its routing, packet
    /// filters and egress programs; for interfaces with hook tc [default: the host routes them].
    #[arg(long)]
    pub direct: bool,
    /// Listen here for connections whose rules need the request (paths, headers, cookies) or the server name (SNI), such as
    /// 192.0.2.1:15001: an address of this host by which clients' answers can leave; may be repeated, for each address family [default: off].
    #[arg(long, value_name = "ADDR:PORT")]
    pub proxy: Vec<SocketAddr>,
    /// Count what becomes of the TCP connections that the sockets of a cgroup make: how many fail, how long they take to be established, round-trip
    /// times, retransmits, bytes; every TCP socket of the cgroup pays for it [default: only how many there are].
    #[arg(long)]
    pub connection_metrics: bool,
    /// Connections of clients to the proxy at a time; the next ones wait [default: three in eight of the open files that the agent may have].
    #[arg(long, value_name = "N")]
    pub proxy_connections: Option<u32>,
    /// Requests of one connection to the proxy, a second; those that come faster wait [default: 10000].
    #[arg(long, value_name = "N")]
    pub proxy_request_rate: Option<u32>,
    /// Time without progress after which a body through the proxy is broken off, of a request (408) or an answer (reset) [default: 300].
    #[arg(long, value_name = "SECONDS")]
    pub proxy_body_seconds: Option<u32>,
    /// Time that open requests of the proxy have when the agent stops or another one takes over [default: 30].
    #[arg(long, value_name = "SECONDS")]
    pub proxy_drain_seconds: Option<u32>,
    /// Take the place of the agent that runs on the same socket, and its listening sockets; without one it starts as ever.
    #[arg(long)]
    pub take_over: bool,
    /// Write a line of JSON to this file for each request that the proxy has answered, with the names of Istio's access log; `-` is the standard
    /// output. SIGHUP opens the file again [default: off].
    #[arg(long, value_name = "FILE|-")]
    pub access_log: Option<PathBuf>,
    /// Share of the requests in the access log, such as 0.01 [default: 1].
    #[arg(long, value_name = "RATIO", value_parser = parse_sample)]
    #[serde(deserialize_with = "sample")]
    pub access_log_sample: Option<Sample>,
    /// What to log: error, warn, info, debug, trace, or a filter such as `info,canary_user::agent=debug` [default: info].
    #[arg(long, value_name = "LEVEL", value_parser = log::checked)]
    #[serde(deserialize_with = "log_filter")]
    pub log: Option<String>,
    /// How to log [default: text].
    #[arg(long, value_name = "FORMAT", value_enum)]
    pub log_format: Option<LogFormat>,
    /// Capacity for established flows [default: 1048576].
    #[arg(long, value_name = "N")]
    pub flows: Option<u32>,
    /// Capacity for half-open and closing flows [default: 131072].
    #[arg(long, value_name = "N")]
    pub transient_flows: Option<u32>,
    /// Idle time after which an established TCP flow counts as ended [default: 7440].
    #[arg(long, value_name = "SECONDS")]
    pub tcp_idle_seconds: Option<u32>,
    /// Idle time after which a UDP flow counts as ended [default: 60].
    #[arg(long, value_name = "SECONDS")]
    pub udp_idle_seconds: Option<u32>,
    /// Idle time after which a half-open or closing flow counts as ended [default: 75].
    #[arg(long, value_name = "SECONDS")]
    pub transient_idle_seconds: Option<u32>,
}

/// Complete settings of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Directory of objects.
    pub config: Option<PathBuf>,
    /// How to reach the API server whose objects count, too.
    pub cluster: Option<Access>,
    /// Namespace of the Lease for statuses and Events; `None`: none are written.
    pub cluster_status: Option<String>,
    /// Interfaces, at least one.
    pub attach: Vec<Attach>,
    /// The kernel's side.
    pub dataplane: dataplane::Settings,
    /// Directory for what survives a restart.
    pub state: PathBuf,
    /// Socket of the API.
    pub socket: PathBuf,
    /// Group of the socket; `None` leaves the agent's own.
    pub socket_group: Option<String>,
    /// Address of the metrics listener; `None` is off.
    pub metrics: Option<SocketAddr>,
    /// Addresses of the proxy; none: rules that need the request or the server name are not enforced.
    pub proxy: Vec<SocketAddr>,
    /// How long the proxy's clients may take.
    pub proxy_times: proxy::server::Settings,
    /// Connections of clients to the proxy at a time; `None`: as many as open files allow.
    pub proxy_connections: Option<u32>,
    /// Whether a running agent is to be replaced.
    pub take_over: bool,
    /// Where requests are logged; `None` is off.
    pub access_log: Option<access_log::Settings>,
    /// Log filter.
    pub log: String,
    /// Log format.
    pub log_format: LogFormat,
}

impl Settings {
    /// Puts flags over the file over the defaults. `read` is `std::fs::read_to_string` outside tests.
    ///
    /// # Errors
    /// When something needed is missing, or the file cannot be used.
    pub fn read(
        flags: Options,
        file: Option<&Path>,
        read: impl Fn(&Path) -> io::Result<String>,
    ) -> Result<Self, SettingsError> {
        let file = match file {
            None => Options::default(),
            Some(path) => {
                let text = read(path).map_err(|source| SettingsError::Read { path: path.into(), source })?;
                toml::from_str(&text).map_err(|source| SettingsError::Parse { path: path.into(), source })?
            }
        };
        let options = flags.or(file);
        let cluster = options.kube || options.kubeconfig.is_some() || options.kube_context.is_some();
        if options.config.is_none() && !cluster {
            return Err(SettingsError::NoConfig);
        }
        if options.kube_status.is_some() && !cluster {
            return Err(SettingsError::StatusOfNothing);
        }
        if options.kube_node.is_some() && !cluster {
            return Err(SettingsError::NodeOfNothing);
        }
        let attach = options.attach;
        if attach.is_empty() {
            return Err(SettingsError::NoAttach);
        }
        if options.direct && attach.iter().all(|one| !matches!(one.hook, Hook::Tc | Hook::Clsact)) {
            return Err(SettingsError::NothingDirect);
        }
        if options.connection_metrics && attach.iter().all(|one| one.hook != Hook::Cgroup) {
            return Err(SettingsError::NoSockets);
        }
        for (index, one) in attach.iter().enumerate() {
            if attach.iter().take(index).any(|seen| seen.interface == one.interface) {
                return Err(SettingsError::AttachTwice { interface: one.interface.clone() });
            }
        }
        let capacity = Capacity::default();
        let idle = IdleTimeouts::default();
        let times = proxy::server::Settings::default();
        Ok(Self {
            config: options.config,
            cluster: cluster.then_some(Access {
                kubeconfig: options.kubeconfig,
                context: options.kube_context,
                node: options.kube_node,
            }),
            cluster_status: options.kube_status,
            attach,
            dataplane: dataplane::Settings {
                pin: options.pin.unwrap_or_else(|| PIN.into()),
                capacity: Capacity {
                    flows: positive("flows", options.flows, capacity.flows)?,
                    transient_flows: positive("transient-flows", options.transient_flows, capacity.transient_flows)?,
                },
                idle: IdleTimeouts {
                    tcp_seconds: positive("tcp-idle-seconds", options.tcp_idle_seconds, idle.tcp_seconds)?,
                    udp_seconds: positive("udp-idle-seconds", options.udp_idle_seconds, idle.udp_seconds)?,
                    transient_seconds: positive(
                        "transient-idle-seconds",
                        options.transient_idle_seconds,
                        idle.transient_seconds,
                    )?,
                },
                direct: options.direct,
                proxy: !options.proxy.is_empty(),
                connections: options.connection_metrics,
            },
            state: options.state.unwrap_or_else(|| STATE.into()),
            socket: options.socket.unwrap_or_else(|| SOCKET.into()),
            socket_group: options.socket_group,
            metrics: options.metrics,
            proxy: proxies(options.proxy)?,
            proxy_times: proxy::server::Settings {
                body: seconds("proxy-body-seconds", options.proxy_body_seconds, times.body)?,
                drain: seconds("proxy-drain-seconds", options.proxy_drain_seconds, times.drain)?,
                rate: positive("proxy-request-rate", options.proxy_request_rate, times.rate)?,
                ..times
            },
            proxy_connections: options
                .proxy_connections
                .map(|given| positive("proxy-connections", Some(given), given))
                .transpose()?,
            take_over: options.take_over,
            access_log: access_log(options.access_log, options.access_log_sample)?,
            log: options.log.unwrap_or_else(|| "info".into()),
            log_format: options.log_format.unwrap_or_default(),
        })
    }
}

impl Options {
    /// These, and what they leave unset from `other`.
    fn or(self, other: Self) -> Self {
        Self {
            config: self.config.or(other.config),
            kube: self.kube || other.kube,
            kubeconfig: self.kubeconfig.or(other.kubeconfig),
            kube_context: self.kube_context.or(other.kube_context),
            kube_node: self.kube_node.or(other.kube_node),
            kube_status: self.kube_status.or(other.kube_status),
            attach: if self.attach.is_empty() { other.attach } else { self.attach },
            pin: self.pin.or(other.pin),
            state: self.state.or(other.state),
            socket: self.socket.or(other.socket),
            socket_group: self.socket_group.or(other.socket_group),
            metrics: self.metrics.or(other.metrics),
            proxy: if self.proxy.is_empty() { other.proxy } else { self.proxy },
            proxy_connections: self.proxy_connections.or(other.proxy_connections),
            proxy_request_rate: self.proxy_request_rate.or(other.proxy_request_rate),
            proxy_body_seconds: self.proxy_body_seconds.or(other.proxy_body_seconds),
            proxy_drain_seconds: self.proxy_drain_seconds.or(other.proxy_drain_seconds),
            take_over: self.take_over || other.take_over,
            direct: self.direct || other.direct,
            connection_metrics: self.connection_metrics || other.connection_metrics,
            access_log: self.access_log.or(other.access_log),
            access_log_sample: self.access_log_sample.or(other.access_log_sample),
            log: self.log.or(other.log),
            log_format: self.log_format.or(other.log_format),
            flows: self.flows.or(other.flows),
            transient_flows: self.transient_flows.or(other.transient_flows),
            tcp_idle_seconds: self.tcp_idle_seconds.or(other.tcp_idle_seconds),
            udp_idle_seconds: self.udp_idle_seconds.or(other.udp_idle_seconds),
            transient_idle_seconds: self.transient_idle_seconds.or(other.transient_idle_seconds),
        }
    }
}

/// Addresses that packets can be sent on to.
pub(crate) fn proxies(given: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, SettingsError> {
    for address in &given {
        // The kernel forwards nothing to these from outside.
        if address.ip().is_unspecified()
            || address.ip().is_loopback()
            || address.ip().is_multicast()
            || address.port() == 0
        {
            return Err(SettingsError::Proxy { address: *address });
        }
    }
    Ok(given)
}

fn seconds(name: &'static str, given: Option<u32>, default: Duration) -> Result<Duration, SettingsError> {
    given.map_or(Ok(default), |given| Ok(Duration::from_secs(positive(name, Some(given), given)?.into())))
}

fn positive(name: &'static str, given: Option<u32>, default: u32) -> Result<u32, SettingsError> {
    match given {
        Some(0) => Err(SettingsError::Zero { name }),
        other => Ok(other.unwrap_or(default)),
    }
}

#[cfg(test)]
mod tests;
