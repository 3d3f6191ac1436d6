//! The configuration of a test: a text with placeholders, and the files beside it.
//!
//! `%%PORT_0%%`, `%%PORT_1%%`, ... become ports reserved for the test, `%%DIR%%` its directory,
//! and every `%%NAME%%` given to [`Config::with`] its value. Line numbers never move.
//!
//! Two settings of the environment change every configuration: `HENG_TEST_DRIVER` chooses the
//! event driver where the test does not, and `HENG_DELETE_DIRECTIVE` takes a directive out;
//! `HENG_RECORD_DIRECTIVES` names a file that collects the directives in use.

use crate::directives::{Statement, delete, statements};
use crate::ports::Port;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A configuration text, its values, and the files it needs.
#[derive(Clone, Default)]
pub struct Config {
    pub(crate) text: String,
    pub(crate) values: BTreeMap<String, String>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) arguments: Vec<String>,
    pub(crate) globals: String,
    pub(crate) link: Option<String>,
    pub(crate) program: Option<PathBuf>,
}

impl Config {
    /// A whole configuration.
    pub fn new(text: &str) -> Config {
        Config { text: text.to_string(), ..Config::default() }
    }

    /// The inside of an `http` block; the block, an empty `events` block and an access log at
    /// `logs/access.log` are put around it on its first line.
    pub fn http(inside: &str) -> Config {
        let log = match statements(inside).iter().any(|statement| statement.name() == "access_log")
        {
            true => "",
            false => "access_log %%DIR%%/logs/access.log; ",
        };
        Config::new(&format!("events {{}} http {{ {log}{inside}\n}}\n"))
    }

    /// The inside of a `stream` block; the block and an empty `events` block are put around it on
    /// its first line.
    pub fn stream(inside: &str) -> Config {
        Config::new(&format!("events {{}} stream {{ {inside}\n}}\n"))
    }

    /// One `server` with that inside, listening on `%%PORT_0%%` of the loopback.
    pub fn server(inside: &str) -> Config {
        Config::http(&format!("server {{ listen 127.0.0.1:%%PORT_0%%; {inside}\n}}"))
    }

    /// Adds lines at the top level, before everything else, without a line break.
    pub fn main(self, lines: &str) -> Config {
        Config { text: format!("{lines} {}", self.text), ..self }
    }

    /// Sets the value of `%%NAME%%`.
    pub fn with(mut self, name: &str, value: impl Display) -> Config {
        self.values.insert(name.to_string(), value.to_string());
        self
    }

    /// Puts a file below the test's directory, making the directories it needs. Placeholders in
    /// files named `*.conf` are replaced as in the configuration.
    pub fn file(mut self, path: &str, content: impl AsRef<[u8]>) -> Config {
        self.files.push((path.to_string(), content.as_ref().to_vec()));
        self
    }

    /// Sets an environment variable of the server.
    pub fn environment(mut self, name: &str, value: &str) -> Config {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// Adds an argument to the server's command line.
    pub fn argument(mut self, argument: &str) -> Config {
        self.arguments.push(argument.to_string());
        self
    }

    /// Adds directives to those given with `-g`.
    pub fn globals(mut self, directives: &str) -> Config {
        self.globals.push_str(directives);
        self
    }

    /// Calls the program through a link of that name in the test's directory.
    pub fn called(mut self, name: &str) -> Config {
        self.link = Some(name.to_string());
        self
    }

    /// Runs another program than the one under test, such as the one it is compared with.
    pub fn program(mut self, path: impl Into<PathBuf>) -> Config {
        self.program = Some(path.into());
        self
    }

    /// True when the text has a directive of that name at its top level.
    pub(crate) fn sets(&self, name: &str) -> bool {
        self.top_level(name).is_some()
    }

    /// The first directive of that name at the top level.
    pub(crate) fn top_level(&self, name: &str) -> Option<Statement> {
        let found = statements(&self.text);
        found.into_iter().find(|statement| statement.depth == 0 && statement.name() == name)
    }

    /// Applies what the environment asks for to the text and to the included files.
    pub(crate) fn apply_environment(&mut self) {
        if let Ok(path) = std::env::var("HENG_RECORD_DIRECTIVES") {
            record(&path, &self.directive_names());
        }
        if let Ok(name) = std::env::var("HENG_DELETE_DIRECTIVE") {
            self.text = delete(&self.text, &name).unwrap_or_else(|| std::mem::take(&mut self.text));
            self.globals =
                delete(&self.globals, &name).unwrap_or_else(|| std::mem::take(&mut self.globals));
            for (_, content) in self.files.iter_mut().filter(|(path, _)| included(path)) {
                let text = String::from_utf8_lossy(content);
                if let Some(without) = delete(&text, &name) {
                    *content = without.into_bytes();
                }
            }
        }
        if let Ok(driver) = std::env::var("HENG_TEST_DRIVER") {
            self.text = with_driver(&self.text, &driver);
        }
    }

    /// The names of all directives in the text and the included files, each once.
    fn directive_names(&self) -> Vec<String> {
        let mut texts = vec![self.text.clone(), self.globals.clone()];
        for (_, content) in self.files.iter().filter(|(path, _)| included(path)) {
            texts.push(String::from_utf8_lossy(content).into_owned());
        }
        let mut names: Vec<String> = texts
            .iter()
            .flat_map(|text| statements(text))
            .filter(|statement| !statement.row)
            .map(|statement| statement.name().to_string())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// `text` with its placeholders replaced; reserves the ports it names. Fails the test for a
    /// placeholder without a value.
    #[track_caller]
    pub(crate) fn expand(
        &self,
        text: &str,
        directory: &Path,
        ports: &mut BTreeMap<usize, Port>,
    ) -> String {
        let mut expanded = String::with_capacity(text.len());
        let mut parts = text.split("%%");
        expanded.push_str(parts.next().unwrap_or_default());
        while let Some(name) = parts.next() {
            if let Some(value) = self.values.get(name) {
                expanded.push_str(value);
            } else if name == "DIR" {
                expanded.push_str(&directory.to_string_lossy());
            } else if let Some(number) = name.strip_prefix("PORT_") {
                let number = number.parse().expect("%%PORT_n%% has a number");
                let port = ports.entry(number).or_insert_with(Port::reserve);
                expanded.push_str(&port.to_string());
            } else {
                panic!("the placeholder %%{name}%% has no value");
            }
            expanded.push_str(parts.next().unwrap_or_default());
        }
        expanded
    }
}

/// True for files that hold directives.
pub(crate) fn included(path: &str) -> bool {
    path.ends_with(".conf")
}

/// `text` with `use driver;` in its events block, unless it chooses a driver itself.
fn with_driver(text: &str, driver: &str) -> String {
    let found = statements(text);
    let chosen = found.iter().any(|statement| statement.name() == "use");
    let events = found.iter().find(|statement| statement.name() == "events");
    match events.and_then(|events| events.inside) {
        Some(inside) if !chosen => {
            format!("{} use {driver};{}", &text[..inside], &text[inside..])
        }
        _ => text.to_string(),
    }
}

/// Appends `names` to the file at `path`, one a line, in one write: several tests may share it.
fn record(path: &str, names: &[String]) {
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    let file = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(lines.as_bytes()));
    written.unwrap_or_else(|error| panic!("cannot record directives in {path}: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_replaced() {
        let mut ports = BTreeMap::new();
        let config = Config::new("").with("NAME", 7);
        let check = |text: &str, expected: &str| {
            assert_eq!(config.expand(text, Path::new("/d"), &mut BTreeMap::new()), expected);
        };
        check("a %%NAME%% b", "a 7 b");
        check("%%DIR%%/x", "/d/x");
        check("100% %d", "100% %d");
        let twice = config.expand("%%PORT_0%% %%PORT_0%%", Path::new("/d"), &mut ports);
        let (first, second) = twice.split_once(' ').unwrap();
        assert_eq!(first, second);
        assert!(first.parse::<u16>().unwrap() > 0);
    }

    #[test]
    fn the_driver_goes_where_none_was_chosen() {
        let check = |text: &str, expected: &str| assert_eq!(with_driver(text, "poll"), expected);
        check("events {}", "events { use poll;}");
        check("events { use select; }", "events { use select; }");
        check("http {}", "http {}");
    }

    #[test]
    fn globals_are_seen_at_the_top_level_only() {
        let config = Config::new("pid x; events { daemon on; }");
        assert!(config.sets("pid") && !config.sets("daemon"));
    }
}
