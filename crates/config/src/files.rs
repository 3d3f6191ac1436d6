//! Where configuration files come from: the disk, or memory in tests and fuzzing.
//!
//! Only `include` and the main file go through here. Pattern matching is in `glob`.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::glob;

/// Reads files and lists those that match a pattern.
pub trait Files {
    /// The whole content of a file.
    ///
    /// # Errors
    /// As `open(2)` and `read(2)`; the operating system's number is shown to the user.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The paths that match a shell pattern (`*`, `?`, `[a-z]`), in byte order.
    ///
    /// # Errors
    /// Only when listing fails altogether; directories that cannot be read are skipped, as
    /// `glob(3)` does without `GLOB_ERR`.
    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>>;
}

/// The real file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    #[allow(clippy::disallowed_methods)] // This type is the one door to the disk.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(glob::walk(pattern))
    }
}

/// Files held in memory, by path.
#[derive(Clone, Debug, Default)]
pub struct MemoryFiles {
    files: BTreeMap<PathBuf, Vec<u8>>,
}

impl MemoryFiles {
    /// No file at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, for chained set-up.
    #[must_use]
    pub fn with(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.insert(path, bytes);
        self
    }

    /// Adds or replaces a file.
    pub fn insert(&mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) {
        self.files.insert(path.into(), bytes.into());
    }
}

impl Files for MemoryFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        const ENOENT: i32 = 2;
        self.files.get(path).cloned().ok_or_else(|| io::Error::from_raw_os_error(ENOENT))
    }

    fn glob(&self, pattern: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.keys().filter(|path| glob::path_matches(pattern, path)).cloned().collect())
    }
}
