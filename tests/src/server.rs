//! helloworld: a small HTTP/1.1 server, and a UDP echo on the same port, that say which version answers.
use std::{
    io::Read,
    net::{Ipv6Addr, SocketAddr},
};

use anyhow::{Context, Result, bail, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Longer requests are refused: this server has no use for them.
const REQUEST_MAX: usize = 16 * 1024;

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hello {
    /// Version, such as `v1`.
    pub version: String,
    /// Name of the pod.
    pub instance: String,
}

impl Hello {
    /// What it says, as the helloworld sample of Istio does.
    #[must_use]
    pub fn text(&self) -> String {
        format!("Hello version: {}, instance: {}\n", self.version, self.instance)
    }

    /// Reads what [`Hello::text`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub fn read(text: &str) -> Result<Self> {
        let parts = text.trim().strip_prefix("Hello version: ").and_then(|rest| rest.split_once(", instance: "));
        let Some((version, instance)) = parts else { bail!("not a hello: {text:?}") };
        Ok(Self { version: version.to_owned(), instance: instance.to_owned() })
    }

    /// Waits for the answer to a request on a connection that may go on.
    ///
    /// # Errors
    /// When it ends early, or says something else.
    pub fn receive(from: &mut impl Read) -> Result<Self> {
        let mut answer = Vec::new();
        let mut buffer = [0; 1_024];
        // The text behind the head is a line of its own.
        while !answer.windows(6).any(|it| it == b"Hello ") || !answer.ends_with(b"\n") {
            let read = from.read(&mut buffer)?;
            ensure!(read > 0, "closed early: {}", String::from_utf8_lossy(&answer));
            answer.extend(buffer.iter().take(read));
        }
        let text = String::from_utf8(answer)?;
        ensure!(text.starts_with("HTTP/1.1 200 "), "answer {text:?}");
        Self::read(text.rsplit("\r\n").next().unwrap_or_default())
    }
}

/// Serves on `port` of every address, both families, until the task is dropped. Calls `ready` when it listens.
///
/// # Errors
/// When the port is taken.
pub async fn serve(hello: Hello, port: u16, ready: impl FnOnce()) -> Result<()> {
    // An IPv6 socket that is not restricted to IPv6 serves both families.
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = TcpListener::bind(any).await.with_context(|| format!("port {port}/tcp"))?;
    let socket = UdpSocket::bind(any).await.with_context(|| format!("port {port}/udp"))?;
    ready();
    let text = hello.text();
    tokio::try_join!(serve_tcp(&listener, &text), serve_udp(&socket, &text))?;
    Ok(())
}

async fn serve_udp(socket: &UdpSocket, text: &str) -> Result<()> {
    let mut datagram = [0; 2048];
    loop {
        // Errors are about an earlier answer (its client has closed the port), not about this server.
        if let Ok((_, client)) = socket.recv_from(&mut datagram).await {
            let _ = socket.send_to(text.as_bytes(), client).await;
        }
    }
}

async fn serve_tcp(listener: &TcpListener, text: &str) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        let text = text.to_owned();
        // A client that goes away ends its own task and nothing else.
        tokio::spawn(async move { connection(stream, &text).await });
    }
}

/// Answers requests until the client closes, or asks for it.
async fn connection(mut stream: TcpStream, text: &str) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut received = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
                break received.drain(..end + 4).collect::<Vec<u8>>();
            }
            if received.len() > REQUEST_MAX {
                stream.write_all(b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n").await?;
                return Ok(());
            }
            if stream.read_buf(&mut received).await? == 0 {
                return Ok(());
            }
        };
        let last = wants_close(&head);
        let connection = if last { "close" } else { "keep-alive" };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: {connection}\r\n\r\n{text}"
        );
        stream.write_all(answer.as_bytes()).await?;
        if last {
            stream.shutdown().await?;
            return Ok(());
        }
    }
}

fn wants_close(head: &[u8]) -> bool {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    head.lines().any(|line| line.strip_prefix("connection:").is_some_and(|value| value.trim() == "close"))
}

#[cfg(test)]
mod tests {
    use super::{Hello, wants_close};

    #[test]
    fn what_is_said_is_understood() {
        let hello = Hello { version: "v1".into(), instance: "helloworld-v1-1".into() };
        assert_eq!(hello.text(), "Hello version: v1, instance: helloworld-v1-1\n");
        assert_eq!(Hello::read(&hello.text()).unwrap(), hello);
        assert!(Hello::read("HTTP/1.1 503").is_err());
        let answer = |status: &str| format!("HTTP/1.1 {status}\r\nserver: x\r\n\r\n{}", hello.text());
        assert_eq!(Hello::receive(&mut answer("200 OK").as_bytes()).unwrap(), hello);
        assert!(Hello::receive(&mut answer("503 Service Unavailable").as_bytes()).is_err());
        assert!(Hello::receive(&mut &answer("200 OK").as_bytes()[..30]).is_err());
    }

    #[test]
    fn a_request_may_be_the_last() {
        let cases = [
            ("asked", "GET / HTTP/1.1\r\nConnection: close\r\n\r\n", true),
            ("other case", "GET / HTTP/1.1\r\nCONNECTION:close\r\n\r\n", true),
            ("kept", "GET / HTTP/1.1\r\nConnection: keep-alive\r\n\r\n", false),
            ("silent", "GET /close HTTP/1.1\r\nHost: connection\r\n\r\n", false),
        ];
        for (name, head, expected) in cases {
            assert_eq!(wants_close(head.as_bytes()), expected, "{name}");
        }
    }
}
