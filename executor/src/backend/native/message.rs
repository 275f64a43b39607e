//! What the processes of one run tell each other, over a socket pair that keeps messages apart (`SOCK_SEQPACKET`).
//!
//! The launcher's end closing is a message too: everybody in the sandbox ends then, also if the launcher was killed.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use crate::Error;
use crate::outcome::Counted as Usage;

/// Why a process of the sandbox gave up before the command ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of error this is for the caller.
    pub kind: Kind,
    /// What was being done: `mount /proc`. Empty where the kind says it.
    pub what: String,
    /// Why that was not to be.
    pub cause: Cause,
}

/// Why something failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// The kernel said so: an errno.
    Kernel(i32),
    /// We say so.
    Words(String),
}

/// Kinds of [`Failure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A step of setting up.
    Setup,
    /// The user namespace.
    UserNamespace,
    /// The program is not there.
    NotFound,
    /// The program is there and cannot be executed.
    CannotExecute,
}

/// What the sandbox tells the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Process 1 has this pid on the host.
    Started(i32),
    /// The sender is in a new user namespace and waits for its ids to be mapped.
    MapMe,
    /// This directory or file was made in a kept upper layer, only to mount onto; relative to the root.
    MountPoint(PathBuf),
    /// It could not have something that was not required; in words.
    Missing(String),
    /// It did not come to the command.
    Failed(Failure),
    /// The command, a job of the terminal, was stopped by this signal.
    Stopped(u8),
    /// The command ended with this raw wait status; what it and its children used.
    Ended(i32, Usage),
    /// A container has come so far: 1 when its root is built, 2 when it waits for its start.
    Ready(u8),
    /// Comes with the near end of the sandbox's terminal.
    Terminal,
    /// Comes with the user and the network namespace that the command will be in; the sender waits until somebody has joined them.
    Network,
    /// Comes with one of the sockets of [`crate::Doors`], in their order.
    Door,
}

/// What the launcher tells the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The ids are mapped, or process 1 may go on.
    Continue,
    /// Send this signal to the command.
    Signal(u8),
}

/// Names what was being done when a call failed.
pub trait Doing<T> {
    /// Turns the error into a [`Failure`] of kind [`Kind::Setup`].
    fn doing(self, what: impl Into<String>) -> Result<T, Failure>;
}

impl<T, E: Into<io::Error>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Kind::Setup, &error.into(), what))
    }
}

impl Failure {
    /// Something could not be done.
    pub fn new(kind: Kind, error: &io::Error, what: impl Into<String>) -> Self {
        let cause = error.raw_os_error().map_or_else(|| Cause::Words(error.to_string()), Cause::Kernel);
        Self { kind, what: what.into(), cause }
    }

    /// A step of setting up that we refuse.
    pub fn refused(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { kind: Kind::Setup, what: what.into(), cause: Cause::Words(why.into()) }
    }

    /// A failure in words that are ready.
    pub fn of(error: Error) -> Self {
        match error {
            Error::Setup { action, source } => Self::new(Kind::Setup, &source, action),
            error => Self::refused("go on", error.to_string()),
        }
    }

    /// The cause, as an error.
    pub fn source(&self) -> io::Error {
        match &self.cause {
            Cause::Kernel(errno) => io::Error::from_raw_os_error(*errno),
            Cause::Words(words) => io::Error::other(words.clone()),
        }
    }
}

/// One end of the pair.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Longest message; a failure with two long paths fits.
const LONGEST: usize = 16 * 1024;

impl Channel {
    /// A connected pair, closed at `exec`.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SocketFlags::CLOEXEC;
        let (one, other) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Tells the launcher. That it has gone is noticed elsewhere.
    pub fn report(&self, report: &Report) {
        let mut bytes = report.encode();
        bytes.truncate(LONGEST);
        let _ = self.send(&bytes);
    }

    /// Tells the sandbox. That it has gone is noticed elsewhere.
    pub fn order(&self, order: Order) {
        let _ = self.send(&match order {
            Order::Continue => [b'c', 0],
            Order::Signal(signal) => [b's', signal],
        });
    }

    /// Tells the launcher and gives it descriptors: two at most.
    pub fn report_with(&self, report: &Report, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = report.encode();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
        let parts = [IoSlice::new(&bytes)];
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &parts, &mut ancillary, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Nothing goes through any more, in either direction: the other side sees it as our end.
    pub fn close(&self) {
        let _ = rustix::net::shutdown(&self.0, rustix::net::Shutdown::Both);
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::io::retry_on_intr(|| rustix::net::send(&self.0, bytes, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// The next report, and the descriptors that came with it; `None` once every process of the sandbox has gone.
    pub fn next_report(&self) -> io::Result<Option<(Report, Vec<OwnedFd>)>> {
        let mut buffer = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::io::retry_on_intr(|| {
            rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        });
        let length = match received {
            Ok(received) => received.bytes,
            Err(Errno::CONNRESET) => 0,
            Err(error) => return Err(error.into()),
        };
        if length == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let report = Report::decode(&buffer[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some((report, fds)))
    }

    /// The next order; `None` once the launcher has gone.
    pub fn next_order(&self) -> io::Result<Option<Order>> {
        let mut buffer = [0; 2];
        match *self.receive(&mut buffer)? {
            [b'c', _] => Ok(Some(Order::Continue)),
            [b's', signal] => Ok(Some(Order::Signal(signal))),
            [] => Ok(None),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
        match rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut *buffer, RecvFlags::empty())) {
            Ok((length, _)) => Ok(&buffer[..length]),
            Err(Errno::CONNRESET) => Ok(&[]),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Report {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self {
            Self::Started(pid) => {
                bytes.push(b'p');
                bytes.extend(pid.to_le_bytes());
            }
            Self::MapMe => bytes.push(b'm'),
            Self::MountPoint(path) => {
                bytes.push(b't');
                bytes.extend(path.as_os_str().as_bytes());
            }
            Self::Missing(what) => {
                bytes.push(b'w');
                bytes.extend(what.bytes());
            }
            Self::Failed(failure) => {
                bytes.push(b'f');
                bytes.push(failure.kind as u8);
                let (errno, words) = match &failure.cause {
                    Cause::Kernel(errno) => (*errno, ""),
                    Cause::Words(words) => (0, words.as_str()),
                };
                bytes.extend(errno.to_le_bytes());
                bytes.extend(words.bytes().chain([0]).chain(failure.what.bytes()));
            }
            Self::Ended(status, usage) => {
                bytes.push(b'e');
                bytes.extend(status.to_le_bytes());
                let times = [usage.user, usage.system].map(|time| time.as_micros() as u64);
                let counts = [usage.largest_process, usage.major_faults, usage.minor_faults];
                times.iter().chain(&counts).for_each(|number| bytes.extend(number.to_le_bytes()));
            }
            Self::Stopped(signal) => bytes.extend([b'z', *signal]),
            Self::Ready(stage) => bytes.extend([b'r', *stage]),
            Self::Terminal => bytes.push(b'y'),
            Self::Network => bytes.push(b'n'),
            Self::Door => bytes.push(b'd'),
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&tag, rest) = bytes.split_first()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(match tag {
            b'p' => Self::Started(i32::from_le_bytes(rest.try_into().ok()?)),
            b'm' => Self::MapMe,
            b't' => Self::MountPoint(PathBuf::from(OsStr::from_bytes(rest))),
            b'w' => Self::Missing(text(rest)),
            b'f' => {
                let (&kind, rest) = rest.split_first()?;
                let kinds = [Kind::Setup, Kind::UserNamespace, Kind::NotFound, Kind::CannotExecute];
                let kind = kinds.into_iter().find(|candidate| *candidate as u8 == kind)?;
                let (errno, what) = rest.split_at_checked(4)?;
                let end = what.iter().position(|byte| *byte == 0)?;
                let cause = match i32::from_le_bytes(errno.try_into().ok()?) {
                    0 => Cause::Words(text(&what[..end])),
                    errno => Cause::Kernel(errno),
                };
                Self::Failed(Failure { kind, what: text(&what[end + 1..]), cause })
            }
            b'e' => {
                let number = |at: usize| Some(u64::from_le_bytes(rest.get(at..at + 8)?.try_into().ok()?));
                let status = i32::from_le_bytes(rest.get(..4)?.try_into().ok()?);
                let time = |at| Some(std::time::Duration::from_micros(number(at)?));
                let usage = Usage {
                    user: time(4)?,
                    system: time(12)?,
                    largest_process: number(20)?,
                    major_faults: number(28)?,
                    minor_faults: number(36)?,
                };
                Self::Ended(status, usage)
            }
            b'r' => Self::Ready(*rest.first()?),
            b'z' => Self::Stopped(*rest.first()?),
            b'y' => Self::Terminal,
            b'n' => Self::Network,
            b'd' => Self::Door,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_is_reported_arrives_in_order_and_then_the_end() {
        let (sandbox, launcher) = Channel::pair().unwrap();
        let denied = io::Error::from_raw_os_error(libc::EACCES);
        let usage =
            Usage { user: Duration::from_micros(1234), largest_process: 1 << 40, minor_faults: 7, ..Usage::default() };
        let reports = [
            Report::Started(17),
            Report::MapMe,
            Report::MountPoint(PathBuf::from("build/out")),
            Report::Missing("limits: no cgroup".to_owned()),
            Report::Failed(Failure::new(Kind::CannotExecute, &denied, "look into `/x`")),
            Report::Failed(Failure::refused("choose the processors", "there are no so many")),
            Report::Ended(256, usage),
        ];
        reports.iter().for_each(|report| sandbox.report(report));
        drop(sandbox);
        for report in reports {
            assert_eq!(launcher.next_report().unwrap().unwrap().0, report);
        }
        assert!(launcher.next_report().unwrap().is_none());
    }

    #[test]
    fn descriptors_come_with_what_they_are_for() {
        let (sandbox, launcher) = Channel::pair().unwrap();
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        sandbox.report_with(&Report::Network, &[writer.as_fd(), reader.as_fd()]).unwrap();
        let (report, fds) = launcher.next_report().unwrap().unwrap();
        assert_eq!((report, fds.len()), (Report::Network, 2));
        rustix::io::write(&fds[0], b"x").unwrap();
        let mut byte = [0];
        assert_eq!((rustix::io::read(&fds[1], &mut byte).unwrap(), byte), (1, *b"x"));
    }

    #[test]
    fn orders_arrive_and_so_does_the_launchers_death() {
        let (sandbox, launcher) = Channel::pair().unwrap();
        launcher.order(Order::Continue);
        launcher.order(Order::Signal(15));
        drop(launcher);
        assert_eq!(sandbox.next_order().unwrap(), Some(Order::Continue));
        assert_eq!(sandbox.next_order().unwrap(), Some(Order::Signal(15)));
        assert_eq!(sandbox.next_order().unwrap(), None);
    }

    #[test]
    fn a_cut_report_is_no_report() {
        let whole = Report::Ended(0, Usage::default()).encode();
        for length in 0..whole.len() {
            assert_eq!(Report::decode(&whole[..length]), None);
        }
    }
}
