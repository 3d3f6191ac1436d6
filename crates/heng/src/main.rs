//! The program: fixes who it is, reads the command line, and does what it says.

#![forbid(unsafe_code)]

use std::ffi::{OsStr, OsString};

use heng::{cert, command_line, demo, manual, net_setup, report, start};
use system::{allocation, identity, process, title};

#[global_allocator]
static ALLOCATOR: allocation::Pooled = allocation::Pooled;

/// What stands in place of options, by its first word: `heng demo --port 8080`.
type Subcommand = fn(&[OsString]) -> i32;

/// Our own subcommands; under the name nginx there is none.
const SUBCOMMANDS: &[(&str, Subcommand)] = &[
    ("cert", cert::run),
    ("demo", demo::run),
    ("manual", manual::run),
    ("net-setup", net_setup::run),
];

fn main() {
    std::process::exit(run());
}

fn run() -> i32 {
    // Without /proc the title stays as it is; nothing else depends on it.
    let _ = title::prepare();
    if process::open_missing_standard_streams().is_err() {
        return 1;
    }
    let arguments = title::arguments();
    let called = arguments.first().map_or(OsStr::new(""), OsString::as_os_str);
    identity::set_by_name(called);
    let arguments = arguments.get(1..).unwrap_or_default();
    if let Some(first) = arguments.first()
        && identity::identity().program != "nginx"
        && let Some((_, subcommand)) = SUBCOMMANDS.iter().find(|(name, _)| first == name)
    {
        return subcommand(&arguments[1..]);
    }
    match command_line::read(arguments) {
        Ok(options) => start::run(options),
        Err(mistake) => {
            report::say_as_program(&mistake);
            1
        }
    }
}
