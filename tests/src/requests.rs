//! Requests without end, on connections that are kept as long as the server wants them: not one may fail.
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Namespace;

/// An answer that takes longer is a failure. Longer than the second after which a lost SYN is sent again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Rest between two requests of a client.
const REST: Duration = Duration::from_millis(2);

/// What became of the requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Answers 200.
    pub answered: AtomicU64,
    /// Everything else.
    pub failed: Mutex<Vec<String>>,
}

/// Clients that ask until they are stopped.
#[derive(Debug)]
pub struct Requests {
    outcome: Arc<Outcome>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Requests {
    /// So many clients of `namespace`, each with a connection of its own for `each` requests, and then the next one.
    #[must_use]
    pub fn start(namespace: &Arc<Namespace>, target: SocketAddr, clients: usize, each: usize) -> Self {
        let (outcome, stop) = (Arc::new(Outcome::default()), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients).map(|_| {
            let (namespace, outcome, stop) = (namespace.clone(), outcome.clone(), stop.clone());
            thread::spawn(move || {
                let talk = || {
                    while !stop.load(Relaxed) {
                        if let Err(error) = connection(target, each, &outcome, &stop) {
                            outcome.failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
                        }
                    }
                };
                if let Err(error) = namespace.run(talk) {
                    outcome.failed.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{error:#}"));
                }
            })
        });
        let clients = clients.collect();
        Self { outcome, stop, clients }
    }

    /// Answers so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.outcome.answered.load(Relaxed)
    }

    /// Ends them; how many were answered.
    ///
    /// # Errors
    /// When one request has failed; with what happened.
    pub fn stop(self) -> Result<u64> {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            if client.join().is_err() {
                bail!("a client panicked");
            }
        }
        let failed = self.outcome.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let answered = self.outcome.answered.load(Relaxed);
        ensure!(failed.is_empty(), "{} failed and {answered} did not: {:?}", failed.len(), failed.first());
        Ok(answered)
    }
}

/// One connection, until it has served its requests or says that it ends.
fn connection(target: SocketAddr, requests: usize, outcome: &Outcome, stop: &AtomicBool) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE).context("connect")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    for number in 0..requests {
        let last = number + 1 == requests || stop.load(Relaxed);
        let ending = if last { "close" } else { "keep-alive" };
        let request = format!("GET /hello HTTP/1.1\r\nHost: helloworld\r\nConnection: {ending}\r\n\r\n");
        let what = || format!("request {number} of a connection");
        stream.write_all(request.as_bytes()).with_context(what)?;
        let head = answer(&mut stream).with_context(what)?;
        ensure!(head.starts_with("http/1.1 200 "), "{}: {head}", what());
        outcome.answered.fetch_add(1, Relaxed);
        if last || head.contains("\r\nconnection: close\r\n") {
            return Ok(());
        }
        thread::sleep(REST);
    }
    Ok(())
}

/// Reads a whole answer; its head, in lower case.
fn answer(stream: &mut TcpStream) -> Result<String> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            let (head, body) = bytes.split_at(end + 4);
            let head = std::str::from_utf8(head)?.to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.context("no content-length")?.parse::<usize>()? {
                return Ok(head);
            }
        }
        let mut buffer = [0; 1_024];
        let read = stream.read(&mut buffer).context("answer")?;
        ensure!(read > 0, "closed after {} bytes of an answer", bytes.len());
        bytes.extend(buffer.iter().take(read));
    }
}
