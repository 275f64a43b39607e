//! How forge ends.

/// What the process ends with: the standard library's cannot be read back, which `main` must, as it is the C library's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitCode(u8);

impl ExitCode {
    /// Everything went well.
    pub const SUCCESS: Self = Self(0);
    /// A negative answer.
    pub const FAILURE: Self = Self(1);
}

impl From<u8> for ExitCode {
    fn from(code: u8) -> Self {
        Self(code)
    }
}

impl From<ExitCode> for i32 {
    fn from(ExitCode(code): ExitCode) -> Self {
        Self::from(code)
    }
}
