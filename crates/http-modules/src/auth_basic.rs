//! `auth_basic`: users and passwords in a file (nginx: ngx_http_auth_basic_module, RFC 7617).
//!
//! `password` compares a password with what the file has; this file finds the user's line and
//! asks the client for credentials.

mod bcrypt;
mod des;
mod password;
mod sha_crypt;
mod yescrypt;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use config::{AnyDirective, Context, Directive, Scope, read};
use http::credentials;
use http::{Compiler, Exchange, Field, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::contexts::{HTTP, LIMIT_EXCEPT, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;
use system::errno::Errno;
use wire::http1::Known;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_auth_basic", "Asks clients for a user name and a password.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&AUTH_BASIC, &AUTH_BASIC_USER_FILE];

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION, LIMIT_EXCEPT];

/// `auth_basic`: the realm.
pub static AUTH_BASIC: Directive<config::Template> =
    Directive::new("auth_basic", PLACES, read::template)
        .default("off")
        .syntax("auth_basic TEXT | off;")
        .text(
            "Lets only clients pass that send a user name and a password which \
             `auth_basic_user_file` has (\"Basic\" authentication, RFC 7617). TEXT, which may \
             hold variables, is the realm that the browser shows when it asks its user. `off` \
             asks for nothing, also where an outer level does.",
        )
        .example("auth_basic \"for members\";");

/// `auth_basic_user_file`.
pub static AUTH_BASIC_USER_FILE: Directive<config::Template> =
    Directive::new("auth_basic_user_file", PLACES, read::template)
        .syntax("auth_basic_user_file FILE;")
        .text(
            "The file with users and passwords, one `NAME:PASSWORD` per line; what follows a \
             further colon, and lines that begin with `#`, are comments. Passwords may be hashed \
             as `htpasswd` or `openssl passwd` do: `$apr1$`, `$1$`, `$5$`, `$6$`, `$2y$` \
             (bcrypt), `$y$` (yescrypt), the traditional 13 characters of crypt(3), `{SHA}` and \
             `{SSHA}`; `{PLAIN}` stands before one that is not. FILE may hold variables; a \
             relative one starts at the directory of the configuration file. It is read for each \
             request, so changes hold at once.",
        )
        .example("auth_basic_user_file conf/htpasswd;");

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let realm = scope.get(&AUTH_BASIC);
    let Some(file) = scope.find(&AUTH_BASIC_USER_FILE) else { return };
    if realm.constant() == Some(b"off") {
        return;
    }
    let (realm, file) = (c.template(&realm), c.template(&file));
    builder.guard(AuthBasic { realm, file, folder: scope.tree().conf_prefix.clone() });
}

struct AuthBasic {
    realm: Template,
    file: Template,
    /// Relative paths start here.
    folder: PathBuf,
}

impl Guard for AuthBasic {
    fn stage(&self) -> Stage {
        Stage::Access
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Now(self.verdict(x))
    }
}

/// What a file says about a user.
enum Found {
    Nobody,
    Password(Vec<u8>),
}

impl AuthBasic {
    fn verdict(&self, x: &mut Exchange) -> Verdict {
        let realm = self.realm.value(x);
        if x.text(realm) == b"off" {
            return Verdict::Abstain;
        }
        let Some((user, given)) = credentials::basic(x).filter(|(user, _)| !user.is_empty()) else {
            let message = "no user/password was provided for basic authentication";
            x.log_error(Level::Info, format_args!("{message}"));
            return challenge(x, realm);
        };
        let file = self.file.value(x);
        let path = self.folder.join(OsStr::from_bytes(x.text(file)));
        match look_up(&path, x.text(user)) {
            Err(error) => self.no_file(x, &path, &error),
            Ok(Found::Nobody) => {
                let (name, path) = (Bytes(x.text(user)), path.display());
                let message = format_args!("user \"{name}\" was not found in \"{path}\"");
                x.log_error(Level::Error, message);
                challenge(x, realm)
            }
            Ok(Found::Password(stored)) => {
                if password::matches(x.text(given), &stored) {
                    return Verdict::Next;
                }
                let name = Bytes(x.text(user));
                x.log_error(Level::Error, format_args!("user \"{name}\": password mismatch"));
                challenge(x, realm)
            }
        }
    }

    fn no_file(&self, x: &mut Exchange, path: &Path, error: &io::Error) -> Verdict {
        let (path, errno) = (path.display(), Errno::from(error));
        if error.kind() == ErrorKind::NotFound {
            x.log_error(Level::Error, format_args!("open() \"{path}\" failed ({errno})"));
            return Verdict::Status(403);
        }
        let call = if error.kind() == ErrorKind::IsADirectory { "pread()" } else { "open()" };
        x.log_error(Level::Crit, format_args!("{call} \"{path}\" failed ({errno})"));
        Verdict::Status(500)
    }
}

/// Asks the client for credentials.
fn challenge(x: &mut Exchange, realm: Span) -> Verdict {
    if memchr::memchr2(b'\r', b'\n', x.text(realm)).is_some() {
        let shown = Bytes(x.text(realm));
        x.log_error(Level::Error, format_args!("line break in \"WWW-Authenticate\": \"{shown}\""));
        return Verdict::Status(500);
    }
    let mark = x.arena.mark();
    x.arena.push(b"Basic realm=\"");
    x.arena.copy(realm);
    x.arena.push(b"\"");
    let value = x.arena.since(mark);
    let known = Known::WwwAuthenticate;
    x.response.headers.push(Field { name: Span::EMPTY, value, known });
    Verdict::Status(401)
}

/// Finds a user's password in a file.
fn look_up(path: &Path, user: &[u8]) -> io::Result<Found> {
    search(&mut BufReader::new(File::open(path)?), user)
}

fn search(lines: &mut impl BufRead, user: &[u8]) -> io::Result<Found> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line)? == 0 {
            return Ok(Found::Nobody);
        }
        let is_comment = matches!(line.first(), Some(b'#' | b'\r' | b'\n'));
        let Some(rest) = line.strip_prefix(user).and_then(|rest| rest.strip_prefix(b":")) else {
            continue;
        };
        if !is_comment {
            let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | b':');
            let end = rest.iter().position(ends).unwrap_or(rest.len());
            return Ok(Found::Password(rest[..end].to_vec()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_in_files() {
        let file = b"# comment:x\n\nann:{PLAIN}a:comment\r\nbob:b\n#bob:c\nann:second\ncut:last";
        for (user, expected) in [
            ("ann", Some("{PLAIN}a")),
            ("bob", Some("b")),
            ("cut", Some("last")),
            ("an", None),
            ("annn", None),
            ("#bob", None),
            ("second", None),
        ] {
            let found = match search(&mut &file[..], user.as_bytes()).unwrap() {
                Found::Password(text) => Some(String::from_utf8(text).unwrap()),
                Found::Nobody => None,
            };
            assert_eq!(found.as_deref(), expected, "{user}");
        }
    }
}
