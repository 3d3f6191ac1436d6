//! Telling a person what is wrong with a configuration, and the log the first line of it.

use std::io::{IsTerminal, Write};
use std::path::Path;

use config::{Diagnostic, Tree};
use session::log::{Level, Log, LogFiles, mirror_to_stderr, no_context};
use session::log_errno;
use system::identity::identity;

use crate::paths;

/// The log before a configuration is in force.
pub struct Early {
    pub log: Log,
    /// Whether its lines appear on stderr themselves.
    on_stderr: bool,
}

impl Early {
    /// Opens the file of `-e`, or the built-in one, under the prefix. While there is such a
    /// file, messages of level warn and worse also go to stderr.
    pub fn open(error_log: Option<&Path>, prefix: &Path) -> Early {
        let program = identity().program;
        let path = match error_log {
            // Nobody asked for a file: short messages for a person.
            None if paths::ERROR_LOG == "stderr" => {
                return Early { log: Log::stderr(program), on_stderr: true };
            }
            None => Path::new(paths::ERROR_LOG),
            Some(path) => path,
        };
        let on_stderr = path == Path::new("stderr") || path.as_os_str().is_empty();
        let log = match on_stderr {
            true => Log::early(program, path),
            false => Log::early(program, &prefix.join(path)),
        };
        mirror_to_stderr(Some(program));
        Early { log, on_stderr }
    }

    /// Reports findings: in full on a terminal, by their first lines elsewhere and in the log.
    pub fn report(&self, tree: &Tree, findings: &[Diagnostic]) {
        if !std::io::stderr().is_terminal() {
            return to_log(&self.log, tree, findings);
        }
        if !self.on_stderr {
            // The log's file gets the plain line, the terminal its own picture.
            mirror_to_stderr(None);
            to_log(&self.log, tree, findings);
            mirror_to_stderr(Some(identity().program));
        }
        for finding in findings {
            say(&finding.render(tree, identity().program, true));
        }
    }
}

/// Writes the first line of each finding to a log.
pub fn to_log(log: &Log, tree: &Tree, findings: &[Diagnostic]) {
    for finding in findings {
        let line = finding.first_line(tree);
        log.write(finding.level, None, format_args!("{line}"), &no_context);
    }
}

/// Ends the time in which messages also go to the terminal of whoever started the program:
/// from here on they go to the log alone, and so does what anybody writes to stderr, unless it is
/// the file of some log.
pub fn leave_stderr(log: &Log, files: &LogFiles) {
    mirror_to_stderr(None);
    if files.uses_stderr() {
        return;
    }
    if let Err(error) = log.redirect_stderr() {
        log_errno!(log, Level::Alert, error.into(), None, &no_context, "dup2(STDERR) failed");
    }
}

/// Prints `PROGRAM: text` on stderr.
pub fn say_as_program(text: &str) {
    say(&format!("{}: {text}", identity().program));
}

/// Prints a line on stderr; a closed stderr is nobody's loss.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
