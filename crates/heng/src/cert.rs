//! `heng cert`: a certificate that signs itself, and its key, for trying TLS out on one machine.
//!
//! - `heng cert` writes `localhost.crt` and `localhost.key` to the current directory, good for
//!   `localhost`, 127.0.0.1 and ::1;
//! - `heng cert NAME ...` is for these names and addresses; the first one names the files;
//! - `--dir DIRECTORY` writes them there.
//!
//! Files that exist are left alone.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};

use crate::report::say_as_program;

const USAGE: &str = "usage: cert [--dir DIRECTORY] [NAME ...]";
/// What the certificate is for when no name is given.
const HERE: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// How long it is good: browsers take no more than 398 days.
const DAYS: i64 = 397;

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    directory: PathBuf,
    names: Vec<String>,
}

/// Runs the subcommand. The result is the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    let Some(wanted) = read(arguments) else {
        say_as_program(USAGE);
        return 1;
    };
    match make(&wanted) {
        Ok((certificate, key)) => {
            let (certificate, key) = (certificate.display(), key.display());
            let text = format!("ssl_certificate     {certificate};\nssl_certificate_key {key};\n");
            // Nobody reads it: the files are there all the same.
            let _ = io::stdout().write_all(text.as_bytes());
            0
        }
        Err(reason) => {
            say_as_program(&reason);
            1
        }
    }
}

fn read(arguments: &[OsString]) -> Option<Wanted> {
    let mut wanted = Wanted { directory: PathBuf::from("."), names: Vec::new() };
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.to_str()? {
            "--dir" => wanted.directory = words.next()?.into(),
            option if option.starts_with('-') || option.is_empty() => return None,
            name => wanted.names.push(name.to_owned()),
        }
    }
    if wanted.names.is_empty() {
        wanted.names = HERE.map(str::to_owned).to_vec();
    }
    Some(wanted)
}

fn make(wanted: &Wanted) -> Result<(PathBuf, PathBuf), String> {
    let failed = |error: rcgen::Error| format!("cannot make a certificate: {error}");
    let [first, ..] = wanted.names.as_slice() else { return Err(USAGE.to_owned()) };
    let mut params = CertificateParams::new(wanted.names.clone()).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, first.as_str());
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    params.not_before = (now - day).into();
    params.not_after = (now + day * DAYS as u32).into();
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    // A name such as *.example.com makes a poor file name.
    let base: String = first.chars().map(|c| if "*/:".contains(c) { '_' } else { c }).collect();
    let path = |ending: &str| wanted.directory.join(format!("{base}.{ending}"));
    let (certificate_path, key_path) = (path("crt"), path("key"));
    write(&key_path, &key.serialize_pem(), 0o600)?;
    write(&certificate_path, &certificate.pem(), 0o644)?;
    Ok((certificate_path, key_path))
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| {
        let errno = system::errno::Errno::from(&error);
        format!("cannot write \"{}\" ({errno})", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_a_directory() {
        let check = |words: &[&str], expected: Option<(&str, &[&str])>| {
            let words: Vec<OsString> = words.iter().map(OsString::from).collect();
            let expected = expected.map(|(directory, names)| Wanted {
                directory: directory.into(),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
            });
            assert_eq!(read(&words), expected, "{words:?}");
        };
        check(&[], Some((".", &HERE)));
        check(
            &["a.example", "--dir", "/tmp", "10.0.0.1"],
            Some(("/tmp", &["a.example", "10.0.0.1"])),
        );
        check(&["--dir"], None);
        check(&["--days", "3"], None);
    }
}
