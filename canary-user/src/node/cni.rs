//! The network plugin: by its configuration, and by the names of the interfaces that it makes.
use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{Check, Verdict};

/// Where the kubelet looks for configurations.
const DIRECTORY: &str = "etc/cni/net.d";
/// Of plugins that name the host's ends of pods' interfaces in a way of their own: (type in the configuration, an interface
/// of it, pods' interfaces).
const KNOWN: [(&str, &str, &str); 4] = [
    ("cilium-cni", "cilium_host", "lxc*"),
    ("calico", "cali", "cali*"),
    ("aws-cni", "eni", "eni*"),
    ("azure-vnet", "azv", "azv*"),
];
/// Makes clients' connections go to sidecars, or through ztunnel.
const ISTIO: &str = "istio-cni";

/// What was found of it.
#[derive(Debug)]
pub(super) struct Network {
    /// Types of the plugins of the configuration in force.
    types: Vec<String>,
    /// Interfaces that tell of one.
    interfaces: BTreeSet<&'static str>,
}

/// Looks for it.
pub(super) fn network(root: &Path, interfaces: &[String]) -> Network {
    let seen = KNOWN.iter().filter(|(_, prefix, _)| interfaces.iter().any(|it| it.starts_with(prefix)));
    Network { types: types(&root.join(DIRECTORY)), interfaces: seen.map(|(kind, ..)| *kind).collect() }
}

/// The plugins of the first configuration in order of names, as the kubelet takes it.
fn types(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|it| it == "conf" || it == "conflist" || it == "json"))
        .collect();
    files.sort();
    let read = |path: &Path| -> Option<Vec<String>> {
        let whole: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let kind = |plugin: &Value| plugin.get("type").and_then(Value::as_str).map(str::to_owned);
        let list = whole.get("plugins").and_then(Value::as_array);
        let found: Vec<String> =
            list.map_or_else(|| kind(&whole).into_iter().collect(), |list| list.iter().filter_map(kind).collect());
        (!found.is_empty()).then_some(found)
    };
    files.iter().find_map(|path| read(path)).unwrap_or_default()
}

impl Network {
    /// The names of pods' interfaces on the node, if there is a network of pods.
    pub(super) fn pods(&self) -> Option<&'static str> {
        let known = KNOWN.iter().find(|(kind, ..)| self.types.iter().any(|it| it == kind));
        let known = known.or_else(|| KNOWN.iter().find(|(kind, ..)| self.interfaces.contains(kind)));
        known.map(|(_, _, pods)| *pods).or_else(|| (!self.types.is_empty()).then_some("veth*"))
    }

    pub(super) fn check(&self) -> Check {
        let name = "CNI";
        let found = match (self.types.as_slice(), self.interfaces.iter().next()) {
            ([], None) => "none seen (not mounted here, or no node of a cluster)".to_owned(),
            ([], Some(kind)) => format!("interfaces of {kind}"),
            (types, _) => types.join(", "),
        };
        if self.types.iter().any(|kind| kind == ISTIO) {
            let remedy = "connections of meshed pods go to Istio, which splits itself with the same VirtualServices: leave meshed Services to it";
            return Check { name, verdict: Verdict::Limited, found, remedy: remedy.into() };
        }
        Check { name, verdict: Verdict::Fine, found, remedy: String::new() }
    }
}
