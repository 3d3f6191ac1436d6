//! Error numbers as nginx prints them: `98: Address already in use`.
//!
//! `std::io::Error` prints `Address already in use (os error 98)`; tools that read an error log
//! expect the number first, so every crate that logs a failed call formats it through this type.

use std::fmt;
use std::io;

/// A Linux error number (`errno(3)`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The number that the last failed call of this thread left behind.
    pub fn last() -> Errno {
        Errno::from(&io::Error::last_os_error())
    }

    /// The system's text for the number, without the number.
    pub fn text(self) -> String {
        let mut buffer = [0u8; 128];
        // SAFETY: the pointer and the length describe `buffer`, which the call fills with a
        // text that ends in a zero byte (XSI strerror_r never writes past the length).
        let outcome = unsafe { libc::strerror_r(self.0, buffer.as_mut_ptr().cast(), buffer.len()) };
        let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
        if outcome != 0 || end == 0 {
            return format!("Unknown error {}", self.0);
        }
        String::from_utf8_lossy(&buffer[..end]).into_owned()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.0, self.text())
    }
}

impl From<&io::Error> for Errno {
    /// Errors that `std` invents itself have no number; they become 22 (invalid argument), for
    /// instance a path with a zero byte inside.
    fn from(error: &io::Error) -> Errno {
        Errno(error.raw_os_error().unwrap_or(libc::EINVAL))
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Errno {
        Errno::from(&error)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Errno {
        Errno(error.raw_os_error())
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_before_texts() {
        for (number, expected) in [
            (98, "98: Address already in use"),
            (13, "13: Permission denied"),
            (2, "2: No such file or directory"),
            (9999, "9999: Unknown error 9999"),
        ] {
            assert_eq!(Errno(number).to_string(), expected);
        }
    }

    #[test]
    fn an_error_without_a_number_is_an_invalid_argument() {
        assert_eq!(Errno::from(io::Error::other("made up")), Errno(22));
    }
}
