//! The resources that are watched.
use crate::source::{GATEWAY_API, edit::Lists};

/// One resource of the API.
#[derive(Debug)]
pub(crate) struct Kind {
    /// Empty for the core group.
    pub(crate) group: &'static str,
    /// Versions that canary reads, the preferred one first: the first that the API server has is taken.
    pub(crate) versions: &'static [&'static str],
    /// As in paths.
    pub(crate) plural: &'static str,
    /// As in objects.
    pub(crate) name: &'static str,
    /// Fields that are kept beside `metadata`; `None`: all of them. Of the cluster's own kinds only what is read is kept: there
    /// are many, they are large, and a newer API server may know fields that this canary does not.
    pub(crate) keep: Option<&'static [&'static str]>,
}

impl Kind {
    /// Every API server has it, so one that says otherwise is none: a balancer before it, perhaps.
    pub(crate) fn is_everywhere(&self) -> bool {
        self.group.is_empty() || self.group == "discovery.k8s.io"
    }

    /// As `kubectl` names it: `virtualservices.networking.istio.io`.
    pub(crate) fn resource(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }
}

const fn istio(plural: &'static str, name: &'static str) -> Kind {
    Kind { group: "networking.istio.io", versions: &["v1", "v1beta1", "v1alpha3"], plural, name, keep: None }
}

const fn gateway_api(plural: &'static str, name: &'static str, versions: &'static [&'static str]) -> Kind {
    Kind { group: GATEWAY_API, versions, plural, name, keep: None }
}

/// Followed for one object only.
pub(crate) const NODES: &str = "nodes";

/// All of them.
pub(crate) const KINDS: &[Kind] = &[
    Kind {
        group: "",
        versions: &["v1"],
        plural: "services",
        name: "Service",
        keep: Some(&[
            "spec.type",
            "spec.clusterIP",
            "spec.clusterIPs",
            "spec.externalIPs",
            "spec.externalName",
            "spec.internalTrafficPolicy",
            "spec.loadBalancerSourceRanges",
            "spec.trafficDistribution",
            "spec.externalTrafficPolicy",
            "spec.sessionAffinity",
            "spec.sessionAffinityConfig",
            "spec.publishNotReadyAddresses",
            "spec.selector",
            "spec.ports[].name",
            "spec.ports[].port",
            "spec.ports[].targetPort",
            "spec.ports[].protocol",
            "spec.ports[].appProtocol",
            "spec.ports[].nodePort",
            "status.loadBalancer.ingress[].ip",
            "status.loadBalancer.ingress[].ipMode",
        ]),
    },
    Kind {
        group: "discovery.k8s.io",
        versions: &["v1"],
        plural: "endpointslices",
        name: "EndpointSlice",
        keep: Some(&[
            "addressType",
            "endpoints[].addresses",
            "endpoints[].conditions",
            "endpoints[].nodeName",
            "endpoints[].zone",
            "endpoints[].hints",
            "endpoints[].targetRef.kind",
            "endpoints[].targetRef.name",
            "endpoints[].targetRef.namespace",
            "ports[].name",
            "ports[].port",
            "ports[].protocol",
        ]),
    },
    Kind {
        group: "",
        versions: &["v1"],
        plural: "pods",
        name: "Pod",
        keep: Some(&[
            "spec.hostNetwork",
            "spec.nodeName",
            "spec.containers[].ports[].name",
            "spec.containers[].ports[].containerPort",
            "spec.containers[].ports[].protocol",
            "status.phase",
            "status.podIP",
            "status.podIPs",
            "status.conditions[].type",
            "status.conditions[].status",
        ]),
    },
    istio("virtualservices", "VirtualService"),
    istio("destinationrules", "DestinationRule"),
    istio("serviceentries", "ServiceEntry"),
    istio("workloadentries", "WorkloadEntry"),
    Kind { group: "canary.io", versions: &["v1alpha1"], plural: "routepolicies", name: "RoutePolicy", keep: None },
    gateway_api("httproutes", "HTTPRoute", &["v1", "v1beta1"]),
    gateway_api("grpcroutes", "GRPCRoute", &["v1", "v1alpha2"]),
    gateway_api("tlsroutes", "TLSRoute", &["v1", "v1alpha3", "v1alpha2"]),
    gateway_api("tcproutes", "TCPRoute", &["v1", "v1alpha2"]),
    gateway_api("udproutes", "UDPRoute", &["v1", "v1alpha2"]),
    gateway_api("gateways", "Gateway", &["v1", "v1beta1"]),
    gateway_api("gatewayclasses", "GatewayClass", &["v1", "v1beta1"]),
    gateway_api("referencegrants", "ReferenceGrant", &["v1", "v1beta1"]),
    // Its addresses answer node ports, and its name and zone say which endpoints are near.
    Kind {
        group: "",
        versions: &["v1"],
        plural: NODES,
        name: "Node",
        keep: Some(&["status.addresses[].type", "status.addresses[].address"]),
    },
    // For the labels by which a Gateway takes routes.
    Kind { group: "", versions: &["v1"], plural: "namespaces", name: "Namespace", keep: Some(&[]) },
];

/// Those with weights that the command line can set.
pub(super) fn weighted() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| Lists::of_kind(kind.group, kind.name).is_some())
}
