//! How well a stream is compressed: as well as its line leaves time for.
//!
//! It begins well. While the line waits for the compressor, the next faster way is tried, for a while; it stays if more comes across. So
//! a slow line carries little, and one within a machine or a rack is not held up by a compressor that is slower than the line.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::super::frame::{Frame, Kind};

/// zstd's levels, the slowest first; the last is not to compress.
const WAYS: [Option<i32>; 3] = [Some(3), Some(1), None];
/// Bytes of objects that are sent before it is looked how it goes: more than the buffers between two ends hold.
const WHILE: u64 = 16 << 20;

/// Which way is taken now: read by those who compress.
#[derive(Default)]
pub(super) struct Way(AtomicUsize);

impl Way {
    /// A frame of this content.
    pub fn frame(&self, kind: Kind, head: &[u8], content: Vec<u8>) -> io::Result<Frame> {
        match WAYS[self.0.load(Ordering::Relaxed)] {
            Some(level) => Frame::new(kind, head, &content, level),
            None => Ok(Frame::stored(kind, head, content)),
        }
    }
}

/// How it went: kept by who sends.
#[derive(Default)]
pub(super) struct Pace {
    /// Since it was last looked: time waited for frames, time in which they were sent, and bytes of objects in them.
    made: Duration,
    sent: Duration,
    bytes: u64,
    /// Bytes a second that came across by each way, as last seen.
    rates: [f64; WAYS.len()],
    /// A faster way brought no more across: the line is what it is.
    settled: bool,
}

impl Pace {
    /// Something was waited for, and sent.
    pub fn went(&mut self, way: &Way, made: Duration, sent: Duration, bytes: u64) {
        self.made += made;
        self.sent += sent;
        self.bytes += bytes;
        if self.bytes < WHILE {
            return;
        }
        let now = way.0.load(Ordering::Relaxed);
        self.rates[now] = self.bytes as f64 / (self.made + self.sent).as_secs_f64().max(1e-9);
        if now > 0 && self.rates[now] < self.rates[now - 1] {
            self.settled = true;
            way.0.store(now - 1, Ordering::Relaxed);
        } else if !self.settled && now + 1 < WAYS.len() && 3 * self.made > self.sent {
            way.0.store(now + 1, Ordering::Relaxed);
        }
        (self.made, self.sent, self.bytes) = (Duration::ZERO, Duration::ZERO, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a line that takes so many bytes a second, and ways that make so many, of a third, a half and the whole length.
    fn taken(line: f64, makers: [f64; 3]) -> usize {
        let (way, mut pace) = (Way::default(), Pace::default());
        let lengths = [0.33, 0.5, 1.0];
        for _ in 0..400 {
            let now = way.0.load(Ordering::Relaxed);
            let bytes = 1_u64 << 20;
            let (making, sending) = (bytes as f64 / makers[now], bytes as f64 * lengths[now] / line);
            // Both go on at once: one of them is waited for.
            let made = Duration::from_secs_f64((making - sending).max(0.0));
            pace.went(&way, made, Duration::from_secs_f64(sending), bytes);
        }
        way.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_slow_line_carries_little_and_a_fast_one_is_not_held_up() {
        let makers = [250e6, 600e6, 5e9];
        // A home, an office, a rack of some years ago and one of today.
        assert_eq!(taken(10e6, makers), 0);
        assert_eq!(taken(110e6, makers), 0);
        assert_eq!(taken(280e6, makers), 1);
        assert_eq!(taken(1.2e9, makers), 2);
        // Who makes slowly whatever the way tries, and goes back to what brings the most across.
        assert_eq!(taken(60e6, [100e6, 110e6, 120e6]), 1);
    }

    #[test]
    fn whatever_the_way_a_frame_has_its_content() {
        let way = Way::default();
        for now in 0..WAYS.len() {
            way.0.store(now, Ordering::Relaxed);
            let frame = way.frame(Kind::Objects, b"head", b"content ".repeat(100)).unwrap();
            assert_eq!(frame.into_content(&[]).unwrap(), b"content ".repeat(100));
        }
    }
}
