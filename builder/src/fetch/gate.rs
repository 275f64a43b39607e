//! How many transfers one host serves us at a time. The scheduler starts as many fetches as there are; a mirror is asked politely.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::{Builder, Result};

/// Enough to fill a line with small packages; what apt and browsers use is between 1 and 8.
const TRANSFERS_PER_HOST: usize = 6;

/// Counts transfers by host.
#[derive(Default)]
pub struct Gate {
    open: Mutex<HashMap<String, usize>>,
    left: Condvar,
}

/// Lets another in when dropped.
pub struct Pass<'a> {
    gate: &'a Gate,
    host: String,
}

impl Gate {
    /// Waits until the host may be asked, or the user interrupts.
    pub fn enter(&self, builder: &Builder<'_>, host: &str) -> Result<Pass<'_>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while open.get(host).is_some_and(|count| *count >= TRANSFERS_PER_HOST) {
            builder.check_interrupt()?;
            let waited = self.left.wait_timeout(open, Duration::from_millis(200));
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        *open.entry(host.to_owned()).or_default() += 1;
        Ok(Pass { gate: self, host: host.to_owned() })
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        let mut open = self.gate.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.host) {
            *count -= 1;
        }
        self.gate.left.notify_all();
    }
}
