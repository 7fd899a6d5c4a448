//! Names of Service ports: their first part says the protocol.
use serde_json::Value;

use super::context::{Context, Finding, Report, label, list, spec, text};
use crate::{diagnostic::Severity, source::Object};

/// Namespaces of the cluster itself.
const SYSTEM_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];
/// Label of Services that Istio makes for gateways, and its values.
const MANAGED: (&str, [&str; 3]) = (
    "gateway.istio.io/managed",
    ["istio.io-mesh-controller", "istio.io-gateway-controller", "istio.io-eastwest-controller"],
);
/// Protocols that a port name (before the first dash) or `appProtocol` may say.
const PROTOCOLS: [&str; 15] = [
    "tcp",
    "udp",
    "grpc",
    "grpc-web",
    "http",
    "http_proxy",
    "http2",
    "https",
    "tls",
    "mongo",
    "redis",
    "mysql",
    "hbone",
    "kubernetes.io/h2c",
    "kubernetes.io/ws",
];
/// Ports that are TCP whatever they are called: SMTP, DNS, `MySQL`, `MongoDB`.
const WELL_KNOWN_PORTS: [u64; 4] = [25, 53, 3306, 27017];

pub(super) fn run(context: &Context<'_>, report: &mut Report) {
    for object in context.core("Service").filter(|object| !is_exempt(object)) {
        let external = text(spec(object), "type") == "ExternalName";
        for (index, port) in list(spec(object), "ports").iter().enumerate() {
            let name = text(port, "name");
            let said = says_protocol(port);
            if said && !(external && name == "tcp") {
                continue;
            }
            let (severity, code, message) = if external {
                let message = "the port of an ExternalName Service should say another protocol than plain TCP: otherwise a \
                               proxy may take all traffic of this port number";
                (Severity::Warning, "IST0150", message.to_owned())
            } else {
                (Severity::Info, "IST0118", format!("the port name \"{name}\" does not say the protocol"))
            };
            report.add(Finding {
                object,
                severity,
                code,
                field: format!("spec.ports[{index}].name"),
                message,
                remedy: "name it `<protocol>` or `<protocol>-<suffix>`, as `http-web`, or set `appProtocol`".to_owned(),
            });
        }
    }
}

/// Services that users do not write: of the cluster, of Istio, of its gateways.
fn is_exempt(object: &Object) -> bool {
    let (managed, by) = MANAGED;
    SYSTEM_NAMESPACES.contains(&object.namespace.as_str())
        || label(object, "istio").is_some_and(|value| !value.is_empty())
        || label(object, "release") == Some("istio")
        || label(object, managed).is_some_and(|value| by.contains(&value))
}

fn says_protocol(port: &Value) -> bool {
    if text(port, "protocol") == "UDP" {
        return true;
    }
    let said = match text(port, "appProtocol") {
        "" => text(port, "name"),
        said => said,
    };
    let said = said.to_lowercase();
    let first = said.split('-').next().unwrap_or_default();
    let number = port.get("port").and_then(Value::as_u64).unwrap_or_default();
    said.starts_with("grpc-web")
        || said == "kubernetes.io/wss"
        || PROTOCOLS.contains(&first)
        || WELL_KNOWN_PORTS.contains(&number)
}
