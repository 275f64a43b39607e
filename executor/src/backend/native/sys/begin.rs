//! What a process of ours does first.

use rustix::fs::Mode;

/// What Rust's own start would have done and that matters, for a program that the C library starts by itself; and memory, at once.
///
/// A stream that is closed is opened, or the next file would be taken for it (a caller may leave out any of the three). A reader that
/// goes away is an error of writing and not the end. And a caller's umask keeps others from what we make, but not ourselves.
pub fn begin_process() {
    let mut streams = [0, 1, 2].map(|fd| libc::pollfd { fd, events: 0, revents: 0 });
    // SAFETY: the array is valid for the call and has as many entries as it says.
    if unsafe { libc::poll(streams.as_mut_ptr(), 3, 0) } > 0 {
        for _ in streams.iter().filter(|stream| stream.revents & libc::POLLNVAL != 0) {
            // SAFETY: a valid string. The file stays open; it gets the lowest number that is free, which is that of the stream.
            unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        }
    }
    // SAFETY: no handler is set that could run.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    rustix::process::umask(mask.difference(Mode::RWXU));
    #[cfg(target_env = "gnu")]
    have_memory_ready();
}

/// Asks for the pages that the allocator begins with by one call: it will touch nearly all of them, and each would be a page fault.
#[cfg(target_env = "gnu")]
fn have_memory_ready() {
    /// What glibc asks the kernel for at the first allocation (`M_TOP_PAD`, mallopt(3)).
    const FIRST: usize = 128 * 1024;
    // SAFETY: asks where the heap ends, and changes nothing.
    let end = unsafe { libc::sbrk(0) } as usize;
    // SAFETY: what is populated is not changed; where something is not mapped, it fails harmlessly (madvise(2), Linux 5.14).
    unsafe { libc::madvise((end - FIRST) as *mut libc::c_void, FIRST, libc::MADV_POPULATE_WRITE) };
}
