//! The bytes of canonical encodings: fixed-width little-endian numbers, and byte strings behind a 32-bit length.
//!
//! There is one way to write a value, and the reader refuses every other: what decodes encodes to the same bytes.

use std::fmt;

/// Why some bytes are not a canonical encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// What was being read.
    pub what: &'static str,
    /// Where, in bytes from the start.
    pub offset: usize,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "bad {} at byte {}", self.what, self.offset)
    }
}

impl std::error::Error for DecodeError {}

#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }
    /// A length that the format bounds to 32 bits.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.u32(u32::try_from(value).expect("more than 4 G entries in one object"))
    }
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.0.extend_from_slice(value);
        self
    }
    pub fn digest(&mut self, value: &[u8; 32]) -> &mut Self {
        self.0.extend_from_slice(value);
        self
    }
    pub fn finish(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }
    /// The error that names `what` at this place.
    pub fn bad(&self, what: &'static str) -> DecodeError {
        DecodeError { what, offset: self.offset }
    }
    fn take(&mut self, length: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let end =
            self.offset.checked_add(length).filter(|end| *end <= self.bytes.len()).ok_or_else(|| self.bad(what))?;
        let taken = &self.bytes[self.offset..end];
        self.offset = end;
        Ok(taken)
    }
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.take(1, what)?[0])
    }
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.take(2, what)?.try_into().expect("two bytes")))
    }
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take(4, what)?.try_into().expect("four bytes")))
    }
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take(8, what)?.try_into().expect("eight bytes")))
    }
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let length = self.u32(what)?;
        self.take(length as usize, what)
    }
    pub fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let at = self.bad(what);
        String::from_utf8(self.bytes(what)?.to_vec()).map_err(|_| at)
    }
    pub fn digest(&mut self, what: &'static str) -> Result<[u8; 32], DecodeError> {
        Ok(self.take(32, what)?.try_into().expect("32 bytes"))
    }
    pub fn at_end(&self) -> bool {
        self.offset == self.bytes.len()
    }
    pub fn end(&self) -> Result<(), DecodeError> {
        if self.at_end() { Ok(()) } else { Err(self.bad("trailing bytes")) }
    }
}
