//! LZO1X, unpacked: what some squashfs images are compressed with.
//!
//! Written from the format's description (`Documentation/staging/lzo.rst` of the kernel). A stream is a sequence of
//! instructions; each copies bytes from what was unpacked before, and says how many literal bytes (0 to 3) follow. How the
//! codes below 16 read depends on how many literals came before them, which is the state. Only the first version is read:
//! mksquashfs makes no other.

/// Fills `output` from a stream and says how much it was; none if the stream is not one, or has more than fits.
pub(super) fn decompress(input: &[u8], output: &mut [u8]) -> Option<usize> {
    let mut unpacker = Unpacker { input, at: 0, output, filled: 0 };
    let mut state = unpacker.first()?;
    loop {
        let code = usize::from(unpacker.byte()?);
        // Bits that say where a match lies, how long it is, and how many literals follow it.
        let (distance, length, literals) = match code {
            0..=15 if state == 0 => {
                let length = 3 + unpacker.length(code, 15)?;
                unpacker.literals(length)?;
                state = LONG_RUN;
                continue;
            }
            0..=15 => {
                let high = usize::from(unpacker.byte()?) << 2;
                let (from, length) = if state == LONG_RUN { (2049, 3) } else { (1, 2) };
                (from + high + (code >> 2), length, code & 3)
            }
            16..=31 => {
                let length = 2 + unpacker.length(code & 7, 7)?;
                let (low, literals) = unpacker.distance()?;
                let distance = 16_384 + ((code & 8) << 11) + low;
                if distance == 16_384 {
                    // The end: nothing may come after it.
                    return (unpacker.at == input.len()).then_some(unpacker.filled);
                }
                (distance, length, literals)
            }
            32..=63 => {
                let length = 2 + unpacker.length(code & 31, 31)?;
                let (low, literals) = unpacker.distance()?;
                (1 + low, length, literals)
            }
            64..=127 => {
                let high = usize::from(unpacker.byte()?) << 3;
                (1 + high + (code >> 2 & 7), 3 + (code >> 5 & 1), code & 3)
            }
            _ => {
                let high = usize::from(unpacker.byte()?) << 3;
                (1 + high + (code >> 2 & 7), 5 + (code >> 5 & 3), code & 3)
            }
        };
        unpacker.copy(distance, length)?;
        unpacker.literals(literals)?;
        state = literals;
    }
}

/// The state after four literals or more.
const LONG_RUN: usize = 4;

struct Unpacker<'a> {
    input: &'a [u8],
    at: usize,
    output: &'a mut [u8],
    filled: usize,
}

impl Unpacker<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.input.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    /// The first byte may stand for a run of literals that no other place can say; gives the state.
    fn first(&mut self) -> Option<usize> {
        let count = match usize::from(*self.input.first()?) {
            code @ 18.. => code - 17,
            _ => return Some(0),
        };
        self.at = 1;
        self.literals(count)?;
        Some(count.min(LONG_RUN))
    }

    /// A length that stands in a code; if it is 0 there, it goes on in the bytes that follow: 255 for each 0, and the next.
    fn length(&mut self, given: usize, most: usize) -> Option<usize> {
        if given != 0 {
            return Some(given);
        }
        let mut length = most;
        loop {
            match self.byte()? {
                0 => length = length.checked_add(255)?,
                last => return length.checked_add(usize::from(last)),
            }
        }
    }

    /// Fourteen bits of distance and two of literals.
    fn distance(&mut self) -> Option<(usize, usize)> {
        let value = usize::from(self.byte()?) | usize::from(self.byte()?) << 8;
        Some((value >> 2, value & 3))
    }

    fn literals(&mut self, count: usize) -> Option<()> {
        let from = self.input.get(self.at..self.at.checked_add(count)?)?;
        self.output.get_mut(self.filled..self.filled.checked_add(count)?)?.copy_from_slice(from);
        self.at += count;
        self.filled += count;
        Some(())
    }

    /// Copies from what is unpacked; source and target may overlap, so that a short piece is repeated.
    fn copy(&mut self, distance: usize, length: usize) -> Option<()> {
        let start = self.filled.checked_sub(distance)?;
        let end = self.filled.checked_add(length).filter(|end| *end <= self.output.len())?;
        if distance >= length {
            self.output.copy_within(start..start + length, self.filled);
        } else {
            for at in self.filled..end {
                self.output[at] = self.output[at - distance];
            }
        }
        self.filled = end;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(input: &[u8]) -> Option<Vec<u8>> {
        let mut output = vec![0; 600];
        let length = decompress(input, &mut output)?;
        output.truncate(length);
        Some(output)
    }

    const END: [u8; 3] = [0x11, 0, 0];

    #[test]
    fn instructions_do_what_the_description_says() {
        let stream = |parts: &[&[u8]]| unpacked(&[&parts.concat()[..], &END].concat());
        assert_eq!(stream(&[]), Some(Vec::new()));
        // Four literals, then a match of 3 + 1 bytes (code 64 to 127) at distance 2, then one literal.
        assert_eq!(stream(&[&[21], b"abcd", &[0b0110_0101, 0], b"x"]).unwrap(), b"abcdcdcdx");
        // A long run of literals: 3 + 15 + 255 + 1.
        let run = vec![b'r'; 274];
        assert_eq!(stream(&[&[0, 0, 1], &run]).unwrap(), run);
        // A match of 2 + 31 + 7 bytes that repeats one.
        assert_eq!(stream(&[&[18], b"z", &[0b0010_0000, 7, 0, 0]]).unwrap(), [b'z'; 41]);
        // After one literal a code below 16 is a match of two bytes.
        assert_eq!(stream(&[&[18], b"z", &[0b0000_0000, 0]]).unwrap(), b"zzz");
        // 5 to 8 bytes.
        assert_eq!(stream(&[&[18], b"z", &[0b1110_0000, 0]]).unwrap(), [b'z'; 9]);
    }

    #[test]
    fn what_is_no_stream_is_refused() {
        let bad: [&[u8]; 8] = [
            b"",
            &[21, b'a'],
            &[0x11, 0, 0, 0],
            // A match before the beginning.
            &[18, b'z', 0b0100_0100, 0, 0x11, 0, 0],
            // More than fits: 3 + 15 + 3 * 255 + 1.
            &[18, b'z', 0b0010_0000, 0, 0, 0, 1, 0, 0, 0x11, 0, 0],
            // No end.
            &[18, b'z'],
            &[0, 0, 0, 0],
            &[16, 1],
        ];
        for input in bad {
            assert_eq!(unpacked(input), None, "{input:?}");
        }
    }
}
