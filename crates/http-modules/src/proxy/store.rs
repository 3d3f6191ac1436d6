//! `proxy_store`: answers kept as files.
//!
//! What passes to the client is written to a temporary file, which takes its name when the answer
//! is complete. A file that cannot be written costs the copy, not the answer.

use super::family::Family;
use super::settings::Settings;
use config::{Args, Invalid, Scope};
use http::temp::TempFile;
use http::{Body, Broken, Compiler, Exchange, Piece, Pull};
use net::Data;
use session::log::{Bytes, Level};
use session::variables::Template;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, UNIX_EPOCH};
use system::errno::Errno;
use wire::http1::Known;

/// Bytes of a file that are copied at a time.
const STEP: usize = 64 * 1024;

/// Where answers are kept.
pub(super) struct Store {
    /// `None`: where the location looks for files.
    path: Option<Template>,
    prefix: PathBuf,
    /// Permissions of the files.
    mode: u32,
}

impl Store {
    pub(super) fn compile(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        family: &Family,
    ) -> Option<Store> {
        let mode = scope.get(family.store_access);
        let path = scope.get(family.store)?;
        let path = (path.constant() != Some(b"on")).then(|| c.template(&path));
        Some(Store { path, prefix: c.full_path(""), mode })
    }

    /// Lets the body of the answer at hand be kept while it passes.
    pub(super) fn keep(&self, settings: &Rc<Settings>, x: &mut Exchange) {
        if x.request.method == wire::http1::Method::Head {
            return;
        }
        let temp = match settings.buffers.folder.file() {
            Ok(temp) => temp,
            Err(error) => {
                let folder = settings.buffers.folder.path().display().to_string();
                let errno = Errno::from(&error);
                x.log_error(Level::Crit, format_args!("open() \"{folder}\" failed ({errno})"));
                return;
            }
        };
        let mut kept =
            Kept { body: Body::Empty, copy: Some(Copy(temp)), settings: settings.clone() };
        match std::mem::take(&mut x.response.body) {
            Body::Empty => kept.finish(x),
            body => {
                kept.body = body;
                x.response.body = Body::Stream(Box::new(kept));
            }
        }
    }

    /// Where the answer goes; empty: nowhere.
    fn path(&self, x: &mut Exchange) -> PathBuf {
        let Some(template) = &self.path else {
            let path = http::files::path(x);
            return Path::new(std::ffi::OsStr::from_bytes(x.text(path))).to_owned();
        };
        let path = template.value(x);
        match x.text(path) {
            b"" => PathBuf::new(),
            text => self.prefix.join(std::ffi::OsStr::from_bytes(text)),
        }
    }
}

/// `user:rw group:r`: the mode of files.
///
/// # Errors
/// A word that is none of these.
pub(crate) fn read_access(args: &Args<'_>) -> Result<u32, Invalid> {
    let mut mode = 0;
    for (i, word) in args.words().iter().enumerate() {
        let text = word.str();
        let invalid = || Invalid::new(format!("invalid value \"{text}\"")).at(i);
        let (who, what) = text.split_once(':').ok_or_else(invalid)?;
        let (shift, users) = match who {
            "user" => (6, 0),
            // Who serves the files wrote them.
            "group" => (3, 0o600),
            "all" => (0, 0o600),
            _ => return Err(invalid()),
        };
        let bits = match what {
            "r" => 0o4,
            "w" => 0o2,
            "rw" => 0o6,
            _ => return Err(invalid()),
        };
        mode |= bits << shift | users;
    }
    Ok(mode)
}

/// A body of which a copy is kept.
struct Kept {
    body: Body,
    /// The copy, until it is complete or given up.
    copy: Option<Copy>,
    settings: Rc<Settings>,
}

/// A temporary file that is removed unless it got a name.
struct Copy(TempFile);

impl Drop for Copy {
    fn drop(&mut self) {
        // After it got its name there is nothing here to remove.
        let _ = std::fs::remove_file(&self.0.path);
    }
}

impl Kept {
    fn write(&mut self, x: &Exchange, data: &Data) {
        let Some(copy) = &mut self.copy else { return };
        if let Err(error) = write(&mut copy.0.file, data) {
            let (path, errno) = (copy.0.path.display().to_string(), Errno::from(&error));
            x.log_error(Level::Crit, format_args!("write() \"{path}\" failed ({errno})"));
            self.copy = None;
        }
    }

    /// The answer is complete: the file takes its name.
    fn finish(&mut self, x: &mut Exchange) {
        let settings = self.settings.clone();
        let (Some(copy), Some(store)) = (self.copy.take(), &settings.store) else { return };
        let path = store.path(x);
        if path.as_os_str().is_empty() {
            return;
        }
        let changed = last_modified(x);
        if let Err((call, error)) = copy.take_name(&path, store.mode, changed) {
            let (shown, errno) = (Bytes(path.as_os_str().as_bytes()), Errno::from(&error));
            x.log_error(Level::Crit, format_args!("{call} \"{shown}\" failed ({errno})"));
        }
    }
}

impl Copy {
    fn take_name(
        &self,
        path: &Path,
        mode: u32,
        changed: Option<Duration>,
    ) -> Result<(), (&'static str, io::Error)> {
        let file = &self.0.file;
        file.set_permissions(Permissions::from_mode(mode)).map_err(|error| ("chmod()", error))?;
        if let Some(changed) = changed {
            file.set_modified(UNIX_EPOCH + changed).map_err(|error| ("utimes()", error))?;
        }
        let made = match std::fs::rename(&self.0.path, path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = path.parent() {
                    // Whoever may read a file may look into its folder.
                    let mode = mode | (mode & 0o444) >> 2;
                    let mut builder = DirBuilder::new();
                    let made = builder.mode(mode).recursive(true).create(folder);
                    made.map_err(|error| ("mkdir()", error))?;
                }
                std::fs::rename(&self.0.path, path)
            }
            made => made,
        };
        match made {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let beside = beside(path, &self.0.path);
                let copied = std::fs::copy(&self.0.path, &beside)
                    .and_then(|_| std::fs::rename(&beside, path));
                copied.map_err(|error| ("rename()", error))
            }
            made => made.map_err(|error| ("rename()", error)),
        }
    }
}

/// A name in the folder of `path` that nobody else uses.
fn beside(path: &Path, temp: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(temp.file_name().unwrap_or_default());
    name.into()
}

/// When the backend's answer was changed last.
fn last_modified(x: &Exchange) -> Option<Duration> {
    let log = x.upstream.as_deref()?;
    let text = x.text(log.headers.value(Known::LastModified)?);
    Some(Duration::from_secs(u64::try_from(wire::http1::date::parse(text)?).ok()?))
}

fn write(file: &mut File, data: &Data) -> io::Result<()> {
    let Data::File(range) = data else { return file.write_all(data.bytes()) };
    let source = File::from(range.file.try_clone()?);
    let mut block = vec![0; STEP];
    let (mut offset, mut left) = (range.offset, range.length);
    while left > 0 {
        let size = usize::try_from(left).unwrap_or(STEP).min(STEP);
        let read = source.read_at(&mut block[..size], offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all(&block[..read])?;
        offset += read as u64;
        left -= read as u64;
    }
    Ok(())
}

impl Pull for Kept {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        let pulled = ready!(self.body.poll_pull(cx, x));
        match &pulled {
            Ok(Some(piece)) => self.write(x, &piece.data),
            Ok(None) => self.finish(x),
            Err(Broken) => self.copy = None,
        }
        Poll::Ready(pulled)
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}

#[cfg(test)]
mod tests {
    use crate::proxy::directives as d;

    #[test]
    fn permissions() {
        let check = |arguments: &str, expected: Result<u32, &str>| {
            let found = d::PROXY_STORE_ACCESS.read_text(arguments);
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("user:rw", Ok(0o600));
        check("user:r", Ok(0o400));
        check("user:rw group:rw all:r", Ok(0o664));
        check("all:r", Ok(0o604));
        check("group:w", Ok(0o620));
        check("user", Err("invalid value \"user\""));
        check("user:x", Err("invalid value \"user:x\""));
        check("nobody:r", Err("invalid value \"nobody:r\""));
    }
}
