//! Under which name this process answers: `heng`, or `nginx` when called through such a link.
//!
//! Set once by `main` before anything else; version lines, the `Server` header, error pages and
//! log lines read it. Until it is set (unit tests), the name is `heng`.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

/// The version of nginx whose behaviour is claimed under its name.
pub const NGINX_VERSION: &str = "1.31.5";

/// This project's own version.
pub const HENG_VERSION: &str = env!("CARGO_PKG_VERSION");

/// A name and a version.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `heng` or `nginx`: the prefix of messages on stderr and of process titles.
    pub program: &'static str,
    /// Digits and dots (`$nginx_version`).
    pub version: &'static str,
    /// `nginx/1.31.5`: the `Server` header with `server_tokens on`, the start notice, `-v`.
    pub server: &'static str,
}

const HENG: Identity = Identity {
    program: "heng",
    version: HENG_VERSION,
    server: concat!("heng/", env!("CARGO_PKG_VERSION")),
};

const NGINX: Identity =
    Identity { program: "nginx", version: NGINX_VERSION, server: "nginx/1.31.5" };

static CURRENT: OnceLock<Identity> = OnceLock::new();

impl Identity {
    /// The identity for the name that a program was called by (`argv[0]`).
    pub fn of_name(called: &OsStr) -> Identity {
        match Path::new(called).file_name() {
            Some(name) if name == NGINX.program => NGINX,
            _ => HENG,
        }
    }
}

/// Fixes the identity of this process by the name it was called by. Later calls change nothing.
pub fn set_by_name(called: &OsStr) {
    // The first call wins; a second one is a test in the same process.
    let _ = CURRENT.set(Identity::of_name(called));
}

/// Who we are.
pub fn identity() -> &'static Identity {
    CURRENT.get_or_init(|| HENG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_link_decides() {
        for (called, expected) in [
            ("nginx", "nginx/1.31.5"),
            ("/usr/sbin/nginx", "nginx/1.31.5"),
            ("./heng", "heng/0.1.0"),
            ("nginx.old", "heng/0.1.0"),
            ("", "heng/0.1.0"),
        ] {
            assert_eq!(Identity::of_name(OsStr::new(called)).server, expected);
        }
        assert!(NGINX.server.ends_with(NGINX_VERSION));
    }
}
