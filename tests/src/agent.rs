//! The real agent in the node's namespace, and the real command line that talks to it.
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    account::Account,
    apiserver::ApiServer,
    cleanup::{Directory, Running},
    manager::Manager,
    story::{Story, program},
};

/// How long the agent may take to start, or to follow a change of its files.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the agent says about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// It gets new flows.
    Serving,
    /// It only keeps the flows that it has.
    Draining,
    /// It is not known.
    Absent,
}

/// A running agent, or one that was killed and left its data plane in place.
#[derive(Debug)]
pub struct Agent {
    // In this order: the program ends before its pins and files go.
    running: Option<Running>,
    pins: Directory,
    files: Directory,
    attach: Vec<String>,
    proxy: Vec<String>,
    manager: Option<Manager>,
    more: Vec<String>,
    kubeconfig: Option<PathBuf>,
    account: Option<Account>,
    canary: PathBuf,
}

impl Agent {
    /// Names the places of an agent for `story`; resources go to [`Agent::config`], then [`Agent::start`] runs it.
    ///
    /// # Errors
    /// When directories cannot be made or `canary` is not built.
    pub fn new(story: &Story) -> Result<Self> {
        let files = Directory::temporary()?;
        for name in ["config", "state"] {
            fs::create_dir(files.path().join(name))?;
        }
        let canary = match std::env::var_os("CANARY_BIN") {
            Some(path) => PathBuf::from(path),
            None => program("canary")?,
        };
        Ok(Self {
            running: None,
            pins: Directory::pins(),
            files,
            attach: vec![story.attach()],
            proxy: Vec::new(),
            manager: None,
            more: Vec::new(),
            kubeconfig: None,
            account: None,
            canary,
        })
    }

    /// The directory that it watches.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.files.path().join("config")
    }

    /// Its directory of pins.
    #[must_use]
    pub fn pins(&self) -> &Path {
        self.pins.path()
    }

    /// From the next start on it attaches here, each as `tc:front`, and nowhere else.
    pub fn attach_to(&mut self, places: &[&str]) {
        self.attach = places.iter().map(|place| (*place).to_owned()).collect();
    }

    /// From the next start on it has these arguments besides.
    pub fn with(&mut self, arguments: &[&str]) {
        self.more.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }

    /// From the next start on it does not have this argument.
    pub fn without(&mut self, argument: &str) {
        self.more.retain(|it| it != argument);
    }

    /// From the next start on it follows this API server, and reads no directory.
    ///
    /// # Errors
    /// When the kubeconfig cannot be written.
    pub fn follow(&mut self, server: &ApiServer) -> Result<PathBuf> {
        let file = self.files.path().join("kubeconfig");
        fs::write(&file, server.kubeconfig())?;
        fs::write(file.with_file_name("ca.crt"), server.certificate())?;
        self.kubeconfig = Some(file.clone());
        Ok(file)
    }

    /// From the next start on it follows this API server as a pod does, by its account.
    ///
    /// # Errors
    /// When that cannot be written.
    pub fn run_as_a_pod(&mut self, server: &ApiServer) -> Result<()> {
        self.account = Some(Account::new(self.files.path(), server)?);
        Ok(())
    }

    /// From the next start on its proxy listens here.
    pub fn listen_at(&mut self, addresses: &[&str]) {
        self.proxy = addresses.iter().map(|address| (*address).to_owned()).collect();
    }

    /// From the next start on it is started by a service manager that keeps its sockets.
    pub fn managed_by(&mut self, manager: Manager) {
        self.manager = Some(manager);
    }

    /// The service manager.
    ///
    /// # Errors
    /// When there is none.
    pub fn manager(&mut self) -> Result<&mut Manager> {
        self.manager.as_mut().context("the agent has no service manager")
    }

    fn socket(&self) -> PathBuf {
        self.files.path().join("agent.sock")
    }

    /// Starts it in the node's namespace and waits until it answers. It ends with the thread that calls this.
    ///
    /// # Errors
    /// When it does not come up; with the end of its log.
    pub fn start(&mut self, story: &Story) -> Result<()> {
        self.spawn(story)?;
        self.wait_until_ready()
    }

    /// Starts it and does not wait for anything.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(&mut self, story: &Story) -> Result<()> {
        self.running = Some(self.run(story, &[])?);
        Ok(())
    }

    fn run(&mut self, story: &Story, more: &[&str]) -> Result<Running> {
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = match (&mut self.manager, &self.account) {
            (Some(manager), _) => manager.wrap(&self.canary, story.node.command("bash")?)?,
            (None, Some(account)) => account.command(&story.node, &self.canary)?,
            (None, None) => story.node.command(&self.canary)?,
        };
        command.arg("agent");
        match (&self.account, &self.kubeconfig) {
            (Some(_), _) => command.arg("--kube"),
            (None, Some(file)) => command.arg("--kubeconfig").arg(file),
            (None, None) => command.arg("--config").arg(self.config()),
        };
        command.args(self.attach.iter().flat_map(|place| ["--attach", place]));
        command.args(self.proxy.iter().flat_map(|address| ["--proxy", address]));
        command.arg("--pin").arg(self.pins()).arg("--state").arg(self.files.path().join("state"));
        command.arg("--socket").arg(self.socket());
        command.args(&self.more).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.canary.display()))?;
        Ok(Running::new(child))
    }

    /// Starts another one that takes over, and waits until this one has ended and that one answers.
    ///
    /// # Errors
    /// When either does not.
    pub fn replace(&mut self, story: &Story) -> Result<()> {
        let next = self.run(story, &["--take-over"])?;
        self.wait_for_end()?;
        self.running = Some(next);
        self.wait_until_ready()
    }

    /// Ends it with SIGTERM, as a service manager does, and waits for its end.
    ///
    /// # Errors
    /// When it does not run, or does not end within half a minute.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = self.pid().and_then(|pid| Pid::from_raw(pid.try_into().ok()?)).context("the agent does not run")?;
        kill_process(pid, Signal::TERM)?;
        self.wait_for_end()?;
        self.running = None;
        Ok(())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.call(&["status"]).is_err() {
            let ended = self.running.as_mut().map(|running| running.child().try_wait()).transpose()?.flatten();
            if let Some(status) = ended {
                bail!("the agent ended ({status}):\n{}", self.log());
            }
            if started.elapsed() > PATIENCE {
                let last = self.call(&["status"]).err().map_or_else(String::new, |error| error.to_string());
                bail!("the agent is not ready after {} s: {last}\n{}", PATIENCE.as_secs(), self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Kills it with SIGKILL: it has no chance to do anything more.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut running = self.running.take().context("the agent does not run")?;
        running.child().kill().context("kill the agent")?;
        Ok(())
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(Running::id)
    }

    /// Runs `canary --socket … ARGUMENTS` and returns what it prints.
    ///
    /// # Errors
    /// When it fails; with what it said.
    pub fn call(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        ensure!(
            output.status.success(),
            "`canary {}` failed ({}): {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        // By coreutils' timeout (exit status 124): a command that hangs is an error, not a test that never ends.
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "60"]).arg(&self.canary);
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        command.output().with_context(|| format!("cannot start {}", self.canary.display()))
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.canary
    }

    /// Waits until `canary status` says `part`, well or not; its exit code and text then.
    ///
    /// # Errors
    /// When it does not within a minute; with the end of its log. (An interface is tried every half a minute.)
    pub fn wait_for_status(&self, part: &str) -> Result<(Option<i32>, String)> {
        let started = Instant::now();
        loop {
            let output = self.output(&["status"])?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            if text.contains(part) {
                return Ok((output.status.code(), text));
            }
            ensure!(started.elapsed() < 2 * PATIENCE, "the status never says `{part}`:\n{text}\n{}", self.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until it ends by itself; its log then.
    ///
    /// # Errors
    /// When it does not run, or does not end within half a minute.
    pub fn wait_for_end(&mut self) -> Result<String> {
        let started = Instant::now();
        let running = self.running.as_mut().context("the agent does not run")?;
        while running.child().try_wait()?.is_none() {
            ensure!(started.elapsed() < PATIENCE, "the agent does not end");
            thread::sleep(Duration::from_millis(20));
        }
        Ok(self.log())
    }

    /// Removes programs, maps and links from the kernel, as a user would.
    ///
    /// # Errors
    /// When `canary detach` fails.
    pub fn detach(&self, story: &Story) -> Result<String> {
        let pin = self.pins().to_string_lossy().into_owned();
        let canary = self.canary.to_string_lossy().into_owned();
        story.node.call(&canary, &["detach", "--pin", &pin])
    }

    /// What the agent says about `endpoint`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn endpoint(&self, endpoint: SocketAddr) -> Result<EndpointState> {
        let text = self.call(&["get", "endpoints", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).with_context(|| format!("`get endpoints` said {text}"))?;
        Ok(find_endpoint(&value, &endpoint.to_string()).unwrap_or(EndpointState::Absent))
    }

    /// Waits until the agent says `wanted` of every one of `endpoints`.
    ///
    /// # Errors
    /// When it does not within half a minute; with the end of its log.
    pub fn wait_for(&self, endpoints: &[SocketAddr], wanted: &[EndpointState]) -> Result<()> {
        let started = Instant::now();
        for endpoint in endpoints {
            loop {
                let state = self.endpoint(*endpoint)?;
                if wanted.contains(&state) {
                    break;
                }
                if started.elapsed() > PATIENCE {
                    bail!("{endpoint} is {state:?}, not one of {wanted:?}, after {PATIENCE:?}\n{}", self.log());
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    fn log_path(&self) -> PathBuf {
        self.files.path().join("agent.log")
    }

    /// The end of what the agent wrote to its log.
    #[must_use]
    pub fn log(&self) -> String {
        let text = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
        format!("the agent's log:\n{}", end.join("\n"))
    }
}

/// Finds the object that says `address`, wherever the document keeps it.
fn find_endpoint(value: &Value, address: &str) -> Option<EndpointState> {
    match value {
        Value::Array(items) => items.iter().find_map(|item| find_endpoint(item, address)),
        Value::Object(fields) => {
            if fields.values().any(|field| field.as_str() == Some(address)) {
                let drains = fields.get("drains_for_seconds").is_some_and(|seconds| !seconds.is_null());
                return Some(if drains { EndpointState::Draining } else { EndpointState::Serving });
            }
            fields.values().find_map(|field| find_endpoint(field, address))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{EndpointState, find_endpoint};

    #[test]
    fn an_endpoint_is_found_with_its_state() {
        let document = json!({ "endpoints": [
            { "version": "v1", "address": "10.244.1.1:5000", "drains_for_seconds": null },
            { "version": "v2", "address": "10.244.2.1:5000", "drains_for_seconds": 299 },
        ]});
        let cases = [
            ("10.244.1.1:5000", Some(EndpointState::Serving)),
            ("10.244.2.1:5000", Some(EndpointState::Draining)),
            ("10.244.2.1:500", None),
        ];
        for (address, expected) in cases {
            assert_eq!(find_endpoint(&document, address), expected, "{address}");
        }
    }
}
