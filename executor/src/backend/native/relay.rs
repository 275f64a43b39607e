//! Bytes that go through the launcher: output that is counted, and a terminal of the sandbox's own.
//!
//! Everything else goes between the command and the caller directly, and no byte is copied.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{OptionalActions, SpecialCodeIndex, Termios};

use super::terminal::Forwarding;

const BUFFER: usize = 64 * 1024;
/// What goes into a pipe at once if there is room for anything: pipe(7), `PIPE_BUF`.
const PIECE: usize = 4096;
/// How long readers may take for what was printed last by a command that we have ended.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the launcher is told of what goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// More was printed than may be.
    TooMuch,
    /// Nobody reads any more what the terminal shows.
    Gone,
}

/// Counts what is printed.
#[derive(Debug, Clone)]
struct Meter {
    printed: Arc<AtomicU64>,
    most: u64,
}

impl Meter {
    /// How many of these bytes may still be shown.
    fn admit(&self, length: usize, wires: &Wires) -> usize {
        let before = self.printed.fetch_add(length as u64, Ordering::Relaxed);
        let left = self.most.saturating_sub(before);
        if (length as u64) > left {
            wires.tell(News::TooMuch);
        }
        length.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

/// The threads' ends of what joins them to the launcher.
#[derive(Debug, Clone)]
struct Wires {
    /// A byte for each [`News`].
    news: Arc<OwnedFd>,
    /// Readable when they are to end.
    stop: Arc<OwnedFd>,
    /// Closed when all have ended.
    _alive: Arc<OwnedFd>,
}

impl Wires {
    fn tell(&self, news: News) {
        // Full means that it was said already.
        let _ = rustix::io::write(&*self.news, &[news as u8]);
    }
}

/// The launcher's ends.
#[derive(Debug)]
struct Ends {
    news: OwnedFd,
    stop: OwnedFd,
    over: OwnedFd,
}

/// Passes on until the other side has ended.
#[derive(Debug)]
pub struct Relay {
    meter: Option<Meter>,
    /// There is something to pass on.
    ends: Option<Ends>,
    /// For threads that are still to be started.
    wires: Option<Wires>,
    threads: Vec<JoinHandle<io::Result<()>>>,
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
    /// Nothing goes through it yet; `most` bytes may. `has_terminal`: one will be joined.
    pub fn new(most: Option<u64>, has_terminal: bool) -> io::Result<Self> {
        let meter = most.map(|most| Meter { printed: Arc::default(), most });
        let (mut ends, mut wires) = (None, None);
        if meter.is_some() || has_terminal {
            let (news, teller) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            let (stop, stopper) = pipe_with(PipeFlags::CLOEXEC)?;
            let (over, alive) = pipe_with(PipeFlags::CLOEXEC)?;
            ends = Some(Ends { news, stop: stopper, over });
            wires = Some(Wires { news: Arc::new(teller), stop: Arc::new(stop), _alive: Arc::new(alive) });
        }
        Ok(Self { meter, ends, wires, threads: Vec::new(), terminal: None })
    }

    /// Readable when there are [`News`].
    pub fn alarm(&self) -> Option<BorrowedFd<'_>> {
        self.ends.as_ref().map(|ends| ends.news.as_fd())
    }

    /// What there is to know, since it was last asked.
    pub fn news(&self) -> Vec<News> {
        let (mut bytes, mut all) = ([0; 16], Vec::new());
        while let Some(ends) = &self.ends
            && let Ok(length @ 1..) = rustix::io::read(&ends.news, &mut bytes)
        {
            let known = |byte: &u8| [News::TooMuch, News::Gone].into_iter().find(|news| *news as u8 == *byte);
            all.extend(bytes[..length].iter().filter_map(known));
        }
        all
    }

    /// Whether output is to be counted.
    pub fn counts(&self) -> bool {
        self.meter.is_some()
    }

    /// Passes on from a pipe, while counting. To be called when the sandbox has been forked off: it starts a thread.
    pub fn count(&mut self, from: OwnedFd, to: OwnedFd) -> io::Result<()> {
        let (meter, Some(wires)) = (self.meter.clone(), self.wires.clone()) else { return Ok(()) };
        // Whoever prints for nobody has what a pipe does to that: this end of it is closed with the thread.
        let pass = move || pass(&from, &to, meter.as_ref(), &wires);
        self.threads.push(thread::Builder::new().spawn(pass)?);
        Ok(())
    }

    /// Joins the caller's terminal, or whatever its stdin and stdout are, with the sandbox's.
    pub fn join(&mut self, terminal: OwnedFd) -> io::Result<()> {
        let Some(wires) = self.wires.clone() else { return Ok(()) };
        let stdin = io::stdin();
        let stdin = stdin.as_fd();
        // A program that reads no more must not keep whoever types from ending.
        rustix::io::ioctl_fionbio(&terminal, true)?;
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
        let thread = thread::Builder::new().spawn(move || {
            let _ = type_in(&keyboard, &far, &stop);
        });
        near.keyboard = Some((stopper, thread?));
        self.terminal = Some(near);
        let (stdout, meter) = (io::stdout().as_fd().try_clone_to_owned()?, self.meter.clone());
        let show = move || {
            pass(&terminal, &stdout, meter.as_ref(), &wires).inspect_err(|_| {
                wires.tell(News::Gone);
                throw_away(&terminal, &wires.stop);
            })
        };
        self.threads.push(thread::Builder::new().spawn(show)?);
        Ok(())
    }

    /// Gives the sandbox's terminal the size of the caller's.
    pub fn fit(&self) {
        if let Some(near) = &self.terminal {
            near.fit();
        }
    }

    /// Waits until all has been passed on: to be called when the sandbox has gone. Not for long, if it was ended by us, and not when
    /// somebody wants us to end. An error: some of it could not be written, other than for want of a reader.
    pub fn finish(&mut self, was_ended: bool, forwarding: Option<&Forwarding>) -> io::Result<()> {
        if let Some(near) = &mut self.terminal {
            near.let_keyboard_go();
        }
        self.wires = None;
        let Some(ends) = &self.ends else { return Ok(()) };
        let mut waited = vec![PollFd::from_borrowed_fd(ends.over.as_fd(), PollFlags::IN)];
        waited.extend(forwarding.map(|forwarding| PollFd::from_borrowed_fd(forwarding.as_fd(), PollFlags::IN)));
        let most = Timespec { tv_sec: LAST_WORDS.as_secs() as i64, tv_nsec: 0 };
        while !matches!(rustix::event::poll(&mut waited, was_ended.then_some(&most)), Ok(0))
            && waited[0].revents().is_empty()
            && !forwarding.is_some_and(Forwarding::is_to_end)
        {}
        let _ = rustix::io::write(&ends.stop, b"!");
        let mut result = Ok(());
        for thread in self.threads.drain(..) {
            // A panic has been printed.
            let passed = thread.join().unwrap_or(Ok(()));
            result = result.and(passed.or_else(|error| match Errno::from_io_error(&error) {
                // A terminal that has hung up has no reader either.
                Some(Errno::PIPE | Errno::IO) => Ok(()),
                _ => Err(error),
            }));
        }
        self.terminal = None;
        result
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

    fn let_keyboard_go(&mut self) {
        if let Some((stopper, thread)) = self.keyboard.take() {
            drop(stopper);
            let _ = thread.join();
        }
    }
}

impl Drop for Near {
    fn drop(&mut self) {
        self.let_keyboard_go();
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, before);
        }
    }
}

/// Passes on until there is no more. An error: nobody reads it any more. What is too much is read and thrown away: a program that prints
/// does not hang for it.
fn pass(from: &OwnedFd, to: &OwnedFd, meter: Option<&Meter>, wires: &Wires) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    while let Some(length) = read_some(from, &mut buffer, &wires.stop) {
        let admitted = meter.map_or(length, |meter| meter.admit(length, wires));
        if !write_all(to, &buffer[..admitted], &wires.stop)? {
            break;
        }
    }
    Ok(())
}

fn throw_away(from: &OwnedFd, stop: &OwnedFd) {
    let mut buffer = vec![0; BUFFER];
    while read_some(from, &mut buffer, stop).is_some() {}
}

/// Passes keys on until the end of stdin, or until `stop` is closed.
fn type_in(from: &OwnedFd, to: &OwnedFd, stop: &OwnedFd) -> io::Result<()> {
    let mut buffer = vec![0; 4096];
    let mut is_in_a_line = false;
    while let Some(length) = read_some(from, &mut buffer, stop) {
        is_in_a_line = buffer[length - 1] != b'\n';
        if !write_all(to, &buffer[..length], stop)? {
            return Ok(());
        }
    }
    // What a keyboard says for the end of input, Ctrl-D as a rule: in the middle of a line the first one only ends that.
    let end = rustix::termios::tcgetattr(to).map_or(4, |settings| settings.special_codes[SpecialCodeIndex::VEOF]);
    write_all(to, &[end; 2][..1 + usize::from(is_in_a_line)], stop).map(drop)
}

/// Waits until something can be read and reads it. None at the end, and once `stop` is readable.
fn read_some(from: &OwnedFd, buffer: &mut [u8], stop: &OwnedFd) -> Option<usize> {
    while is_ready(from, PollFlags::IN, stop) {
        match rustix::io::read(from, &mut *buffer) {
            // EIO: the last process with the terminal has closed it.
            Ok(0) => return None,
            Ok(length) => return Some(length),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => return None,
        }
    }
    None
}

/// False if `stop` is readable before all is written.
fn write_all(to: &OwnedFd, mut bytes: &[u8], stop: &OwnedFd) -> io::Result<bool> {
    while !bytes.is_empty() {
        // Written to only when there is room, as nobody else could end this.
        if !is_ready(to, PollFlags::OUT, stop) {
            return Ok(false);
        }
        match rustix::io::write(to, &bytes[..bytes.len().min(PIECE)]) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

/// Waits until a file is ready for this, whatever has become of it. False once `stop` is readable.
fn is_ready(file: &OwnedFd, events: PollFlags, stop: &OwnedFd) -> bool {
    let mut waited =
        [PollFd::from_borrowed_fd(file.as_fd(), events), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
    // Signals of the launcher, a new size of the terminal for one, may interrupt it.
    let result = rustix::io::retry_on_intr(|| rustix::event::poll(&mut waited, None));
    result.is_ok() && waited[1].revents().is_empty()
}
