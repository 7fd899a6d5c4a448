//! Services whose servers and clients others have written: what they agree on is what the protocols ask for.
use std::{
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    agent::Agent,
    cleanup::{Directory, Running},
    resources::Endpoint,
    story::Story,
};

/// Python of the distribution, which its packages are for.
const PYTHON: &str = "/usr/bin/python3";

/// A service of the pods of helloworld on a port of its own.
#[derive(Debug, Clone, Copy)]
pub struct Further {
    /// Its name.
    pub name: &'static str,
    /// Its address.
    pub address: Ipv4Addr,
    /// Name of its port, which says the protocol, such as `grpc`.
    pub port_name: &'static str,
    /// Its port.
    pub port: u16,
    /// The pods' port.
    pub target: u16,
}

/// Goes to v2 when `end-user` says ada, and to v1 otherwise: Istio's sample for reviews, for any service.
#[must_use]
pub fn ada_sees_v2(name: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: {name}
spec:
  hosts: [{name}]
  http:
  - match:
    - headers: {{end-user: {{exact: ada}}}}
    route:
    - destination: {{host: {name}, subset: v2}}
  - route:
    - destination: {{host: {name}, subset: v1}}
"
    )
}

impl Further {
    /// Where clients ask.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        SocketAddr::new(self.address.into(), self.port)
    }

    /// Applies its objects with these routes, as a user does: done when they are in force as written.
    ///
    /// # Errors
    /// When they are not; with what is said of them.
    pub fn publish(&self, agent: &Agent, story: &Story, routes: &str) -> Result<()> {
        let files = Directory::temporary()?;
        let file = files.path().join("further.yaml");
        std::fs::write(&file, format!("{}---\n{routes}", self.objects(&story.endpoints())))?;
        agent.call(&["apply", "-f", &file.to_string_lossy()]).map(drop)
    }

    fn objects(&self, endpoints: &[Endpoint]) -> String {
        let Self { name, address, port_name, port, target } = self;
        let slice =
            |it: &Endpoint| format!("- addresses: [{}]\n  targetRef: {{kind: Pod, name: {name}-{}}}\n", it.v4, it.pod);
        let pod = |it: &Endpoint| {
            format!(
                "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}-{}\n  labels: {{app: {name}, version: {}}}\n\
                 status:\n  podIP: {}\n  conditions: [{{type: Ready, status: \"True\"}}]\n",
                it.pod, it.version, it.v4
            )
        };
        let (slices, pods): (String, String) =
            (endpoints.iter().map(slice).collect(), endpoints.iter().map(pod).collect());
        format!(
            "apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  clusterIP: {address}
  selector: {{app: {name}}}
  ports: [{{name: {port_name}, port: {port}, targetPort: {target}}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: {name}
spec:
  host: {name}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}}}
  - {{name: v3, labels: {{version: v3}}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: {name}-1
  labels: {{kubernetes.io/service-name: {name}}}
addressType: IPv4
ports: [{{name: {port_name}, port: {target}}}]
endpoints:
{slices}{pods}"
        )
    }

    /// Starts `serve.py` of this kind in every pod.
    ///
    /// # Errors
    /// When one does not start.
    pub fn serve(&self, kind: &str, story: &Story) -> Result<Vec<Running>> {
        let start = |pod: &crate::story::Pod| {
            let mut command = pod.namespace().command(PYTHON)?;
            command.arg(script("serve.py")).args([kind, &pod.endpoint().version, &self.target.to_string()]);
            ready(&mut command)
        };
        story.pods().iter().map(start).collect()
    }

    /// Starts nghttp2's server in every pod, with a file `index.html` that says the version. It ends before the directory.
    ///
    /// # Errors
    /// When one does not start.
    pub fn serve_http2(&self, story: &Story) -> Result<Vec<(Running, Directory)>> {
        let start = |pod: &crate::story::Pod| -> Result<_> {
            let files = Directory::temporary()?;
            std::fs::write(files.path().join("index.html"), &pod.endpoint().version)?;
            let mut command = pod.namespace().command("nghttpd")?;
            command.arg("--no-tls").arg("--htdocs").arg(files.path()).arg(self.target.to_string());
            let running =
                Running::new(command.stdout(Stdio::null()).spawn().context("nghttpd (package nghttp2-server)")?);
            let address = SocketAddr::new(pod.endpoint().v4.into(), self.target);
            let started = Instant::now();
            while story.client.run(|| std::net::TcpStream::connect(address))?.is_err() {
                ensure!(started.elapsed() < Duration::from_secs(10), "nghttpd does not listen at {address}");
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok((running, files))
        };
        story.pods().iter().map(start).collect()
    }

    /// Runs a client's script against the service.
    ///
    /// # Errors
    /// What the script found wrong.
    pub fn ask(&self, story: &Story, name: &str) -> Result<String> {
        story.client.call(PYTHON, &[&script(name).to_string_lossy(), &self.target().to_string()])
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(name)
}

fn ready(command: &mut Command) -> Result<Running> {
    let mut server = Running::new(command.stdout(Stdio::piped()).spawn().context("cannot start a server")?);
    let mut line = String::new();
    BufReader::new(server.child().stdout.take().context("stdout was asked for")?).read_line(&mut line)?;
    ensure!(line == "ready\n", "a server does not start");
    Ok(server)
}
