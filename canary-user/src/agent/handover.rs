//! One agent takes the place of another: sockets, then locks, then the work, and no connection is refused.
//!
//! The running agent listens on a socket of its own beside that of the API ([`beside`]), for its own user alone. The new
//! one (`--take-over`) connects and both say, in turn:
//!
//! | who | what | what follows |
//! |---|---|---|
//! | new | `canary 1` | the version of this conversation |
//! | old | `s` with sockets, …, `e` | both have them; only the old one accepts |
//! | new | `g` | it has read its configuration. The old one ends its loop and gives up its locks; its proxy goes on |
//! | old | `f` | the locks are free |
//! | new | `w` | the new one works. The old one accepts nothing more, finishes what is open, and ends |
//!
//! Whoever hears an end instead stops there: before `g` the old one goes on as if nothing had been.
use std::{
    ffi::OsStr,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            fs::PermissionsExt,
            net::{SocketAddr, UnixDatagram, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::proxy::sockets::{Socket, inherited};

#[cfg(test)]
mod tests;

const GREETING: &[u8] = b"canary 1";
const SOCKETS: u8 = b's';
const END: u8 = b'e';
const GO: u8 = b'g';
const FREE: u8 = b'f';
const WORKS: u8 = b'w';
/// Descriptors in one message; the kernel takes 253.
pub(super) const AT_ONCE: usize = 128;
/// Longest time for the other side's next word.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest time until the new agent works: programs are loaded, and the first pass is done.
const FIRST_PASS: Duration = Duration::from_mins(2);

/// Why nothing was handed over.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The running agent does not speak.
    #[error("the running agent does not hand over: it does not answer on {path}")]
    Silent {
        /// Where it should.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It said something else, or nothing.
    #[error("the other agent broke off the hand-over before {before}")]
    BrokenOff {
        /// What should have come.
        before: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is no socket to be asked at.
    #[error("cannot listen on {path}")]
    Bind {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The socket of the hand-over, by that of the API.
#[must_use]
pub fn beside(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".handover");
    name.into()
}

/// The side of the running agent, before anybody asks.
///
/// # Errors
/// When the place is taken or not writable.
pub fn listen(path: &Path) -> Result<tokio::net::UnixListener, HandOverError> {
    let failed = |source| HandOverError::Bind { path: path.into(), source };
    super::lock::remove_stale(path).map_err(|error| failed(io::Error::other(error)))?;
    let listener = tokio::net::UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// The new agent, as the running one sees it.
#[derive(Debug)]
pub struct Successor(UnixStream);

impl Successor {
    /// Hands `sockets` to whoever has connected, and waits until it has all that it needs to begin.
    ///
    /// # Errors
    /// When it breaks off: nothing has changed.
    pub fn meet(mut stream: UnixStream, sockets: &[Socket]) -> Result<Self, HandOverError> {
        let broken = |before| move |source| HandOverError::BrokenOff { before, source };
        limit(&stream, PATIENCE).map_err(broken("its greeting"))?;
        let mut greeting = [0; GREETING.len()];
        stream.read_exact(&mut greeting).map_err(broken("its greeting"))?;
        if greeting != GREETING {
            return Err(broken("a greeting of this version")(io::ErrorKind::Unsupported.into()));
        }
        for some in sockets.chunks(AT_ONCE) {
            let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
            send(&stream, &[SOCKETS], &some).map_err(broken("it had the sockets"))?;
        }
        stream.write_all(&[END]).map_err(broken("it had the sockets"))?;
        hear(&mut stream, GO).map_err(broken("it was ready"))?;
        Ok(Self(stream))
    }

    /// Says that the locks are free, and waits until it works.
    ///
    /// # Errors
    /// When it ends before.
    pub fn let_work(mut self) -> Result<(), HandOverError> {
        let broken = |source| HandOverError::BrokenOff { before: "it worked", source };
        self.0.write_all(&[FREE]).map_err(broken)?;
        limit(&self.0, FIRST_PASS).map_err(broken)?;
        hear(&mut self.0, WORKS).map_err(broken)
    }
}

/// The running agent, as the new one sees it.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
}

impl Predecessor {
    /// Asks the agent of `socket` for its sockets; `None` when there is none.
    ///
    /// # Errors
    /// When there is one that does not hand over.
    pub fn ask(socket: &Path) -> Result<Option<(Self, Vec<Socket>)>, HandOverError> {
        let path = beside(socket);
        let mut stream = match UnixStream::connect(&path) {
            Ok(stream) => stream,
            // Who holds the lock is found out by whoever takes it.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(source) => return Err(HandOverError::Silent { path, source }),
        };
        let silent = |source| HandOverError::Silent { path: path.clone(), source };
        limit(&stream, PATIENCE).map_err(silent)?;
        stream.write_all(GREETING).map_err(silent)?;
        let mut sockets = Vec::new();
        loop {
            let (word, some) = receive(&stream).map_err(silent)?;
            sockets.extend(inherited::sockets(some.into_iter()));
            match word {
                Some(SOCKETS) => {}
                Some(END) => return Ok(Some((Self { stream }, sockets))),
                _ => return Err(silent(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    /// Has it end its loop and give up its locks.
    ///
    /// # Errors
    /// When it does not.
    pub fn let_go(&mut self) -> Result<(), HandOverError> {
        let broken = |source| HandOverError::BrokenOff { before: "its locks were free", source };
        self.stream.write_all(&[GO]).map_err(broken)?;
        // Its loop may be in the middle of a pass.
        limit(&self.stream, FIRST_PASS).map_err(broken)?;
        hear(&mut self.stream, FREE).map_err(broken)
    }

    /// Says that this agent works.
    ///
    /// # Errors
    /// When it is gone.
    pub fn relieve(mut self) -> Result<(), HandOverError> {
        self.stream.write_all(&[WORKS]).map_err(|source| HandOverError::BrokenOff { before: "it was relieved", source })
    }
}

fn limit(stream: &UnixStream, time: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(time))?;
    stream.set_write_timeout(Some(time))
}

fn hear(stream: &mut UnixStream, word: u8) -> io::Result<()> {
    let mut heard = [0];
    stream.read_exact(&mut heard)?;
    if heard == [word] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Sends bytes, and descriptors with them, to the unix socket of datagrams at `path`: a service manager's, whose path
/// begins with `@` when it is no file.
pub(super) fn send_to(path: &OsStr, text: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    send(socket, text.as_bytes(), descriptors)
}

fn send(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut with = SendAncillaryBuffer::new(&mut space);
    if !with.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut with, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One byte, or the end, and the descriptors that came with it.
fn receive(stream: &UnixStream) -> io::Result<(Option<u8>, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut with = RecvAncillaryBuffer::new(&mut space);
    let mut word = [0];
    let heard = recvmsg(stream, &mut [IoSliceMut::new(&mut word)], &mut with, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = with.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    Ok(((heard.bytes > 0).then_some(word[0]), descriptors.flatten().collect()))
}
