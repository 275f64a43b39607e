//! Bytes that go through the launcher: output that is counted, and a terminal of the sandbox's own.
//!
//! Everything else goes between the command and the caller directly, and no byte is copied.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, Termios};

const BUFFER: usize = 64 * 1024;

/// Counts what is printed.
#[derive(Debug, Clone)]
struct Meter {
    printed: Arc<AtomicU64>,
    most: u64,
    /// Written to once, when it was too much.
    alarm: Arc<OwnedFd>,
}

impl Meter {
    /// How many of these bytes may still be shown.
    fn admit(&self, length: usize) -> usize {
        let before = self.printed.fetch_add(length as u64, Ordering::Relaxed);
        let left = self.most.saturating_sub(before);
        if (length as u64) > left {
            // Full means that it was said already.
            let _ = rustix::io::write(&*self.alarm, b"!");
        }
        length.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// Passes on until the other side has ended.
#[derive(Debug)]
pub struct Relay {
    meter: Option<Meter>,
    /// Readable once too much was printed.
    alarm: Option<OwnedFd>,
    threads: Vec<JoinHandle<()>>,
    terminal: Option<Near>,
}

/// The near end of a terminal, and what must be put back.
#[derive(Debug)]
struct Near {
    terminal: Arc<OwnedFd>,
    /// Closing it ends the thread that reads the keyboard.
    keyboard: Option<(OwnedFd, JoinHandle<()>)>,
    before: Option<Termios>,
}

impl Relay {
    /// Nothing goes through it yet; `most` bytes may.
    pub fn new(most: Option<u64>) -> io::Result<Self> {
        let (mut meter, mut alarm) = (None, None);
        if let Some(most) = most {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            meter = Some(Meter { printed: Arc::default(), most, alarm: Arc::new(writer) });
            alarm = Some(reader);
        }
        Ok(Self { meter, alarm, threads: Vec::new(), terminal: None })
    }

    /// Readable once too much was printed.
    pub fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.alarm.as_ref().map(AsFd::as_fd)
    }

    /// Whether output is to be counted.
    pub fn counts(&self) -> bool {
        self.meter.is_some()
    }

    /// Passes on from a pipe, while counting. To be called when the sandbox has been forked off: it starts a thread.
    pub fn count(&mut self, from: OwnedFd, to: OwnedFd) {
        let meter = self.meter.clone();
        self.threads.push(std::thread::spawn(move || pass(&from, &to, meter.as_ref())));
    }

    /// Joins the caller's terminal, or whatever its stdin and stdout are, with the sandbox's.
    pub fn join(&mut self, terminal: OwnedFd) -> io::Result<()> {
        let stdin = io::stdin();
        let stdin = stdin.as_fd();
        let terminal = Arc::new(terminal);
        let mut near = Near { terminal: Arc::clone(&terminal), keyboard: None, before: None };
        near.fit();
        if rustix::termios::isatty(stdin) {
            let mut raw = rustix::termios::tcgetattr(stdin)?;
            near.before = Some(raw.clone());
            raw.make_raw();
            rustix::termios::tcsetattr(stdin, OptionalActions::Now, &raw)?;
        }
        let (stop, stopper) = pipe_with(PipeFlags::CLOEXEC)?;
        let keyboard = stdin.try_clone_to_owned()?;
        let far = Arc::clone(&terminal);
        let thread = std::thread::spawn(move || type_in(&keyboard, &far, &stop));
        near.keyboard = Some((stopper, thread));
        self.terminal = Some(near);
        let (stdout, meter) = (io::stdout().as_fd().try_clone_to_owned()?, self.meter.clone());
        self.threads.push(std::thread::spawn(move || pass(&terminal, &stdout, meter.as_ref())));
        Ok(())
    }

    /// Gives the sandbox's terminal the size of the caller's.
    pub fn fit(&self) {
        if let Some(near) = &self.terminal {
            near.fit();
        }
    }

    /// Waits until all has been passed on: to be called when the sandbox has gone.
    pub fn finish(&mut self) {
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        self.terminal = None;
    }
}

impl Near {
    fn fit(&self) {
        for number in 0..3 {
            let size = match number {
                0 => rustix::termios::tcgetwinsize(io::stdin()),
                1 => rustix::termios::tcgetwinsize(io::stdout()),
                _ => rustix::termios::tcgetwinsize(io::stderr()),
            };
            if let Ok(size) = size {
                let _ = rustix::termios::tcsetwinsize(&*self.terminal, size);
                return;
            }
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        if let Some((stopper, thread)) = self.keyboard.take() {
            drop(stopper);
            let _ = thread.join();
        }
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Passes on until there is no more. What nobody wants any more, or what is too much, is read and thrown away: a program that prints
/// does not hang for it.
fn pass(from: &OwnedFd, to: &OwnedFd, meter: Option<&Meter>) {
    let mut buffer = vec![0; BUFFER];
    let mut wanted = true;
    loop {
        let length = match rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..])) {
            // EIO: the last process with the terminal has closed it.
            Ok(0) | Err(_) => return,
            Ok(length) => length,
        };
        let admitted = meter.map_or(length, |meter| meter.admit(length));
        wanted = wanted && write_all(to, &buffer[..admitted]).is_ok();
    }
}

/// Passes keys on until the end of stdin, or until `stop` is closed.
fn type_in(from: &OwnedFd, to: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = vec![0; 4096];
    loop {
        let mut waited = [
            PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
        ];
        match rustix::event::poll(&mut waited, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        if !waited[1].revents().is_empty() {
            return;
        }
        match rustix::io::read(from, &mut buffer[..]) {
            Ok(0) => {
                // What a keyboard says for the end of input: Ctrl-D.
                let _ = write_all(to, &[4]);
                return;
            }
            Ok(length) if write_all(to, &buffer[..length]).is_ok() => {}
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
            Ok(_) | Err(_) => return,
        }
    }
}

fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                // The caller's stdout may be non-blocking, for reasons of its own.
                let mut waited = [PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT)];
                // Signals of the launcher, a new size of the terminal for one, may interrupt it.
                rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
