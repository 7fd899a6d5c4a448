//! The access log: a line of JSON for each request, with the names that Istio's has.
//!
//! Nobody waits for it: lines go through a bounded queue to one thread. Where that has no room, they are counted and
//! gone.
use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        mpsc::{self, Receiver, SyncSender, TryRecvError, TrySendError},
    },
    thread,
    time::{Duration, SystemTime},
};

use hyper::{
    HeaderMap, Request, Version,
    body::Incoming,
    header::{HOST, HeaderName, USER_AGENT},
};

use self::line::Line;
use super::{
    headers::FORWARDED_FOR,
    telemetry::{
        Ended,
        request_id::{REQUEST_ID, random},
    },
};

mod line;
#[cfg(test)]
mod tests;

/// Lines that wait to be written.
const QUEUE: usize = 4_096;
/// Longest wait for the last lines when the agent ends.
const LAST: Duration = Duration::from_secs(2);

/// Where lines go, and which part of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// File; `-` is the standard output.
    pub file: PathBuf,
    /// Share of the requests that are logged.
    pub sample: Sample,
}

/// A share of requests, kept as the largest random number that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample(u64);

/// What is no share.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("{0} is not a ratio above 0 and up to 1, such as 0.01")]
pub struct NoSample(f64);

impl Sample {
    /// Every request.
    pub const ALL: Self = Self(u64::MAX);

    fn holds(self) -> bool {
        self == Self::ALL || random() < self.0
    }
}

impl TryFrom<f64> for Sample {
    type Error = NoSample;

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the ratio is within 0 and 1, and a float becomes the nearest number that there is"
    )]
    fn try_from(ratio: f64) -> Result<Self, NoSample> {
        if ratio > 0.0 && ratio <= 1.0 { Ok(Self((ratio * u64::MAX as f64) as u64)) } else { Err(NoSample(ratio)) }
    }
}

/// A door to the writer; cheap to clone.
#[derive(Debug, Clone)]
pub struct AccessLog(Arc<Door>);

#[derive(Debug)]
struct Door {
    queue: SyncSender<Message>,
    sample: Sample,
    dropped: Arc<AtomicU64>,
    reopen: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Message {
    Line(Box<Line>),
    /// There is news other than a line.
    Look,
    Stop,
}

/// The thread that writes.
#[derive(Debug)]
pub struct Writer {
    log: AccessLog,
    ended: Receiver<()>,
}

impl Writer {
    /// Opens the file and starts the thread.
    ///
    /// # Errors
    /// When either is not possible.
    pub fn start(settings: &Settings) -> io::Result<Self> {
        let out = Out::open(settings.file.clone())?;
        let (queue, messages) = mpsc::sync_channel(QUEUE);
        let (end, ended) = mpsc::channel();
        let door = Door { queue, sample: settings.sample, dropped: Arc::default(), reopen: Arc::default() };
        let (dropped, reopen) = (door.dropped.clone(), door.reopen.clone());
        thread::Builder::new().name("canary-access".into()).spawn(move || {
            write(out, &messages, &dropped, &reopen);
            drop(end);
        })?;
        Ok(Self { log: AccessLog(Arc::new(door)), ended })
    }

    /// The door to it.
    #[must_use]
    pub fn log(&self) -> AccessLog {
        self.log.clone()
    }

    /// Opens the file again, after it was renamed.
    pub fn reopen(&self) {
        self.log.0.reopen.store(true, Relaxed);
        // Full: then the writer is awake, and looks before its next line.
        let _ = self.log.0.queue.try_send(Message::Look);
    }

    /// Writes what is in the queue, as far as that is quick.
    pub fn stop(self) {
        if let Err(TrySendError::Full(_)) = self.log.0.queue.try_send(Message::Stop) {
            return; // Whoever reads the log has stopped to; the agent's end does not wait for that.
        }
        let _ = self.ended.recv_timeout(LAST);
    }
}

impl AccessLog {
    /// Lines that there was no room for, or that could not be written.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Relaxed)
    }

    /// What is to be said about a request, if it is one of those that are logged.
    pub(super) fn entry(
        &self,
        request: &Request<Incoming>,
        client: SocketAddr,
        frontend: Option<SocketAddr>,
    ) -> Option<Box<Entry>> {
        self.0.sample.holds().then(|| {
            let (headers, uri) = (request.headers(), request.uri());
            let header = |name: &HeaderName| text(headers, name);
            let forwarded = header(&FORWARDED_FOR).map(|before| format!("{before}, {}", client.ip()));
            Box::new(Entry {
                start: SystemTime::now(),
                method: request.method().to_string(),
                path: uri.path_and_query().map_or_else(|| "/".into(), ToString::to_string),
                authority: uri.authority().map(ToString::to_string).or_else(|| header(&HOST)),
                protocol: match request.version() {
                    Version::HTTP_10 => "HTTP/1.0",
                    Version::HTTP_2 => "HTTP/2",
                    _ => "HTTP/1.1",
                },
                user_agent: header(&USER_AGENT),
                request_id: header(&REQUEST_ID),
                forwarded_for: forwarded.unwrap_or_else(|| client.ip().to_string()),
                client,
                frontend,
                destination: None,
                endpoint: None,
                log: self.clone(),
            })
        })
    }

    fn write(&self, line: Box<Line>) {
        if self.0.queue.try_send(Message::Line(line)).is_err() {
            self.0.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// What a line says that is known before the answer.
#[derive(Debug)]
pub(super) struct Entry {
    start: SystemTime,
    method: String,
    path: String,
    authority: Option<String>,
    protocol: &'static str,
    user_agent: Option<String>,
    request_id: Option<String>,
    forwarded_for: String,
    client: SocketAddr,
    frontend: Option<SocketAddr>,
    /// Where the request was sent.
    pub(super) destination: Option<Destination>,
    /// The endpoint that was tried last.
    pub(super) endpoint: Option<SocketAddr>,
    log: AccessLog,
}

/// Where a rule sends a request.
#[derive(Debug)]
pub(super) struct Destination {
    /// Name of the rule.
    pub(super) rule: String,
    /// `outbound|PORT|VERSION|HOST`.
    pub(super) cluster: String,
}

impl Entry {
    /// Says it, now that the request has ended.
    pub(super) fn write(self: Box<Self>, ended: Ended, lasted: Duration, received: u64, sent: u64) {
        let log = self.log.clone();
        log.write(Box::new(Line { entry: self, ended, lasted, received, sent }));
    }
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<_> = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn write(mut out: Out, messages: &Receiver<Message>, dropped: &AtomicU64, reopen: &AtomicBool) {
    let mut sound = true;
    loop {
        let message = match messages.try_recv() {
            Ok(message) => message,
            Err(TryRecvError::Disconnected) => break,
            Err(TryRecvError::Empty) => {
                // Whoever looks into the file meanwhile sees all there is.
                sound = said(&out.to.flush(), sound);
                let Ok(message) = messages.recv() else { break };
                message
            }
        };
        if reopen.swap(false, Relaxed) {
            sound = said(&out.reopen(), sound);
        }
        match message {
            Message::Line(line) => {
                let written = out.line(&line);
                if written.is_err() {
                    dropped.fetch_add(1, Relaxed);
                }
                sound = said(&written, sound);
            }
            Message::Look => {}
            Message::Stop => break,
        }
    }
    said(&out.to.flush(), sound);
}

/// Complains about the first of several failures.
fn said(done: &io::Result<()>, sound: bool) -> bool {
    if let Err(error) = done
        && sound
    {
        tracing::error!(%error, "cannot write the access log, or not open it again: see to its directory and the space on its disk, then send SIGHUP");
    }
    done.is_ok()
}

/// The file.
struct Out {
    path: PathBuf,
    to: BufWriter<Box<dyn Write + Send>>,
}

impl Out {
    fn open(path: PathBuf) -> io::Result<Self> {
        let to: Box<dyn Write + Send> =
            if path.as_os_str() == "-" { Box::new(io::stdout()) } else { Box::new(appended(&path)?) };
        Ok(Self { path, to: BufWriter::new(to) })
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.to.flush()?;
        *self = Self::open(self.path.clone())?;
        Ok(())
    }

    fn line(&mut self, line: &Line) -> io::Result<()> {
        serde_json::to_writer(&mut self.to, line)?;
        self.to.write_all(b"\n")
    }
}

fn appended(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}
