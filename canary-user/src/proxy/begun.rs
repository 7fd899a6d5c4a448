//! A connection whose first bytes may be looked at: they are read again, by whoever speaks its protocol. What is written
//! to it in small pieces goes out together.
use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// Bytes that are taken at a time while looking. The head of most requests fits.
const LOOK: usize = 4 << 10;

thread_local! {
    // Connections keep what came, not room for what could come.
    static ROOM: RefCell<[u8; LOOK]> = const { RefCell::new([0; LOOK]) };
}

/// A stream, and what was read of it.
#[derive(Debug)]
pub(super) struct Begun {
    first: Vec<u8>,
    stream: TcpStream,
}

impl Begun {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { first: Vec::new(), stream }
    }

    /// What has been read.
    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }

    /// Waits for bytes and reads them; false at the end of the stream.
    pub(super) async fn more(&mut self) -> io::Result<bool> {
        poll_fn(|cx| {
            ROOM.with_borrow_mut(|room| {
                let mut room = ReadBuf::new(room);
                // Not `try_read`: this one knows that after less than there is room for, there is no more.
                ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
                self.first.extend_from_slice(room.filled());
                Poll::Ready(Ok(!room.filled().is_empty()))
            })
        })
        .await
    }

    /// Makes the end of the connection a reset: what the client has not taken is thrown away.
    pub(super) fn reset_at_end(&self) -> io::Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }

    /// Writes what the end of the stream will follow at once: the kernel waits for it, and sends both in one packet.
    pub(super) fn poll_write_last(&self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            let written = self.stream.try_io(Interest::WRITABLE, || {
                let nothing = &mut SendAncillaryBuffer::default();
                Ok(sendmsg(&self.stream, bufs, nothing, SendFlags::MORE | SendFlags::NOSIGNAL)?)
            });
            match written {
                Err(error) if is_pending(&error) => {}
                written => return Poll::Ready(written),
            }
        }
    }
}

fn is_pending(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

impl AsyncRead for Begun {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let len = this.first.len().min(buf.remaining());
        let rest = this.first.split_off(len);
        buf.put_slice(&this.first);
        this.first = rest;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.get_mut().stream);
        let len: usize = bufs.iter().map(|buf| buf.len()).sum();
        if len > LOOK {
            return stream.poll_write_vectored(cx, bufs);
        }
        // A head and a short body: to copy them together is cheaper than to have the kernel gather them.
        ROOM.with_borrow_mut(|room| {
            let mut rest = &mut room[..];
            for buf in bufs {
                if let Some((here, behind)) = std::mem::take(&mut rest).split_at_mut_checked(buf.len()) {
                    here.copy_from_slice(buf);
                    rest = behind;
                }
            }
            stream.poll_write(cx, room.get(..len).unwrap_or_default())
        })
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
