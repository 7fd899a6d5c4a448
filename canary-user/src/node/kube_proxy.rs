//! How kube-proxy works on this node: it says so itself.
use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, runtime};

/// The longest that kube-proxy may take, which is on the same node.
const PATIENCE: Duration = Duration::from_secs(2);
/// A mode is one word.
const LONGEST: usize = 64;

/// Its mode, such as `nftables`; `None` when nobody says it there.
pub(super) fn mode(address: SocketAddr) -> Option<String> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, ask(address)).await.ok().flatten() })
}

async fn ask(address: SocketAddr) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Ends with the runtime.
    tokio::spawn(connection);
    let host = address.to_string();
    let request = Request::get("/proxyMode").header(HOST, host).body(Empty::<Bytes>::new()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let good = answer.status().is_success();
    let body = Limited::new(answer.into_body(), LONGEST).collect().await.ok()?.to_bytes();
    let mode = std::str::from_utf8(&body).ok()?.trim().to_owned();
    let is_word = !mode.is_empty() && mode.bytes().all(|it| it.is_ascii_alphanumeric());
    (good && is_word).then_some(mode)
}
