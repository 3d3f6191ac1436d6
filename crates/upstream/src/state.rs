//! Where changes of a group outlive the program: `state FILE`.
//!
//! The file holds `server` lines, as the block would. It is read while compiling and written anew
//! after each change, first beside the old one, so that no reader sees half of it.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use config::{Directive, read};
use session::contexts::{STREAM_UPSTREAM, UPSTREAM};
use session::log::{Level, Log, no_context};

use crate::admin::Status;
use crate::directives::{SERVER, Server};
use crate::group::Group;

/// `state`.
pub(crate) static STATE: Directive<String> =
    Directive::new("state", &[UPSTREAM, STREAM_UPSTREAM], read::text)
        .syntax("state FILE;")
        .text(
            "Keeps the servers of the group in FILE instead of the block: what the API changes is \
             written there and is read again at the next start or reload. A file that does not \
             exist is an empty group. The group needs a `zone`, and workers must be able to write \
             the file. A relative FILE starts at the prefix (-p).",
        )
        .example("upstream backend { zone backend 64k; state /var/lib/heng/backend.conf; }");

/// The servers of a file; none when there is no file.
///
/// # Errors
/// What to tell the user.
pub(crate) fn load(path: &Path) -> Result<Vec<Server>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            let errno = system::errno::Errno::from(&error);
            return Err(format!("open() \"{}\" failed ({errno})", path.display()));
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let bad = || format!("invalid line \"{line}\" in state file \"{}\"", path.display());
            let arguments = line.strip_prefix("server ").and_then(|rest| rest.strip_suffix(';'));
            let server = SERVER.read_text(arguments.ok_or_else(bad)?);
            server.map_err(|invalid| format!("{}: {}", bad(), invalid.message))
        })
        .collect()
}

impl Group {
    /// Writes what the group is now to its file, if it has one. A failure is logged.
    pub fn write_state(&self) {
        let Some(path) = self.state.get() else { return };
        let text = text_of(&self.status(net::now() / 1000));
        if let Err(error) = replace(path, &text) {
            let (path, errno) = (path.display(), system::errno::Errno::from(&error));
            let message = format_args!("writing state file \"{path}\" failed ({errno})");
            Log::process().write(Level::Alert, None, message, &no_context);
        }
    }
}

/// Beside the old file and then in its place; where the folder is closed to us, over it.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let written = fs::write(&beside, text).and_then(|()| fs::rename(&beside, path));
    written.or_else(|_| fs::write(path, text))
}

fn text_of(servers: &[Status]) -> String {
    let mut text = String::new();
    for Status { server, route, options, is_backup, .. } in servers {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "server {server} weight={} max_conns={} max_fails={} fail_timeout={}s",
            options.weight, options.max_conns, options.max_fails, options.fail_timeout
        );
        if options.slow_start_ms > 0 {
            let _ = write!(text, " slow_start={}ms", options.slow_start_ms);
        }
        if let Some(route) = route {
            let _ = write!(text, " route={route}");
        }
        if options.ends_when_down {
            text.push_str(" on_marked_down=shutdown_sessions");
        }
        if options.ends_backups_when_up {
            text.push_str(" on_marked_up=shutdown_backup_sessions");
        }
        for (word, is_set) in
            [("backup", *is_backup), ("down", options.down), ("drain", options.drain)]
        {
            if is_set {
                text.push(' ');
                text.push_str(word);
            }
        }
        text.push_str(";\n");
    }
    text
}
