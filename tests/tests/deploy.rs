//! What is delivered for Kubernetes is what the program takes.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use canary_user::{
    agent::settings::Settings,
    cli::args::{Cli, Command as Subcommand},
    source::{self, Object},
};
use clap::Parser as _;
use serde_json::{Value, json};

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kubernetes")
}

/// The object of this kind in a file of the manifests.
fn object(file: &str, kind: &str) -> Result<Object> {
    let path = manifests().join(file);
    let found = source::parse(&std::fs::read_to_string(&path)?, &path);
    ensure!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    let object = found.objects.iter().find(|object| object.kind == kind);
    Ok(Object::clone(object.with_context(|| format!("no {kind}"))?))
}

fn container() -> Result<Value> {
    let daemonset = object("daemonset.yaml", "DaemonSet")?;
    Ok(daemonset.body.pointer("/spec/template/spec/containers/0").context("no container")?.clone())
}

fn texts(list: Option<&Value>) -> Vec<String> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[test]
fn the_program_takes_the_arguments_of_the_daemonset() -> Result<()> {
    let args = texts(container()?.get("args"));
    let args = args.iter().map(|arg| arg.replace("$(NODE_IP)", "192.0.2.1"));
    let cli = Cli::try_parse_from(std::iter::once("canary".to_owned()).chain(args))?;
    let Subcommand::Agent(agent) = cli.command else { anyhow::bail!("it runs no agent") };
    let settings = Settings::read(agent.options, None, |_| Err(std::io::ErrorKind::NotFound.into()))?;
    assert!(settings.cluster.is_some() && settings.config.is_none(), "{settings:?}");
    for probe in ["readinessProbe", "livenessProbe"] {
        let command = texts(container()?.pointer(&format!("/{probe}/exec/command")));
        let (program, rest) = command.split_first().context("no command")?;
        assert_eq!(program, "/canary");
        // What is wrong with objects must not stop an update of all nodes.
        assert!(probe != "readinessProbe" || rest == ["status", "--probe"], "{rest:?}");
        Cli::try_parse_from(std::iter::once("canary").chain(rest.iter().map(String::as_str)))?;
    }
    // What the program keeps is on the host.
    let mounts = container()?.get("volumeMounts").and_then(Value::as_array).cloned().unwrap_or_default();
    let mounts: Vec<&str> = mounts.iter().filter_map(|mount| mount.get("mountPath")?.as_str()).collect();
    for place in [&settings.state, &settings.dataplane.pin, &settings.socket] {
        assert!(mounts.iter().any(|mount| place.starts_with(mount)), "{} is in no mount", place.display());
    }
    Ok(())
}

#[test]
fn the_daemonset_has_the_least_powers() -> Result<()> {
    let context = container()?.get("securityContext").cloned().context("no securityContext")?;
    let expected = json!({
        "runAsUser": 0, "privileged": false, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN", "PERFMON"]},
    });
    assert_eq!(context, expected);
    Ok(())
}

/// The role, beside the kinds that the agent follows: it cannot have more, and with less nothing would ever be read.
#[test]
fn the_role_is_for_what_is_read() -> Result<()> {
    let role = object("rbac.yaml", "ClusterRole")?;
    let rules = role.body.get("rules").and_then(Value::as_array).context("no rules")?;
    let mut allowed = Vec::new();
    for rule in rules {
        // A kind that is watched has no other verb, and what is written is in a role of its own.
        assert_eq!(texts(rule.get("verbs")), ["list", "watch"]);
        for group in texts(rule.get("apiGroups")) {
            let name = |resource: String| if group.is_empty() { resource } else { format!("{resource}.{group}") };
            allowed.extend(texts(rule.get("resources")).into_iter().map(name));
        }
    }
    allowed.sort();
    let mut read = source::cluster::resources();
    read.sort();
    assert_eq!(allowed, read);
    Ok(())
}

/// What is written beside: the status of every kind of the Gateway API that has one, and Events.
#[test]
fn the_other_role_is_for_what_is_written() -> Result<()> {
    let path = manifests().join("rbac.yaml");
    let objects = source::parse(&std::fs::read_to_string(&path)?, &path).objects;
    let role = |kind: &str, name: &str| objects.iter().find(|it| it.kind == kind && it.name == name).cloned();
    let rules = |role: &Object| -> Vec<(Vec<String>, Vec<String>)> {
        let rules = role.body.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
        rules.iter().map(|rule| (texts(rule.get("resources")), texts(rule.get("verbs")))).collect()
    };
    let own = role("ClusterRole", "canary-status").context("no role")?;
    let group = ".gateway.networking.k8s.io";
    let kinds = source::cluster::resources();
    let statuses = kinds.iter().filter_map(|it| it.strip_suffix(group)).filter(|it| *it != "referencegrants");
    let statuses: Vec<String> = statuses.map(|it| format!("{it}/status")).collect();
    let list = |all: &[&str]| all.iter().map(|&it| it.to_owned()).collect::<Vec<_>>();
    assert_eq!(rules(&own), [(statuses, list(&["get", "patch"])), (list(&["events"]), list(&["create", "patch"]))]);
    let lease = role("Role", "canary-status").context("no role for the Lease")?;
    assert_eq!(rules(&lease), [(list(&["leases"]), list(&["get", "create", "update"]))]);
    assert_eq!(lease.namespace, "canary-system");
    let args = texts(container()?.get("args"));
    assert!(args.contains(&format!("--kube-status={}", lease.namespace)), "{args:?}");
    Ok(())
}

#[test]
fn the_manifests_are_put_together() -> Result<()> {
    for (directory, kinds) in [
        (
            "",
            "Namespace CustomResourceDefinition ServiceAccount ClusterRole ClusterRoleBinding Role RoleBinding DaemonSet",
        ),
        ("prometheus", "PodMonitor"),
    ] {
        let built = Command::new("kubectl").arg("kustomize").arg(manifests().join(directory)).output()?;
        ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        let text = String::from_utf8(built.stdout)?;
        let objects = source::parse(&text, Path::new("-")).objects;
        let found: Vec<&str> = objects.iter().map(|object| object.kind.as_str()).collect();
        for kind in kinds.split(' ') {
            assert!(found.contains(&kind), "no {kind} in {found:?}");
        }
    }
    Ok(())
}
