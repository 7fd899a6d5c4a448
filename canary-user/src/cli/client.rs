//! The client of the agent's API: one request, one answer.
use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use axum::http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::UnixStream, runtime::Runtime};

use crate::api::{
    TIMEOUT,
    dto::{ErrorBodyV1, ErrorV1, ListV1},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no agent answers at {}", socket.display())]
    NoAgent {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is not for us.
    #[error("this user may not use {}", socket.display())]
    Forbidden {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent went away, or is not one.
    #[error("the agent at {} did not answer properly", socket.display())]
    Broken {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The agent is busy or stuck.
    #[error("the agent at {} did not answer in {} s", socket.display(), seconds)]
    Slow {
        /// The socket.
        socket: PathBuf,
        /// How long we waited.
        seconds: u64,
    },
    /// The agent says no.
    #[error("{}", .0.message)]
    Refused(ErrorBodyV1),
    /// There is no runtime to be had.
    #[error("cannot start")]
    Start(#[source] io::Error),
}

impl ClientError {
    /// What to do about it; may be empty.
    #[must_use]
    pub fn remedy(&self) -> String {
        match self {
            Self::NoAgent { .. } => "start one with `systemctl start canary` or `canary agent --config DIR --attach tc:IFACE`, or say with --socket where it listens".into(),
            Self::Forbidden { .. } => "run as root, or join the socket's group and log in again".into(),
            Self::Broken { .. } | Self::Slow { .. } => "see the agent's log: `journalctl -u canary`".into(),
            Self::Refused(body) => body.remedy.clone(),
            Self::Start(_) => String::new(),
        }
    }
}

/// `text` as a value in a query.
pub(super) fn escaped(text: &str) -> String {
    let letter = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b':' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(letter).collect()
}

/// A client of one agent.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: Runtime,
}

impl Client {
    /// A client of the agent at `socket`. Nothing is sent yet.
    ///
    /// # Errors
    /// When this process cannot do I/O.
    pub fn new(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClientError::Start)?;
        Ok(Self { socket: socket.into(), runtime })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// When there is no answer, or not a good one.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.json(Method::GET, path, Bytes::new())
    }

    /// `GET path` of a list.
    ///
    /// # Errors
    /// When there is no answer, or not a good one.
    pub fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, ClientError> {
        self.get::<ListV1<T>>(path).map(|list| list.items)
    }

    /// `POST path`.
    ///
    /// # Errors
    /// When there is no answer, or not a good one.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        self.json(Method::POST, path, body.into())
    }

    fn json<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        // The agent gives up first, and says so.
        let patience = TIMEOUT + Duration::from_secs(5);
        let exchange = self.exchange(method, path, body);
        let (good, bytes) = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, exchange).await })
            .map_err(|_| ClientError::Slow { socket: self.socket.clone(), seconds: patience.as_secs() })??;
        if good {
            return serde_json::from_slice(&bytes).map_err(|error| self.broken(error));
        }
        let error: ErrorV1 = serde_json::from_slice(&bytes).map_err(|error| self.broken(error))?;
        Err(ClientError::Refused(error.error))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(bool, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|source| {
            let socket = self.socket.clone();
            match source.kind() {
                io::ErrorKind::PermissionDenied => ClientError::Forbidden { socket, source },
                _ => ClientError::NoAgent { socket, source },
            }
        })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.broken(error))?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "canary")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| self.broken(error))?;
        let answer = async {
            let response = sender.send_request(request).await?;
            let good = response.status().is_success();
            Ok::<_, hyper::Error>((good, response.into_body().collect().await?.to_bytes()))
        };
        tokio::pin!(connection, answer);
        // The connection must be driven for the answer to come; when it ends first, the answer fails by itself.
        tokio::select! {
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
        .map_err(|error| self.broken(error))
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ClientError {
        ClientError::Broken { socket: self.socket.clone(), source: source.into() }
    }
}
