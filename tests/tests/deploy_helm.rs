//! The Helm chart, rendered by helm: it is what the manifests are, and what Kubernetes and the program take.
use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use canary_user::{
    agent::settings::Settings,
    cli::args::{Cli, Command as Subcommand},
    dataplane::{Attach, Hook},
    source::{self, Object},
};
use clap::Parser as _;
use serde_json::{Value, json};

const NAMESPACE: &str = "canary-system";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

fn helm(arguments: &[&str], values: &Value) -> Result<std::process::Output> {
    let mut command = Command::new("helm");
    command.arg(arguments.first().context("no command")?).args(arguments.get(1..).unwrap_or_default());
    command.arg(deploy().join("helm/canary")).args(["--namespace", NAMESPACE, "--values", "-"]);
    let mut helm = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let helm = helm.as_mut().map_err(|error| anyhow::anyhow!("helm: {error}; `cargo xtask setup` brings it"))?;
    helm.stdin.take().context("stdin")?.write_all(values.to_string().as_bytes())?;
    let mut output = (String::new(), String::new());
    std::io::Read::read_to_string(&mut helm.stdout.take().context("stdout")?, &mut output.0)?;
    std::io::Read::read_to_string(&mut helm.stderr.take().context("stderr")?, &mut output.1)?;
    let status = helm.wait()?;
    Ok(std::process::Output { status, stdout: output.0.into_bytes(), stderr: output.1.into_bytes() })
}

/// The objects of a release called `canary`, the definitions included.
fn rendered(values: &Value) -> Result<Vec<Object>> {
    let output = helm(&["template", "--include-crds", "canary"], values)?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    parsed(&String::from_utf8(output.stdout)?)
}

fn parsed(text: &str) -> Result<Vec<Object>> {
    let found = source::parse(text, Path::new("-"));
    ensure!(found.diagnostics.is_empty(), "{:?}", found.diagnostics);
    Ok(found.objects.iter().map(|object| Object::clone(object)).collect())
}

/// Without what only one of the two ways has: labels, and the name of the image.
fn plain(objects: Vec<Object>) -> BTreeMap<String, Value> {
    let mut plain = BTreeMap::new();
    for object in objects.into_iter().filter(|object| object.kind != "Namespace") {
        let id = format!("{} {}", object.kind, object.name);
        let mut body = object.body;
        for labels in ["/metadata", "/spec/selector/matchLabels", "/spec/template/metadata"] {
            let Some(Value::Object(fields)) = body.pointer_mut(labels) else { continue };
            let own = ["labels", "app.kubernetes.io/instance"];
            fields.retain(|name, _| !own.contains(&name.as_str()));
            // Helm says the namespace, kustomize leaves it to the objects that have one.
            fields.remove("namespace");
        }
        if let Some(image) = body.pointer_mut("/spec/template/spec/containers/0/image") {
            *image = Value::Null;
        }
        plain.insert(id, body);
    }
    plain
}

#[test]
fn the_chart_is_what_the_manifests_are() -> Result<()> {
    let built = Command::new("kubectl").arg("kustomize").arg(deploy().join("kubernetes")).output()?;
    ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let manifests = plain(parsed(&String::from_utf8(built.stdout)?)?);
    let chart = plain(rendered(&json!({}))?);
    assert_eq!(chart.keys().collect::<Vec<_>>(), manifests.keys().collect::<Vec<_>>());
    for (id, object) in &chart {
        assert_eq!(Some(object), manifests.get(id), "{id}");
    }
    Ok(())
}

/// The settings of an agent that is started as the chart says.
fn settings(values: &Value) -> Result<Settings> {
    let objects = rendered(values)?;
    let daemonset = objects.iter().find(|object| object.kind == "DaemonSet").context("no DaemonSet")?;
    let args = daemonset.body.pointer("/spec/template/spec/containers/0/args").and_then(Value::as_array);
    let args = args.context("no arguments")?.iter().filter_map(Value::as_str);
    let (node, address) = ("$(NODE_NAME)", "$(NODE_IP)");
    let args = args.map(|arg| {
        let ip = if arg.contains("[$(") { "2001:db8::7" } else { "192.0.2.7" };
        arg.replace(node, "n1").replace(address, ip)
    });
    let cli = Cli::try_parse_from(std::iter::once("canary".to_owned()).chain(args))?;
    let Subcommand::Agent(agent) = cli.command else { anyhow::bail!("it runs no agent") };
    Ok(Settings::read(agent.options, None, |_| Err(std::io::ErrorKind::NotFound.into()))?)
}

#[test]
fn values_become_settings_of_the_agent() -> Result<()> {
    let plain = settings(&json!({}))?;
    assert_eq!(plain.cluster_status.as_deref(), Some(NAMESPACE));
    assert_eq!(plain.proxy, ["192.0.2.7:15001".parse()?]);
    let other = settings(&json!({
        "attach": ["cgroup:/kubepods.slice", "tc:lxc*", "xdp:eth0"], "ipv6": true, "status": {"enabled": false},
        "proxy": {"port": 1}, "metrics": {"enabled": false, "connections": true}, "log": {"level": "debug", "format": "json"},
        "extraArgs": ["--flows=7"],
    }))?;
    let attach = |hook, interface: &str| Attach { hook, interface: interface.into() };
    let places =
        [attach(Hook::Cgroup, "/host/cgroup/kubepods.slice"), attach(Hook::Tc, "lxc*"), attach(Hook::Xdp, "eth0")];
    assert_eq!(other.attach, places);
    assert_eq!((other.cluster_status, other.metrics), (None, None));
    assert_eq!(other.proxy, ["[2001:db8::7]:1".parse()?]);
    assert_eq!((other.log.as_str(), other.dataplane.capacity.flows), ("debug", 7));
    assert!(other.dataplane.connections);
    let none = settings(&json!({"proxy": {"enabled": false}, "attach": ["tc:eth0"]}))?;
    assert!(none.proxy.is_empty());
    Ok(())
}

/// Without what writes no right to write is asked for.
#[test]
fn rights_are_those_that_are_used() -> Result<()> {
    let kinds = |values: &Value| -> Result<Vec<String>> {
        let roles = rendered(values)?.into_iter().filter(|it| it.kind.contains("Role")).collect::<Vec<_>>();
        Ok(roles.iter().map(|it| format!("{} {}", it.kind, it.name)).collect())
    };
    assert_eq!(kinds(&json!({}))?.len(), 6);
    let reading = kinds(&json!({"status": {"enabled": false}}))?;
    assert_eq!(reading, ["ClusterRole canary", "ClusterRoleBinding canary"]);
    assert_eq!(kinds(&json!({"rbac": {"create": false}}))?, [""; 0]);
    Ok(())
}

#[test]
fn a_wrong_value_is_refused_by_its_name() -> Result<()> {
    for (values, named) in [
        (json!({"atach": ["cgroup"]}), "atach"),
        (json!({"attach": []}), "attach"),
        (json!({"attach": ["eth0"]}), "attach"),
        (json!({"proxy": {"port": 0}}), "port"),
        (json!({"proxy": {"port": "15001"}}), "port"),
        (json!({"image": {"digest": "abc"}}), "digest"),
        (json!({"log": {"format": "xml"}}), "format"),
        (json!({"seccompProfile": {"type": "None"}}), "type"),
        (json!({"seLinuxOptions": {"typ": "spc_t"}}), "typ"),
        (json!({"metrics": {"port": 15_001}}), "proxy.port and metrics.port"),
        (json!({"metrics": {"enabled": false, "podMonitor": {"enabled": true}}}), "podMonitor"),
    ] {
        let output = helm(&["template", "canary"], &values)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{values} is taken");
        assert!(said.contains(named), "{values}: {said}");
    }
    let lint = helm(&["lint", "--strict"], &json!({}))?;
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    Ok(())
}

/// Against the schemas of each version of Kubernetes, to which an unknown field is an error.
#[test]
fn every_version_of_kubernetes_takes_the_objects() -> Result<()> {
    const SCRIPT: &str = r#"
import json, sys, zipfile
import jsonschema

archive = zipfile.ZipFile(sys.argv[1])
versions = sorted({name.split("/")[2] for name in archive.namelist() if name.endswith("-local-strict/daemonset-apps-v1.json")})
objects, checked = json.load(sys.stdin), 0
for version in versions:
    root = "kubernetes_validate/kubernetes-json-schema/" + version + "/"
    read = lambda name: json.loads(archive.read(root + name))
    for thing in objects:
        group, _, name = thing["apiVersion"].rpartition("/")
        file = "-".join(part for part in (thing["kind"].lower(), group.split(".")[0], name) if part) + ".json"
        if root + file not in archive.namelist():
            sys.exit(f"{version} has no {file}")
        # Every reference is to the definitions of the same version, wherever they are said to be.
        whole = read("_definitions.json")
        handlers = {scheme: lambda uri: whole for scheme in ("https", "http", "file", "")}
        resolver = jsonschema.RefResolver("https://schemas/" + file, read(file), handlers=handlers)
        errors = list(jsonschema.Draft7Validator(read(file), resolver=resolver).iter_errors(thing))
        if errors:
            sys.exit(f"{version}: {thing['kind']} {thing['metadata']['name']}: {errors[0].json_path}: {errors[0].message}")
        checked += 1
print(len(versions), checked)
"#;
    let schemas = std::env::var_os("CANARY_KUBERNETES_SCHEMAS")
        .map_or_else(|| deploy().join("../target/tools/kubernetes_validate-1.37.0-py3-none-any.whl"), PathBuf::from);
    let all = rendered(&json!({"attach": ["cgroup", "tc:eth0"], "affinity": {"nodeAffinity": {}}}))?;
    let objects: Vec<&Value> =
        all.iter().filter(|it| it.kind != "CustomResourceDefinition").map(|it| &it.body).collect();
    let check = |objects: &Value| -> Result<std::process::Output> {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-W", "ignore", "-c", SCRIPT]).arg(&schemas);
        let mut python = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        python.stdin.take().context("stdin")?.write_all(objects.to_string().as_bytes())?;
        Ok(python.wait_with_output()?)
    };
    let output = check(&json!(objects))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout)?;
    let mut numbers = said.split_whitespace().map(str::parse::<usize>);
    let (versions, checked) = (numbers.next().context("no number")??, numbers.next().context("no number")??);
    assert!(versions >= 13, "1.25 to 1.37: {said}");
    assert_eq!(checked, versions * objects.len());
    // A misspelt field is found.
    let mut wrong =
        objects.iter().find(|it| it.get("kind") == Some(&json!("DaemonSet"))).map(|&it| it.clone()).context("none")?;
    let spec = wrong.pointer_mut("/spec/template/spec").and_then(Value::as_object_mut).context("no spec")?;
    spec.insert("hostNetwrk".into(), json!(true));
    assert!(!check(&json!([wrong]))?.status.success());
    Ok(())
}
