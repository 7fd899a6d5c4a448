//! What a user would write for helloworld: Service, routes and endpoints, in a directory that the agent watches.
use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
};

use anyhow::{Context, Result};

use crate::tally::Weights;

/// Port of the service and of its pods, TCP and UDP.
pub const PORT: u16 = 5000;
/// The service's address.
pub const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// The service's IPv6 address.
pub const VIP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, 0x10);

/// One pod as its resources say it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Name of the pod.
    pub pod: String,
    /// Its `version` label.
    pub version: String,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// Settings of the routes beside the weights.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// `canary.io/drain`, such as `3s`.
    pub drain: Option<&'static str>,
}

/// Service, VirtualService and DestinationRule. The routes are those of the Istio blog's canary, plus annotations.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_service(directory: &Path, weights: Weights, extras: &Extras) -> Result<()> {
    replace(&directory.join("service.yaml"), &service())?;
    replace(&directory.join("routes.yaml"), &routes(weights, extras))
}

/// `EndpointSlice` and Pod objects: what changes when a deployment scales.
///
/// # Errors
/// When the directory cannot be written.
pub fn write_endpoints(directory: &Path, endpoints: &[Endpoint]) -> Result<()> {
    replace(&directory.join("endpoints.yaml"), &slices_and_pods(endpoints))
}

/// Replaces a file in one step, as editors and `kubectl`-like tools do.
pub(crate) fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text).with_context(|| new.display().to_string())?;
    fs::rename(&new, path).with_context(|| path.display().to_string())
}

fn service() -> String {
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: helloworld
  labels:
    app: helloworld
    service: helloworld
spec:
  clusterIP: {VIP}
  clusterIPs:
  - {VIP}
  - {VIP6}
  ipFamilyPolicy: RequireDualStack
  ipFamilies:
  - IPv4
  - IPv6
  ports:
  - port: {PORT}
    name: http
    protocol: TCP
  - port: {PORT}
    name: echo
    protocol: UDP
  selector:
    app: helloworld
"
    )
}

/// The subsets of helloworld, behind its routes.
pub(crate) const SUBSETS: &str = "---
apiVersion: networking.istio.io/v1alpha3
kind: DestinationRule
metadata:
  name: helloworld
spec:
  host: helloworld
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
";

fn routes(weights: Weights, extras: &Extras) -> String {
    let Weights { v1, v2 } = weights;
    let drain = extras.drain.map_or_else(String::new, |drain| format!("    canary.io/drain: {drain}\n"));
    // Istio has no routes for UDP: that its weights hold there too is asked for by an annotation.
    format!(
        "apiVersion: networking.istio.io/v1alpha3
kind: VirtualService
metadata:
  name: helloworld
  annotations:
    canary.io/udp: \"true\"
{drain}spec:
  hosts:
    - helloworld
  http:
  - route:
    - destination:
        host: helloworld
        subset: v1
      weight: {v1}
    - destination:
        host: helloworld
        subset: v2
      weight: {v2} # the canary
{SUBSETS}"
    )
}

fn slices_and_pods(endpoints: &[Endpoint]) -> String {
    let slice = |family: &str, address: &dyn Fn(&Endpoint) -> String| {
        let list: Vec<String> = endpoints
            .iter()
            .map(|endpoint| {
                format!(
                    "- addresses:
  - \"{}\"
  conditions:
    ready: true
    serving: true
    terminating: false
  targetRef:
    kind: Pod
    name: {}
    namespace: default
",
                    address(endpoint),
                    endpoint.pod
                )
            })
            .collect();
        // An empty list is written as one: `endpoints:` alone would be null.
        let list =
            if list.is_empty() { "endpoints: []\n".to_owned() } else { format!("endpoints:\n{}", list.concat()) };
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: helloworld-{}
  labels:
    kubernetes.io/service-name: helloworld
addressType: {family}
{list}ports:
- name: http
  port: {PORT}
  protocol: TCP
- name: echo
  port: {PORT}
  protocol: UDP
---
",
            family.to_ascii_lowercase()
        )
    };
    let mut documents =
        vec![slice("IPv4", &|endpoint| endpoint.v4.to_string()), slice("IPv6", &|endpoint| endpoint.v6.to_string())];
    documents.extend(endpoints.iter().map(pod));
    documents.concat()
}

fn pod(Endpoint { pod, version, v4, v6 }: &Endpoint) -> String {
    format!(
        "apiVersion: v1
kind: Pod
metadata:
  name: {pod}
  labels:
    app: helloworld
    version: {version}
status:
  podIP: {v4}
  podIPs:
  - ip: {v4}
  - ip: \"{v6}\"
  conditions:
  - type: Ready
    status: \"True\"
---
"
    )
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::{Endpoint, Extras, Weights, write_endpoints, write_service};
    use crate::cleanup::Directory;

    /// Only that names and files are as expected: whether the text means what it should is what netns tests prove.
    #[test]
    fn every_file_is_replaced_whole() {
        let directory = Directory::temporary().unwrap();
        let pod = Endpoint {
            pod: "helloworld-v1-1".into(),
            version: "v1".into(),
            v4: Ipv4Addr::new(10, 244, 1, 1),
            v6: Ipv6Addr::LOCALHOST,
        };
        write_service(directory.path(), Weights { v1: 90, v2: 10 }, &Extras { drain: Some("3s") }).unwrap();
        write_endpoints(directory.path(), &[pod]).unwrap();
        write_endpoints(directory.path(), &[]).unwrap();
        let mut names: Vec<_> = std::fs::read_dir(directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["endpoints.yaml", "routes.yaml", "service.yaml"]);
        let routes = std::fs::read_to_string(directory.path().join("routes.yaml")).unwrap();
        assert!(routes.contains("    canary.io/drain: 3s\nspec:\n"), "{routes}");
        let endpoints = std::fs::read_to_string(directory.path().join("endpoints.yaml")).unwrap();
        assert!(endpoints.contains("endpoints: []\n") && !endpoints.contains("kind: Pod\nmeta"), "{endpoints}");
    }
}
