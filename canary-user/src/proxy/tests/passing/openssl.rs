//! Clients and servers of somebody else: `openssl s_client`, `openssl s_server`, certificates made for the test.
use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use super::{super::fixture::endpoints, proxy, tls_rule, tls_state};

fn openssl(arguments: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A server whose certificate has its name.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(directory: &Path, name: &str) -> Self {
        let file = |kind: &str| directory.join(format!("{name}.{kind}")).display().to_string();
        let (key, certificate) = (file("key"), file("pem"));
        let made = openssl(&["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-keyout", &key, "-out", &certificate, "-days", "2", "-subj", &format!("/CN={name}")])
            .output()
            .expect("openssl, the command, is needed");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        // Its own choice of a port would have to be read from what it says, and that is buffered.
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = openssl(&["s_server", "-accept", &address.to_string(), "-cert", &certificate, "-key", &key])
            .args(["-quiet", "-rev"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, address }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Asks for a name: what the client has to say about the handshake, and the answer to `hello`.
fn ask(proxy: SocketAddr, name: Option<&str>, version: &str) -> Output {
    let mut client = openssl(&["s_client", "-connect", &proxy.to_string(), version, "-ign_eof"]);
    match name {
        Some(name) => client.args(["-servername", name]),
        None => client.arg("-noservername"),
    };
    let mut client = client.stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut client.stdin.take().unwrap(), b"hello\nCLOSE\n").unwrap();
    client.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_get_the_certificate_of_the_version_that_their_name_stands_for() {
    let directory = tempfile::tempdir().unwrap();
    let servers = ["v1", "v2"].map(|name| Server::start(directory.path(), name));
    for server in &servers {
        let mut patience = 500;
        while tokio::net::TcpStream::connect(server.address).await.is_err() {
            patience -= 1;
            assert!(patience > 0, "openssl s_server does not listen");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let versions = [("v1", &servers[0]), ("v2", &servers[1])];
    let versions = versions.map(|(name, server)| (name, endpoints(&[&server.address.to_string()])));
    let rules = vec![tls_rule(&["a.example.com"], &[("v1", 1)]), tls_rule(&["*.example.org"], &[("v2", 1)])];
    let proxy = proxy(&tls_state(rules, &versions)).await;
    let cases = [
        (Some("a.example.com"), Some("v1")),
        (Some("b.example.org"), Some("v2")),
        (Some("b.example.com"), None),
        (None, None),
    ];
    for version in ["-tls1_2", "-tls1_3"] {
        for (name, expected) in cases {
            let answer = tokio::task::spawn_blocking(move || ask(proxy.address, name, version)).await.unwrap();
            let said = String::from_utf8_lossy(&answer.stdout).into_owned();
            let case = format!("{version} {name:?}: {said}{}", String::from_utf8_lossy(&answer.stderr));
            assert_eq!(answer.status.success(), expected.is_some(), "{case}");
            if let Some(expected) = expected {
                let subject = said.lines().find(|line| line.starts_with("subject=")).unwrap_or_default();
                assert!(subject.replace(' ', "") == format!("subject=CN={expected}"), "{case}");
                assert!(said.contains("olleh"), "{case}");
            }
        }
    }
}
