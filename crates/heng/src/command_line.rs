//! The command line: nginx's options in all their combinations, and our own subcommands.
//!
//! The scanner is our own rather than a library's, because scripts rely on nginx's reading:
//! `-tq`, `-c FILE` and `-cFILE`, a lone `-` that says nothing, `-s=stop` that is an invalid
//! signal, and its words for each mistake.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What `-s` asks of a running master.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    Stop,
    Quit,
    Reload,
    Reopen,
}

/// What `-v`, `-V` and `-h` ask to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Shown {
    /// Any of the three.
    pub version: bool,
    /// `-V`.
    pub configure: bool,
    /// `-h` or `-?`.
    pub help: bool,
}

/// How a configuration is tested.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Test {
    #[default]
    No,
    /// `-t`.
    Check,
    /// `-T`: also prints it.
    Dump,
}

/// The options of one call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Options {
    pub shown: Shown,
    pub test: Test,
    /// `-q`: a test says nothing when all is well.
    pub quiet: bool,
    pub request: Option<Request>,
    /// `-p`.
    pub prefix: Option<PathBuf>,
    /// `-c`.
    pub configuration: Option<PathBuf>,
    /// `-e`.
    pub error_log: Option<PathBuf>,
    /// `-g`: directives that stand before the configuration file's.
    pub globals: Option<Vec<u8>>,
}

/// Reads the arguments behind the program's name. The error is nginx's text without its
/// `nginx: `; the exit code that belongs to it is 1.
pub fn read(arguments: &[OsString]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let bytes = argument.as_bytes();
        let Some(letters) = bytes.strip_prefix(b"-") else {
            return Err(format!("invalid option: \"{}\"", argument.to_string_lossy()));
        };
        read_letters(&mut options, letters, &mut rest)?;
    }
    Ok(options)
}

/// Reads one argument's letters; one that takes a value takes the rest of its argument, or the
/// next one.
fn read_letters<'a>(
    options: &mut Options,
    letters: &'a [u8],
    rest: &mut impl Iterator<Item = &'a OsString>,
) -> Result<(), String> {
    for (at, letter) in letters.iter().enumerate() {
        let mut value = |wanted: &str| match &letters[at + 1..] {
            [] => rest
                .next()
                .cloned()
                .ok_or_else(|| format!("option \"-{}\" requires {wanted}", char::from(*letter))),
            inline => Ok(OsString::from_vec(inline.to_vec())),
        };
        match letter {
            b'?' | b'h' => {
                options.shown.version = true;
                options.shown.help = true;
            }
            b'v' => options.shown.version = true,
            b'V' => {
                options.shown.version = true;
                options.shown.configure = true;
            }
            b't' => options.test = options.test.max_with(Test::Check),
            b'T' => options.test = Test::Dump,
            b'q' => options.quiet = true,
            b'p' => options.prefix = Some(value("directory name")?.into()),
            b'e' => options.error_log = Some(value("file name")?.into()),
            b'c' => options.configuration = Some(value("file name")?.into()),
            b'g' => options.globals = Some(value("parameter")?.into_vec()),
            b's' => options.request = Some(request(&value("parameter")?)?),
            _ => return Err(format!("invalid option: \"{}\"", first_character(&letters[at..]))),
        }
        if matches!(letter, b'p' | b'e' | b'c' | b'g' | b's') {
            break;
        }
    }
    Ok(())
}

impl Test {
    fn max_with(self, other: Test) -> Test {
        if self == Test::No { other } else { self }
    }
}

fn request(name: &OsStr) -> Result<Request, String> {
    match name.as_bytes() {
        b"stop" => Ok(Request::Stop),
        b"quit" => Ok(Request::Quit),
        b"reload" => Ok(Request::Reload),
        b"reopen" => Ok(Request::Reopen),
        _ => Err(format!("invalid option: \"-s {}\"", name.to_string_lossy())),
    }
}

/// The first letter of what may be any bytes, as text.
fn first_character(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(1).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Options, String> {
        let words: Vec<OsString> =
            line.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect();
        read(&words)
    }

    #[test]
    fn mistakes_have_nginx_words() {
        for (line, expected) in [
            ("-x", "invalid option: \"x\""),
            ("-tx", "invalid option: \"x\""),
            ("foo", "invalid option: \"foo\""),
            ("-t foo", "invalid option: \"foo\""),
            ("--help", "invalid option: \"-\""),
            ("-é", "invalid option: \"é\""),
            ("-c", "option \"-c\" requires file name"),
            ("-e", "option \"-e\" requires file name"),
            ("-tc", "option \"-c\" requires file name"),
            ("-p", "option \"-p\" requires directory name"),
            ("-g", "option \"-g\" requires parameter"),
            ("-s", "option \"-s\" requires parameter"),
            ("-s foo", "invalid option: \"-s foo\""),
            ("-s=stop", "invalid option: \"-s =stop\""),
        ] {
            assert_eq!(parsed(line), Err(expected.to_owned()), "{line}");
        }
    }

    #[test]
    fn options_combine() {
        let none = Options::default();
        let file = || Some(PathBuf::from("f"));
        let version = Shown { version: true, ..Shown::default() };
        for (line, expected) in [
            ("", none.clone()),
            ("-", none.clone()),
            ("-tq", Options { test: Test::Check, quiet: true, ..none.clone() }),
            ("-T", Options { test: Test::Dump, ..none.clone() }),
            ("-T -t", Options { test: Test::Dump, ..none.clone() }),
            ("-t -c f", Options { test: Test::Check, configuration: file(), ..none.clone() }),
            ("-tcf", Options { test: Test::Check, configuration: file(), ..none.clone() }),
            ("-p f -e f", Options { prefix: file(), error_log: file(), ..none.clone() }),
            ("-s reload", Options { request: Some(Request::Reload), ..none.clone() }),
            ("-sstop", Options { request: Some(Request::Stop), ..none.clone() }),
            ("-s -s", none.clone()),
            ("-v", Options { shown: version, ..none.clone() }),
            ("-vt", Options { shown: version, test: Test::Check, ..none.clone() }),
            ("-V", Options { shown: Shown { configure: true, ..version }, ..none.clone() }),
            ("-?", Options { shown: Shown { help: true, ..version }, ..none.clone() }),
            ("-h", Options { shown: Shown { help: true, ..version }, ..none.clone() }),
            ("-g x;", Options { globals: Some(b"x;".to_vec()), ..none.clone() }),
        ] {
            let expected = if line == "-s -s" {
                Err("invalid option: \"-s -s\"".into())
            } else {
                Ok(expected)
            };
            assert_eq!(parsed(line), expected, "{line}");
        }
    }
}
