//! Bodies on their way through: frame by frame, with their trailers, never collected.
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use thiserror::Error;

use super::{telemetry::Record, upstream::Lease, wire::Hold};

/// The body of a request or an answer.
#[derive(Debug)]
pub(super) struct Body {
    source: Source,
    /// The endpoint's connection, which is free again when the body is over.
    lease: Option<Lease>,
    /// The client's connection is in use until then.
    hold: Option<Hold>,
    /// The request that it answers, to be counted at the end.
    record: Option<Box<Record>>,
    /// Where its bytes are counted.
    counted: Option<Arc<AtomicU64>>,
}

#[derive(Debug)]
enum Source {
    Own(Bytes),
    Passed(Incoming),
    Made(Pin<Box<dyn Frames>>),
}

/// Why a body breaks off.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// What is passed on does.
    #[error(transparent)]
    Passed(#[from] hyper::Error),
    /// A copy fell behind, or what it is a copy of broke off.
    #[error("the copy of a request was not completed")]
    Copy,
}

/// Frames that are no plain passing on.
pub(super) trait Frames: hyper::body::Body<Data = Bytes, Error = Broken> + std::fmt::Debug + Send {}

impl<T: hyper::body::Body<Data = Bytes, Error = Broken> + std::fmt::Debug + Send> Frames for T {}

impl Body {
    /// One of the proxy's own; no bytes: none.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self { source: Source::Own(bytes), lease: None, hold: None, record: None, counted: None }
    }

    /// One that is passed on.
    pub(super) fn passed(body: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self { source: Source::Passed(body), lease, hold: None, record: None, counted: None };
        body.release_at_end();
        body
    }

    /// One that somebody makes on the way.
    pub(super) fn made(frames: impl Frames + 'static) -> Self {
        Self { source: Source::Made(Box::pin(frames)), lease: None, hold: None, record: None, counted: None }
    }

    /// Says that the client's connection is in use until it is over.
    pub(super) fn holding(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Counts its bytes.
    pub(super) fn counted(mut self, bytes: Option<Arc<AtomicU64>>) -> Self {
        self.counted = bytes;
        self
    }

    /// Counts the request that it answers when it is over.
    pub(super) fn recorded(mut self, mut record: Record) -> Self {
        use hyper::body::Body as _;
        match &self.source {
            Source::Own(bytes) => record.sent(bytes.len()),
            Source::Passed(_) | Source::Made(_) if self.is_end_stream() => {}
            Source::Passed(_) | Source::Made(_) => {
                record.begins();
                self.record = Some(Box::new(record));
            }
        }
        self
    }

    fn note(&mut self, frame: Option<&Result<Frame<Bytes>, Broken>>) {
        let bytes = frame.and_then(|frame| frame.as_ref().ok()?.data_ref()).map_or(0, Bytes::len);
        if let Some(counted) = &self.counted {
            counted.fetch_add(bytes as u64, Relaxed);
        }
        let Some(record) = &mut self.record else { return };
        record.sent(bytes);
        if let Some(Ok(frame)) = frame
            && let Some(trailers) = frame.trailers_ref()
        {
            record.trailed(trailers);
        }
        let broken = matches!(frame, Some(Err(_)));
        if (broken || frame.is_none() || hyper::body::Body::is_end_stream(self))
            && let Some(record) = self.record.take()
        {
            record.ends(broken);
        }
    }

    /// Given back at the end only: a connection with half an answer in it is closed.
    fn release_at_end(&mut self) {
        if hyper::body::Body::is_end_stream(self)
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let frame = match &mut this.source {
            Source::Own(bytes) if bytes.is_empty() => None,
            Source::Own(bytes) => Some(Ok(Frame::data(std::mem::take(bytes)))),
            Source::Passed(body) => ready!(Pin::new(body).poll_frame(cx)).map(|frame| frame.map_err(Broken::Passed)),
            Source::Made(frames) => ready!(frames.as_mut().poll_frame(cx)),
        };
        match &frame {
            None => {
                if let Some(lease) = this.lease.take() {
                    lease.give_back();
                }
            }
            Some(Err(_)) => this.lease = None,
            // Whoever knows the length does not ask for the end.
            Some(Ok(_)) => this.release_at_end(),
        }
        this.note(frame.as_ref());
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Passed(body) => body.is_end_stream(),
            Source::Made(frames) => frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Passed(body) => body.size_hint(),
            Source::Made(frames) => frames.size_hint(),
        }
    }
}
