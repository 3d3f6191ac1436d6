//! Where things are when nobody says so: the places built into the program.
//!
//! A packager sets them when building, as with nginx's `./configure`: `HENG_PREFIX=/etc/nginx`,
//! `HENG_CONF_PATH`, `HENG_ERROR_LOG_PATH`, `HENG_PID_PATH`. Without `HENG_PREFIX` relative
//! paths count from the current directory, as in an nginx configured with `--prefix=`.

use std::path::{Path, PathBuf};

use system::identity::identity;

/// The prefix without its final slash; empty stands for the current directory.
pub const PREFIX: &str = match option_env!("HENG_PREFIX") {
    Some(prefix) => prefix,
    None => "",
};

/// Where messages go before the configuration is read, and without an `error_log`.
pub const ERROR_LOG: &str = match option_env!("HENG_ERROR_LOG_PATH") {
    Some(path) => path,
    None => "stderr",
};

/// The main configuration file, relative to the prefix.
pub fn default_configuration() -> PathBuf {
    match option_env!("HENG_CONF_PATH") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(format!("conf/{}.conf", identity().program)),
    }
}

/// The pid file, relative to the prefix.
pub fn default_pid_file() -> PathBuf {
    match option_env!("HENG_PID_PATH") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(format!("logs/{}.pid", identity().program)),
    }
}

/// What `-V` says about these places.
pub fn configure_arguments() -> Vec<String> {
    vec![
        format!("--prefix={PREFIX}"),
        format!("--conf-path={}", default_configuration().display()),
        format!("--error-log-path={ERROR_LOG}"),
        format!("--pid-path={}", default_pid_file().display()),
    ]
}

/// Where relative paths count from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// With its final slash when it is not empty; `-p`, or the built-in one.
    pub prefix: PathBuf,
    /// The main configuration file: `-c` under the prefix, or the built-in one.
    pub configuration: PathBuf,
}

impl Places {
    /// Puts `-p` and `-c` together as nginx does.
    pub fn new(prefix: Option<&Path>, configuration: Option<&Path>) -> Places {
        let prefix = prefix.unwrap_or(Path::new(PREFIX));
        let prefix =
            if prefix.as_os_str().is_empty() { current_directory() } else { prefix.join("") };
        let configuration = match configuration {
            Some(given) => prefix.join(given),
            None => prefix.join(default_configuration()),
        };
        Places { prefix, configuration }
    }

    /// The main configuration file as a path that starts at the prefix. A prefix may be relative
    /// itself (`-p examples`), and must not be put in front twice.
    pub fn configuration_under_prefix(&self) -> &Path {
        self.configuration.strip_prefix(&self.prefix).unwrap_or(&self.configuration)
    }
}

/// The current directory with a final slash. When it is gone, paths stay relative and fail
/// when they are opened, with their name in the message.
fn current_directory() -> PathBuf {
    std::env::current_dir().map_or_else(|_| PathBuf::from("./"), |path| path.join(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_count_from_the_prefix() {
        for (prefix, configuration, expected) in [
            ("/p", "x.conf", "/p/x.conf"),
            ("/p/", "sub/x.conf", "/p/sub/x.conf"),
            ("/p/", "/etc/x.conf", "/etc/x.conf"),
            ("p", "x.conf", "p/x.conf"),
        ] {
            let places = Places::new(Some(Path::new(prefix)), Some(Path::new(configuration)));
            assert_eq!(places.configuration, Path::new(expected));
            assert_eq!(
                places.prefix.join(places.configuration_under_prefix()),
                Path::new(expected)
            );
        }
        let places = Places::new(Some(Path::new("/p")), None);
        assert_eq!(places.prefix, Path::new("/p/"));
        assert_eq!(places.configuration, Path::new("/p/conf/heng.conf"));
    }

    #[test]
    fn without_a_prefix_paths_count_from_the_current_directory() {
        let here = std::env::current_dir().unwrap();
        let places = Places::new(None, Some(Path::new("x.conf")));
        assert_eq!(places.configuration, here.join("x.conf"));
    }
}
