//! A service manager with a store of file descriptors, as systemd has one: it keeps what an agent sends to it, and starts
//! the next agent with it.
use std::{
    io::IoSliceMut,
    mem::MaybeUninit,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use rustix::{
    io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use crate::cleanup::Directory;

/// Kept descriptors have numbers from here on: below is where the next agent finds them.
const ABOVE: i32 = 200;
/// Moves kept descriptors to 3 and following, and then becomes the program.
const HAND_IN: &str = "to=3; for from in $KEPT; do eval \"exec $to<&$from $from<&-\"; to=$((to+1)); done; \
                       export LISTEN_PID=$$ LISTEN_FDS=$((to-3)); unset KEPT; exec \"$0\" \"$@\"";

/// The manager.
#[derive(Debug)]
pub struct Manager {
    socket: UnixDatagram,
    kept: Vec<OwnedFd>,
    directory: Directory,
}

impl Manager {
    /// One that keeps nothing yet.
    ///
    /// # Errors
    /// When its socket cannot be made.
    pub fn new() -> Result<Self> {
        let directory = Directory::temporary()?;
        let socket = UnixDatagram::bind(directory.path().join("notify")).context("the manager's socket")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, kept: Vec::new(), directory })
    }

    /// Takes what was sent so far; how many descriptors it keeps.
    ///
    /// # Errors
    /// When a message cannot be read.
    pub fn listen(&mut self) -> Result<usize> {
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
            let mut with = RecvAncillaryBuffer::new(&mut space);
            let mut text = [0; 4_096];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let read = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut text)], &mut with, flags) {
                Err(rustix::io::Errno::AGAIN) => return Ok(self.kept.len()),
                read => read?.bytes,
            };
            let text = String::from_utf8_lossy(text.get(..read).unwrap_or_default()).into_owned();
            if text.contains("FDSTOREREMOVE=1") {
                self.kept.clear();
            }
            for message in with.drain() {
                let RecvAncillaryMessage::ScmRights(descriptors) = message else { continue };
                ensure!(text.contains("FDSTORE=1") && text.contains("FDNAME=canary-proxy"), "sockets with {text}");
                for descriptor in descriptors {
                    self.kept.push(fcntl_dupfd_cloexec(&descriptor, ABOVE)?);
                }
            }
        }
    }

    /// A command that starts `program` as this manager would.
    ///
    /// # Errors
    /// When descriptors cannot be handed in.
    pub fn wrap(&mut self, program: &PathBuf, mut shell: Command) -> Result<Command> {
        self.listen()?;
        for descriptor in &self.kept {
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let numbers: Vec<String> = self.kept.iter().map(|it| it.as_raw_fd().to_string()).collect();
        shell.args(["-c", HAND_IN]).arg(program);
        shell.env("KEPT", numbers.join(" ")).env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        Ok(shell)
    }
}
