//! Ctrl-C and its like: the first asks everything to stop and leave nothing, the second ends forge at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Notes the signals from now on in `interrupt`.
pub fn watch(interrupt: &Arc<AtomicI32>) {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
    let interrupt = Arc::clone(interrupt);
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if interrupt.swap(signal, Ordering::Relaxed) != 0 {
                std::process::exit(128 + signal);
            }
        }
    });
}
