//! Ctrl-C and its like: the first asks everything to stop and leave nothing, the second ends forge at once. While an
//! expression is evaluated there is nothing to put away, and the first ends forge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use crate::words::say;
use expressions::Interrupter;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The signal that was noted, and whether forge only evaluates.
static NOTED: AtomicI32 = AtomicI32::new(0);
static EVALUATING: AtomicBool = AtomicBool::new(false);

/// Whether a session evaluates, and how often it was interrupted since it began to.
static WATCHED: AtomicBool = AtomicBool::new(false);
static TIMES: AtomicI32 = AtomicI32::new(0);

/// How long a build may take to stop by itself.
const GRACE: std::time::Duration = std::time::Duration::from_millis(300);

/// What does not stop after so many interruptions is ended with the session.
const PATIENCE: i32 = 3;

/// Ctrl-C interrupts what a session evaluates from now on, and not the session.
pub fn interrupts(session: Interrupter) {
    let Ok(mut signals) = Signals::new([SIGINT]) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            let times = TIMES.fetch_add(1, Ordering::SeqCst) + 1;
            if !WATCHED.load(Ordering::SeqCst) || times >= PATIENCE {
                end(signal);
            }
            session.interrupt();
        }
    });
}

/// Does something of a session that Ctrl-C interrupts.
pub fn watched<T>(work: impl FnOnce() -> T) -> T {
    TIMES.store(0, Ordering::SeqCst);
    WATCHED.store(true, Ordering::SeqCst);
    let result = work();
    WATCHED.store(false, Ordering::SeqCst);
    result
}

/// Notes the signals from now on in `interrupt`.
pub fn watch(interrupt: &Arc<AtomicI32>) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let interrupt = Arc::clone(interrupt);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            NOTED.store(signal, Ordering::SeqCst);
            if interrupt.swap(signal, Ordering::Relaxed) != 0 || EVALUATING.load(Ordering::SeqCst) {
                end(signal);
            }
            // What does not end by itself then is killed.
            let interrupt = Arc::clone(&interrupt);
            std::thread::spawn(move || {
                std::thread::sleep(GRACE);
                let _ = interrupt.compare_exchange(signal, -signal, Ordering::Relaxed, Ordering::Relaxed);
            });
        }
    });
}

/// Evaluates: an expression may never end, and asks for no signal.
pub fn ends<T>(evaluate: impl FnOnce() -> T) -> T {
    EVALUATING.store(true, Ordering::SeqCst);
    let noted = NOTED.load(Ordering::SeqCst);
    if noted != 0 {
        end(noted);
    }
    let result = evaluate();
    EVALUATING.store(false, Ordering::SeqCst);
    result
}

fn end(signal: i32) -> ! {
    say!("error: interrupted");
    std::process::exit(128 + signal)
}
