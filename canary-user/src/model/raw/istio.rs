//! `networking.istio.io` and `canary.io`: VirtualService, DestinationRule, ServiceEntry, WorkloadEntry, `RoutePolicy`.
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Number, Value};

use super::{Headers, HttpRoute, Labels};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct VirtualService {
    pub(in crate::model) hosts: Vec<String>,
    pub(in crate::model) gateways: Vec<String>,
    pub(in crate::model) export_to: Vec<String>,
    pub(in crate::model) http: Vec<HttpRoute>,
    pub(in crate::model) tls: Vec<L4Route>,
    pub(in crate::model) tcp: Vec<L4Route>,
}

/// An entry of `tcp[]` or `tls[]`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct L4Route {
    #[serde(rename = "match")]
    pub(in crate::model) matches: Vec<L4Match>,
    pub(in crate::model) route: Vec<RouteDestination>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct L4Match {
    pub(in crate::model) sni_hosts: Vec<String>,
    pub(in crate::model) destination_subnets: Vec<String>,
    pub(in crate::model) port: Option<i64>,
    pub(in crate::model) source_labels: Labels,
    pub(in crate::model) source_namespace: Option<String>,
    pub(in crate::model) gateways: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RouteDestination {
    pub(in crate::model) destination: Option<Destination>,
    /// Argo Rollouts writes `10.0`.
    pub(in crate::model) weight: Option<Number>,
    /// Of `http[]` only.
    pub(in crate::model) headers: Option<Headers>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Destination {
    pub(in crate::model) host: Option<String>,
    pub(in crate::model) subset: Option<String>,
    pub(in crate::model) port: Option<PortSelector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct PortSelector {
    pub(in crate::model) number: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct DestinationRule {
    pub(in crate::model) host: Option<String>,
    pub(in crate::model) subsets: Vec<Subset>,
    pub(in crate::model) export_to: Vec<String>,
    pub(in crate::model) workload_selector: Option<Value>,
    pub(in crate::model) traffic_policy: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct Subset {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) labels: Labels,
    pub(in crate::model) traffic_policy: Option<Map<String, Value>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ServiceEntry {
    pub(in crate::model) hosts: Vec<String>,
    pub(in crate::model) addresses: Vec<String>,
    pub(in crate::model) ports: Vec<ServiceEntryPort>,
    pub(in crate::model) resolution: Option<String>,
    pub(in crate::model) endpoints: Vec<WorkloadEntry>,
    pub(in crate::model) workload_selector: Option<WorkloadSelector>,
    pub(in crate::model) export_to: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct ServiceEntryPort {
    pub(in crate::model) number: Option<i64>,
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) protocol: Option<String>,
    pub(in crate::model) target_port: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct WorkloadSelector {
    pub(in crate::model) labels: Labels,
}

/// A WorkloadEntry, or an endpoint of a ServiceEntry: the same message in Istio.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct WorkloadEntry {
    pub(in crate::model) address: Option<String>,
    pub(in crate::model) ports: BTreeMap<String, i64>,
    pub(in crate::model) labels: Labels,
    pub(in crate::model) weight: Option<Number>,
    pub(in crate::model) network: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RoutePolicy {
    pub(in crate::model) target_ref: Option<TargetRef>,
    pub(in crate::model) rules: Vec<RulePolicy>,
    pub(in crate::model) drain: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(in crate::model) struct TargetRef {
    pub(in crate::model) kind: Option<String>,
    pub(in crate::model) name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::model) struct RulePolicy {
    pub(in crate::model) name: Option<String>,
    pub(in crate::model) sources: Vec<String>,
    pub(in crate::model) choosing: Option<String>,
    pub(in crate::model) on_no_endpoints: Option<String>,
}
