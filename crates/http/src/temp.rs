//! Temporary files for bodies: a folder, levels of subfolders, numbered names.

use crate::directives::TempPath;
use std::cell::Cell;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How many taken names are skipped before giving up.
const TRIES: u32 = 1000;

/// A folder in which temporary files are made, shared by the workers.
pub struct TempFolder {
    path: PathBuf,
    levels: Vec<u8>,
    next: Cell<u32>,
}

/// A temporary file and where it is.
pub struct TempFile {
    /// Open for reading and writing.
    pub file: File,
    /// Its path, absolute.
    pub path: PathBuf,
}

impl TempFolder {
    /// A folder at `path`; `create` makes it.
    pub fn new(path: PathBuf, levels: &TempPath) -> TempFolder {
        TempFolder { path, levels: levels.levels.clone(), next: Cell::new(0) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder itself, as nginx does at start: mode 0700.
    ///
    /// # Errors
    /// What mkdir(2) says, unless the folder is there already.
    pub fn create(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes a file that no other worker uses, mode 0600. The caller removes it.
    ///
    /// # Errors
    /// What open(2) or mkdir(2) say.
    pub fn file(&self) -> io::Result<TempFile> {
        let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..TRIES {
            let path = self.name();
            match open(&path) {
                Ok(file) => return Ok(TempFile { file, path }),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Some(folder) = path.parent() {
                        DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
                    }
                    match open(&path) {
                        Ok(file) => return Ok(TempFile { file, path }),
                        Err(error) => last = error,
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The next name: ten digits, the last ones naming the folders of each level.
    fn name(&self) -> PathBuf {
        let mut number = self.next.get();
        if number == 0 {
            // Workers begin at different places, so that they rarely meet.
            number = std::process::id().wrapping_mul(7919) % 100_000_000;
        }
        self.next.set(number.wrapping_add(1));
        let digits = format!("{number:010}");
        let mut path = self.path.clone();
        let mut end = digits.len();
        for level in &self.levels {
            let from = end.saturating_sub(*level as usize);
            path.push(&digits[from..end]);
            end = from;
        }
        path.push(digits);
        path
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)
}
