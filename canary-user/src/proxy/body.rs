//! Bodies on their way through: frame by frame, with their trailers, never collected.
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use thiserror::Error;

use super::{counts::Ending, upstream::Lease, wire::Hold};

/// The body of a request or an answer.
#[derive(Debug)]
pub(super) struct Body {
    source: Source,
    /// The endpoint's connection, which is free again when the body is over.
    lease: Option<Lease>,
    /// The client's connection is in use until then.
    hold: Option<Hold>,
    /// The request is over then, too.
    ending: Option<Ending>,
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
        Self { source: Source::Own(bytes), lease: None, hold: None, ending: None }
    }

    /// One that is passed on.
    pub(super) fn passed(body: Incoming, lease: Option<Lease>) -> Self {
        let mut body = Self { source: Source::Passed(body), lease, hold: None, ending: None };
        body.release_at_end();
        body
    }

    /// One that somebody makes on the way.
    pub(super) fn made(frames: impl Frames + 'static) -> Self {
        Self { source: Source::Made(Box::pin(frames)), lease: None, hold: None, ending: None }
    }

    /// Says that the client's connection is in use until it is over.
    pub(super) fn holding(mut self, hold: Hold) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Says how long the request took when it is over.
    pub(super) fn ending(mut self, ending: Ending) -> Self {
        self.ending = Some(ending);
        self
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
