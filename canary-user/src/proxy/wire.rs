//! The bytes of an HTTP/1 client, watched before the parser has them: strict where leniency lets two parsers disagree
//! about where a request ends, and with an eye on the clock.
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use self::{framing::Framing, patience::Patience};
use super::{
    begun::Begun,
    limited::{Limited, Reason},
};

pub(super) mod framing;
mod patience;

/// What the one who answers tells the wire.
#[derive(Debug, Default)]
pub(super) struct Control {
    active: AtomicUsize,
    raw: AtomicBool,
    closing: AtomicBool,
    leaving: AtomicBool,
    stalled: AtomicBool,
}

/// As long as it lives, a request is being answered: silence is no idleness.
#[derive(Debug)]
pub(super) struct Hold(Arc<Control>);

impl Control {
    pub(super) fn hold(self: &Arc<Self>) -> Hold {
        self.active.fetch_add(1, Relaxed);
        Hold(self.clone())
    }

    /// From here on the bytes are no HTTP.
    pub(super) fn raw(&self) {
        self.raw.store(true, Relaxed);
    }

    /// The connection ends with the answer that is under way.
    pub(super) fn closing(&self) {
        self.closing.store(true, Relaxed);
    }

    /// The proxy stops: the next answer is the connection's last one.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Whether the proxy stops.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Whether the body of a request has made no progress for too long.
    pub(super) fn has_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.active.load(Relaxed) > 0
    }

    /// What is left to write is the end of the connection's last answer.
    fn finished(&self) -> bool {
        self.closing.load(Relaxed) && self.active.load(Relaxed) == 0 && !self.raw.load(Relaxed)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
    }
}

/// How long a client may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// For a head, and before the first one.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// Between pieces of a body.
    pub(super) body: Duration,
}

/// A client's connection.
#[derive(Debug)]
pub(super) struct Wire {
    inner: Begun,
    framing: Framing,
    control: Arc<Control>,
    limits: Limits,
    /// Since when the client takes its time.
    since: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    reading: Patience,
    writing: Patience,
    limited: Arc<Limited>,
}

impl Wire {
    pub(super) fn new(inner: Begun, control: Arc<Control>, limits: Limits, limited: Arc<Limited>) -> Self {
        Self {
            inner,
            framing: Framing::default(),
            control,
            limits,
            since: Instant::now(),
            sleep: None,
            reading: Patience::default(),
            writing: Patience::default(),
            limited,
        }
    }

    /// Nothing came: perhaps the end of the connection.
    fn waited(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let (in_head, between) = (self.framing.in_head(), self.framing.between());
        if in_head || between {
            ready!(self.overdue(cx));
            if !in_head {
                return Poll::Ready(Ok(())); // As if the client had ended it.
            }
            self.limited.count(Reason::SlowHead);
        } else {
            ready!(self.reading.poll_over(self.limits.body, cx));
            self.limited.count(Reason::SlowBody);
            self.control.stalled.store(true, Relaxed);
        }
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends a connection whose client takes nothing of what it asked for.
    fn wrote(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() || self.control.raw.load(Relaxed) {
            self.writing.progress();
            return written;
        }
        ready!(self.writing.poll_over(self.limits.body, cx));
        self.limited.count(Reason::SlowReader);
        self.inner.reset_at_end()?;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ready when the client took too long.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = match (self.framing.in_head(), self.framing.between()) {
            (true, _) => self.limits.head,
            (_, true) if self.framing.heads() == 0 => self.limits.head,
            (_, true) => self.limits.idle,
            _ => return Poll::Pending,
        };
        // One timer goes on from request to request; it is set anew only when it fires, or would fire too late.
        let mut due = self.since + limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due)));
        if sleep.deadline() > due {
            sleep.as_mut().reset(due);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            let now = Instant::now();
            // Nobody asks again when an answer is complete, so the timer runs beside those that are open.
            if self.framing.between() && self.control.active.load(Relaxed) > 0 {
                self.since = now;
                due = now + limit;
            } else if now >= due {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(due);
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        if this.control.raw.load(Relaxed) {
            return read;
        }
        if read.is_pending() {
            return this.waited(cx);
        }
        this.reading.progress();
        let head = (this.framing.in_head(), this.framing.heads());
        if let Some(bytes) = buf.filled_mut().get_mut(before..) {
            this.framing.feed(bytes);
        }
        // A head that comes byte by byte gets no more time for each of them.
        if !head.0 || head != (this.framing.in_head(), this.framing.heads()) {
            this.since = Instant::now();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.written();
        let written = if this.control.finished() {
            this.inner.poll_write_last(cx, &[io::IoSlice::new(buf)])
        } else {
            Pin::new(&mut this.inner).poll_write(cx, buf)
        };
        this.wrote(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.written();
        let written = if this.control.finished() {
            this.inner.poll_write_last(cx, bufs)
        } else {
            Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
        };
        this.wrote(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl Wire {
    fn written(&mut self) {
        if self.framing.between() {
            self.since = Instant::now();
        }
    }
}
