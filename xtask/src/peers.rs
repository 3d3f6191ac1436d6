//! The real programs that some tests need: which, and how they come onto this machine.
//!
//! A test file `tests/peers_*.rs` names its programs in a line `//! Needs: nginx, curl.`; only
//! those are asked for. What is missing is installed with apt-get when this user may do that;
//! `pip:NAME` is a package of Python, which goes into an environment of its own under `target`.

use crate::workspace::{File, files};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

/// Packages of Debian whose name is not that of their program.
const PACKAGES: &[(&str, &str)] = &[
    ("h2load", "nghttp2-client"),
    ("nghttp", "nghttp2-client"),
    ("testssl", "testssl.sh"),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
    ("dig", "bind9-dnsutils"),
    ("nc", "netcat-openbsd"),
    ("mariadbd", "mariadb-server"),
    ("pg_createcluster", "postgresql"),
];

/// Where packages of Python go; tests know the place.
const PYTHON: &str = "target/peers/python";

/// Installs what is missing; true when every program is there at the end, and tells which is not.
pub(crate) fn provide() -> Result<bool, String> {
    let needed = needed(&files()?);
    let missing: Vec<&str> =
        needed.keys().map(String::as_str).filter(|program| !is_there(program)).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    install("test", &missing);
    let mut complete = true;
    for program in missing.into_iter().filter(|program| !is_there(program)) {
        complete = false;
        eprintln!("test: could not install {program}, which {} needs", needed[program].join(", "));
    }
    Ok(complete)
}

/// Installs those of `programs`, or files by their whole path, that are missing. Which task asks is
/// told in front of messages; what is there afterwards is seen with [`is_there`].
pub(crate) fn provide_programs(task: &str, programs: &[&str]) {
    let missing: Vec<&str> = programs.iter().copied().filter(|name| !is_there(name)).collect();
    if !missing.is_empty() {
        install(task, &missing);
    }
}

/// Each program with the test files that need it.
fn needed(files: &[File]) -> BTreeMap<String, Vec<String>> {
    let mut needed: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let peers = files.iter().filter(|file| file.path.contains("/tests/peers_"));
    for file in peers {
        let lines = file.text.lines().filter_map(|line| line.strip_prefix("//! Needs: "));
        for program in lines.flat_map(|line| line.trim_end_matches('.').split(", ")) {
            needed.entry(program.to_string()).or_default().push(file.path.clone());
        }
    }
    needed
}

/// Whether a program is installed, or a file exists when its whole path is given.
pub(crate) fn is_there(program: &str) -> bool {
    if let Some(package) = program.strip_prefix("pip:") {
        let look = format!("import importlib.metadata as m; m.version('{package}')");
        let mut python = Command::new(Path::new(PYTHON).join("bin/python"));
        let outcome = python.args(["-c", &look]).stderr(Stdio::null()).status();
        return outcome.is_ok_and(|status| status.success());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    // Servers live in directories that an ordinary user's PATH leaves out.
    let mut directories = path.split(':').chain(["/usr/sbin", "/usr/local/sbin"]);
    directories.any(|directory| Path::new(directory).join(program).is_file())
}

/// Tries to install `programs`; what came of it is seen afterwards.
fn install(task: &str, programs: &[&str]) {
    println!("{task}: installing {}", programs.join(", "));
    let (of_python, programs): (Vec<&str>, Vec<&str>) =
        programs.iter().partition(|program| program.starts_with("pip:"));
    if !programs.is_empty() {
        install_programs(task, &programs);
    }
    if !of_python.is_empty() {
        install_packages(task, &of_python);
    }
}

/// Packages of Python, into their environment.
fn install_packages(task: &str, packages: &[&str]) {
    if !Path::new(PYTHON).join("bin/pip").is_file() {
        install_programs(task, &["python3-venv"]);
        run(task, Command::new("python3").args(["-m", "venv", PYTHON]));
    }
    let mut pip = Command::new(Path::new(PYTHON).join("bin/pip"));
    pip.args(["install", "-q", "--disable-pip-version-check"]);
    run(task, pip.args(packages.iter().map(|package| package.trim_start_matches("pip:"))));
}

fn install_programs(task: &str, programs: &[&str]) {
    let package = |program: &&str| {
        let known = PACKAGES.iter().find(|(name, _)| name == program);
        known.map_or(program.to_string(), |(_, package)| package.to_string())
    };
    let packages: Vec<String> = programs.iter().map(package).collect();
    apt_get(task, &["update", "-q"]);
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    apt_get(task, &arguments);
}

fn apt_get(task: &str, arguments: &[&str]) {
    let root = std::fs::metadata("/proc/self").is_ok_and(|own| {
        use std::os::unix::fs::MetadataExt;
        own.uid() == 0
    });
    let mut command = if root {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "--preserve-env=DEBIAN_FRONTEND,RUNLEVEL", "apt-get"]);
        sudo
    };
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
    // In runlevel 1 the packages' scripts start no servers.
    command.env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    run(task, &mut command);
}

/// Runs a command, and tells what went wrong.
fn run(task: &str, command: &mut Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let what = command.get_args().next().unwrap_or_default().to_string_lossy().into_owned();
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("{task}: {name} {what} failed: {status}"),
        Err(error) => eprintln!("{task}: {name} cannot be run: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_files_name_what_they_need() {
        let file = |path: &str, text: &str| File { path: path.to_string(), text: text.to_string() };
        let found = needed(&[
            file("crates/a/tests/peers_x.rs", "//! X.\n//!\n//! Needs: nginx, curl.\n"),
            file("crates/a/tests/peers_y.rs", "//! Needs: curl.\n"),
            file("crates/a/tests/z.rs", "//! Needs: gcc.\n"),
        ]);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["curl", "nginx"]);
        assert_eq!(found["curl"].len(), 2);
    }
}
