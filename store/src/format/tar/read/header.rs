//! The 512 bytes that every entry begins with, and what its fields say. Who reads archives by rules of his own (a package of
//! Debian's) reads the fields here too.

use super::{BLOCK, Result, damaged};

pub(super) struct Header {
    pub path: Vec<u8>,
    pub kind: u8,
    pub mode: u16,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub target: Vec<u8>,
    pub device: (u32, u32),
    pub modified: i64,
}

/// Whether a block is a header, as far as its checksum tells.
pub(in crate::format::tar) fn is_header(block: &[u8]) -> bool {
    let Some(block) = block.first_chunk::<BLOCK>() else { return false };
    *block != [0; BLOCK] && checksum_is_right(block)
}

/// Whether the sum of the bytes, its own field counted as blanks, is the one that the header says.
pub fn checksum_is_right(block: &[u8; BLOCK]) -> bool {
    let Ok(expected) = number(&block[148..156]) else { return false };
    let counted = |at: usize, byte: u8| if (148..156).contains(&at) { b' ' } else { byte };
    let unsigned: u64 = block.iter().enumerate().map(|(at, byte)| u64::from(counted(at, *byte))).sum();
    // Some old programs added the bytes as signed numbers.
    let signed: i64 = block.iter().enumerate().map(|(at, byte)| i64::from(counted(at, *byte) as i8)).sum();
    expected == unsigned || i64::try_from(expected) == Ok(signed)
}

impl Header {
    pub fn parse(block: &[u8; BLOCK]) -> Result<Self> {
        if !checksum_is_right(block) {
            return damaged("a header's checksum is wrong");
        }
        let device = |at: usize| match number(&block[at..at + 8]) {
            Ok(value) => u32::try_from(value).unwrap_or_default(),
            Err(_) => 0,
        };
        let kind = block[156];
        let is_device = matches!(kind, b'3' | b'4');
        Ok(Self {
            path: path(block),
            kind,
            mode: (number(&block[100..108])? & 0o7777) as u16,
            uid: number(&block[108..116])?,
            gid: number(&block[116..124])?,
            size: number(&block[124..136])?,
            target: text(&block[157..257]),
            // Others leave what they like there.
            // Before 1970 nobody wrote archives; a time that is none says nothing.
            modified: number(&block[136..148]).ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0),
            device: if is_device { (device(329), device(337)) } else { (0, 0) },
        })
    }
}

/// A field up to its first NUL.
pub fn text(field: &[u8]) -> Vec<u8> {
    field.iter().copied().take_while(|byte| *byte != 0).collect()
}

/// The path, with the prefix of ustar's headers.
pub fn path(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[..100]);
    // GNU's own headers (`ustar  `) have other things in place of the prefix.
    if block[257..263] != *b"ustar\0" || block[345] == 0 {
        return name;
    }
    [text(&block[345..500]), name].join(&b'/')
}

/// A number: octal digits between blanks, ended by a blank or NUL; or, where the first bit is set, GNU's binary.
pub fn number(field: &[u8]) -> Result<u64> {
    if field[0] & 0x80 != 0 {
        let mut value = u64::from(field[0] & 0x7f);
        for byte in &field[1..] {
            if value >> 56 != 0 {
                return damaged("a header has a number out of bounds");
            }
            value = value << 8 | u64::from(*byte);
        }
        return Ok(value);
    }
    let digits = field.iter().skip_while(|byte| **byte == b' ').take_while(|byte| !matches!(byte, b' ' | 0));
    let mut value = 0_u64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return damaged("a header has a number that is none");
        }
        // Twelve octal digits at most: no overflow.
        value = value << 3 | u64::from(digit - b'0');
    }
    Ok(value)
}
