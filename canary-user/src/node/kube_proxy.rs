//! How kube-proxy works on this node: it says so itself, on loopback.
use std::{fs, net::SocketAddr, path::Path, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Check, Verdict};

/// Its metrics' port, which Kubernetes gives it by default.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 10_249);
const PATIENCE: Duration = Duration::from_secs(1);
/// A mode is one word.
const LONGEST: usize = 64;

/// How kube-proxy works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It says: `iptables`, `ipvs`, `nftables`.
    Said(String),
    /// Nobody answers.
    Silent,
}

/// Asks it.
pub async fn mode() -> Mode {
    let asked = tokio::time::timeout(PATIENCE, ask(ADDRESS)).await;
    asked.ok().flatten().map_or(Mode::Silent, Mode::Said)
}

async fn ask(address: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/proxyMode").header("host", "localhost").body(Empty::<Bytes>::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let good = answer.status().is_success();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await.ok()?.to_bytes();
    connection.abort();
    let mode = std::str::from_utf8(&body).ok()?.trim().to_owned();
    (good && mode.chars().all(|letter| letter.is_ascii_alphanumeric())).then_some(mode)
}

impl Mode {
    pub(super) fn check(&self, proc: &Path) -> Check {
        let name = "kube-proxy";
        let fine = |found: String| Check { name, verdict: Verdict::Fine, found, remedy: String::new() };
        match self {
            Self::Said(mode) => fine(format!("{mode}; it serves what canary does not know")),
            Self::Silent if fs::read_to_string(proc.join("net/ip_vs")).is_ok_and(|it| it.lines().count() > 3) => {
                fine("it does not say; there are services of IPVS".into())
            }
            Self::Silent => Check {
                name,
                verdict: Verdict::Limited,
                found: format!("nobody answers at {ADDRESS}"),
                remedy: "Services without routes of their own need somebody who serves them: kube-proxy, or the network plugin".into(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn it_is_taken_at_its_word_if_that_is_one() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nnftables", Some("nftables")),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 4\r\n\r\nnone", None),
            ("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>", None),
            ("SSH-2.0-OpenSSH_9.2\r\n", None),
        ] {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 512]).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
            assert_eq!(ask(address).await.as_deref(), expected, "{answer}");
        }
    }
}
