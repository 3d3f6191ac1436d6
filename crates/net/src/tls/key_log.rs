//! Secrets of connections for programs that decrypt what they recorded (NSS key log format).

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::KeyLog;

#[derive(Debug)]
struct Lines(File);

/// A log that appends to a file, which only its owner may read.
///
/// # Errors
/// nginx's words.
pub fn key_log(path: &Path) -> Result<Arc<dyn KeyLog>, String> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    let file = opened.map_err(|error| {
        let errno = system::errno::Errno::from(&error);
        format!("open() \"{}\" failed ({errno})", path.display())
    })?;
    Ok(Arc::new(Lines(file)))
}

impl KeyLog for Lines {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        let mut hex = |bytes: &[u8], end: char| {
            for byte in bytes {
                // Writing to a string cannot fail.
                let _ = write!(line, "{byte:02x}");
            }
            line.push(end);
        };
        hex(client_random, ' ');
        hex(secret, '\n');
        // A debugging aid: what cannot be written is not worth a connection.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
