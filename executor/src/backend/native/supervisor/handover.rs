//! How the listener gets from the command's process, which makes it, to process 1, which answers on it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::install_filter;

/// A pair of sockets, made before the command's process is forked off; each side then uses its end.
#[derive(Debug)]
pub struct Handover {
    giver: OwnedFd,
    taker: OwnedFd,
}

impl Handover {
    /// Two descriptors, both closed by `exec`.
    pub fn new() -> io::Result<Self> {
        let (giver, taker) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(io::Error::from)?;
        Ok(Self { giver, taker })
    }

    /// In the command's process, as the last thing before it executes: installs the filter and hands its listener over.
    pub fn give(self) -> io::Result<()> {
        let Self { giver, taker } = self;
        drop(taker);
        let listener = install_filter()?;
        let listeners = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&listeners));
        sendmsg(&giver, &[IoSlice::new(b"l")], &mut ancillary, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// In process 1: waits for the listener. An error if the command's process ended before it had one.
    pub fn take(self) -> io::Result<OwnedFd> {
        let Self { giver, taker } = self;
        drop(giver);
        let mut byte = [0];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        rustix::io::retry_on_intr(|| {
            recvmsg(&taker, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })?;
        let rights = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        rights.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
