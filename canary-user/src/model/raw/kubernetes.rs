//! Kubernetes: Service, EndpointSlice, Pod, Node.
use serde::Deserialize;

use super::{Labels, Metadata, NumberOrName};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Service {
    pub(in crate::model) metadata: Metadata,
    pub(in crate::model) spec: ServiceSpec,
    pub(in crate::model) status: ServiceStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ServiceSpec {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    #[serde(rename = "clusterIP")]
    pub(in crate::model) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(in crate::model) cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub(in crate::model) external_ips: Vec<String>,
    pub(in crate::model) load_balancer_source_ranges: Vec<String>,
    pub(in crate::model) selector: Labels,
    pub(in crate::model) ports: Vec<ServicePort>,
    pub(in crate::model) publish_not_ready_addresses: bool,
    pub(in crate::model) internal_traffic_policy: Option<String>,
    pub(in crate::model) external_traffic_policy: Option<String>,
    pub(in crate::model) session_affinity: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ServicePort {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) protocol: Option<String>,
    pub(in crate::model) app_protocol: Option<String>,
    pub(in crate::model) target_port: Option<NumberOrName>,
    pub(in crate::model) node_port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ServiceStatus {
    pub(in crate::model) load_balancer: LoadBalancer,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct LoadBalancer {
    pub(in crate::model) ingress: Vec<Ingress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Ingress {
    pub(in crate::model) ip: Option<String>,
    pub(in crate::model) ip_mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct EndpointSlice {
    pub(in crate::model) metadata: Metadata,
    pub(in crate::model) address_type: Option<String>,
    pub(in crate::model) endpoints: Vec<SliceEndpoint>,
    pub(in crate::model) ports: Vec<SlicePort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct SliceEndpoint {
    pub(in crate::model) addresses: Vec<String>,
    pub(in crate::model) conditions: SliceConditions,
    pub(in crate::model) target_ref: Option<ObjectRef>,
    pub(in crate::model) node_name: Option<Box<str>>,
    pub(in crate::model) hints: Option<Hints>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Hints {
    pub(in crate::model) for_zones: Vec<Named>,
    pub(in crate::model) for_nodes: Vec<Named>,
}

#[derive(Debug, Deserialize)]
pub(in crate::model) struct Named {
    pub(in crate::model) name: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct SliceConditions {
    pub(in crate::model) ready: Option<bool>,
    pub(in crate::model) serving: Option<bool>,
    pub(in crate::model) terminating: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct ObjectRef {
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) namespace: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct SlicePort {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Pod {
    pub(in crate::model) metadata: Metadata,
    pub(in crate::model) spec: PodSpec,
    pub(in crate::model) status: PodStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct PodSpec {
    pub(in crate::model) containers: Vec<Container>,
    pub(in crate::model) host_network: bool,
    pub(in crate::model) node_name: Option<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Container {
    pub(in crate::model) ports: Vec<ContainerPort>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ContainerPort {
    pub(in crate::model) name: Option<String>,
    #[serde(rename = "containerPort")]
    pub(in crate::model) number: Option<i64>,
    pub(in crate::model) protocol: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct PodStatus {
    pub(in crate::model) phase: Option<String>,
    #[serde(rename = "podIP")]
    pub(in crate::model) pod_ip: Option<String>,
    #[serde(rename = "podIPs")]
    pub(in crate::model) pod_ips: Vec<PodIp>,
    pub(in crate::model) conditions: Vec<PodCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct PodIp {
    pub(in crate::model) ip: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct PodCondition {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) status: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct Node {
    pub(in crate::model) metadata: Metadata,
    pub(in crate::model) status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct NodeStatus {
    pub(in crate::model) addresses: Vec<NodeAddress>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct NodeAddress {
    #[serde(rename = "type")]
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) address: Option<String>,
}
