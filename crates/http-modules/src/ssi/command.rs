//! Obeying commands: what each of them does to the page it stands in.

use super::memory::Memory;
use super::scan::{Command, MOST_PARAMETERS};
use super::text::{Mistake, evaluate, holds, mistake, variable};
use super::{DateForm, Settings, included};
use http::{Body, Exchange, Part};
use net::{Chunk, Data};
use session::log::Bytes;
use std::ffi::CString;
use std::rc::Rc;
use wire::http1::escape::{Escape, escape_html, escape_uri};
use wire::http1::target::split_internal;

/// How deeply conditions may be nested.
const DEEPEST: usize = 64;
/// The longest block that is kept for `stub=`.
const LONGEST_BLOCK: usize = 1 << 20;

/// What a command puts into the page.
pub(super) enum Effect {
    Nothing,
    Text(Vec<u8>),
    /// The answer to another request. When the page waits for it, nothing behind the command is
    /// obeyed before it is sent.
    Include {
        part: Part,
        waits: bool,
    },
    /// The answer becomes a variable.
    Set {
        part: Part,
        name: Vec<u8>,
    },
}

/// Where in its conditions a page is, and what `config` and `echo` have said.
pub(super) struct Page {
    settings: Rc<Settings>,
    branches: Vec<Branch>,
    block: Option<Block>,
    encoding: Encoding,
    error: Vec<u8>,
}

/// An `if` that is open.
struct Branch {
    /// One of its texts was chosen, or none may be.
    is_decided: bool,
    /// The text at hand is the chosen one.
    is_shown: bool,
    /// `else` was seen.
    is_last: bool,
    /// The text around it is shown.
    is_outer_shown: bool,
}

/// A block that is open.
struct Block {
    name: Vec<u8>,
    text: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
    Entity,
}

/// The parameters that a command knows; the first of a row may be required.
const KNOWN: &[(&str, &[&str], Option<&str>)] = &[
    ("include", &["virtual", "file", "wait", "set", "stub"], None),
    ("echo", &["var", "default", "encoding"], Some("var")),
    ("config", &["errmsg", "timefmt"], None),
    ("set", &["var", "value"], Some("var")),
    ("if", &["expr"], Some("expr")),
    ("elif", &["expr"], Some("expr")),
    ("else", &[], None),
    ("endif", &[], None),
    ("block", &["name"], Some("name")),
    ("endblock", &[], None),
];

impl Page {
    pub(super) fn new(settings: Rc<Settings>) -> Page {
        Page {
            settings,
            branches: Vec::new(),
            block: None,
            encoding: Encoding::Entity,
            error: b"[an error occurred while processing the directive]".to_vec(),
        }
    }

    /// True when texts go to the client.
    pub(super) fn is_shown(&self) -> bool {
        self.block.is_none() && self.is_chosen()
    }

    /// Takes a text that is not shown: it may belong to a block.
    pub(super) fn keep(&mut self, text: &[u8]) {
        if let Some(block) = &mut self.block
            && block.text.len() + text.len() <= LONGEST_BLOCK
        {
            block.text.extend_from_slice(text);
        }
    }

    /// What stands in place of a command with a mistake.
    pub(super) fn error(&self) -> Effect {
        match self.settings.silent || !self.is_shown() {
            true => Effect::Nothing,
            false => Effect::Text(self.error.clone()),
        }
    }

    /// Obeys a command. The error log has what is wrong with it.
    pub(super) fn obey(&mut self, x: &mut Exchange, command: &Command) -> Effect {
        if let Some(block) = &mut self.block {
            if command.name != b"endblock" {
                if block.text.len() < LONGEST_BLOCK {
                    command.write(&mut block.text);
                }
                return Effect::Nothing;
            }
        } else if !self.is_chosen() && !is_conditional(&command.name) {
            return Effect::Nothing;
        }
        // What goes wrong in a condition is told where the whole of it is shown.
        let is_told = match command.name.as_slice() {
            b"elif" | b"else" | b"endif" => {
                self.branches.last().is_none_or(|branch| branch.is_outer_shown)
            }
            _ => self.is_chosen(),
        };
        match self.run(x, command) {
            Ok(effect) => effect,
            Err(Mistake) if is_told && !self.settings.silent => Effect::Text(self.error.clone()),
            Err(Mistake) => Effect::Nothing,
        }
    }

    fn is_chosen(&self) -> bool {
        self.branches.last().is_none_or(|branch| branch.is_shown)
    }

    fn run(&mut self, x: &mut Exchange, command: &Command) -> Result<Effect, Mistake> {
        let parameters = match check(x, command) {
            Ok(parameters) => parameters,
            Err(Mistake) if command.name == b"if" => {
                self.open(false);
                return Err(Mistake);
            }
            Err(Mistake) => return Err(Mistake),
        };
        let value = |name: &str| parameters.get(name);
        match command.name.as_slice() {
            b"include" => include(x, &parameters),
            b"echo" => self.echo(x, &parameters),
            b"config" => {
                if let Some(form) = value("timefmt") {
                    x.state_or_default::<DateForm>().0 = CString::new(form).ok();
                }
                if let Some(message) = value("errmsg") {
                    self.error = message.to_vec();
                }
                Ok(Effect::Nothing)
            }
            b"set" => {
                let Some(text) = value("value") else { return Err(absent(x, command, "value")) };
                let text = evaluate(x, text)?;
                let name = value("var").unwrap_or_default().to_ascii_lowercase();
                x.lasting::<Memory>().set(&name, text);
                Ok(Effect::Nothing)
            }
            b"block" => {
                let name = value("name").unwrap_or_default().to_vec();
                self.block = Some(Block { name, text: Vec::new() });
                Ok(Effect::Nothing)
            }
            b"endblock" => {
                if let Some(Block { name, text }) = self.block.take() {
                    x.lasting::<Memory>().add_block(name, text);
                }
                Ok(Effect::Nothing)
            }
            _ => self.branch(x, command, value("expr").unwrap_or_default()),
        }
    }

    /// `if`, `elif`, `else`, `endif`.
    fn branch(
        &mut self,
        x: &mut Exchange,
        command: &Command,
        expression: &[u8],
    ) -> Result<Effect, Mistake> {
        if command.name == b"if" {
            if self.branches.len() == DEEPEST {
                return Err(mistake(x, format_args!("too many nested \"if\" SSI commands")));
            }
            let is_shown = self.is_chosen();
            let holds = if is_shown { holds(x, expression) } else { Ok(false) };
            self.open(holds == Ok(true));
            return holds.map(|_| Effect::Nothing);
        }
        let Some(branch) = self.branches.last_mut() else { return Err(misplaced(x, command)) };
        match command.name.as_slice() {
            b"endif" => {
                self.branches.pop();
            }
            _ if branch.is_last => return Err(misplaced(x, command)),
            b"else" => {
                branch.is_last = true;
                branch.is_shown = !branch.is_decided;
            }
            _ => {
                branch.is_shown = false;
                if !branch.is_decided && holds(x, expression)? {
                    branch.is_shown = true;
                    branch.is_decided = true;
                }
            }
        }
        Ok(Effect::Nothing)
    }

    /// Opens a branch, chosen or not. Inside one that is not shown nothing is.
    fn open(&mut self, is_shown: bool) {
        let is_outer_shown = self.is_chosen();
        self.branches.push(Branch {
            is_decided: is_shown || !is_outer_shown,
            is_shown: is_shown && is_outer_shown,
            is_last: false,
            is_outer_shown,
        });
    }

    fn echo(&mut self, x: &mut Exchange, parameters: &Parameters<'_>) -> Result<Effect, Mistake> {
        let name = parameters.get("var").unwrap_or_default();
        let value = variable(x, name).unwrap_or_else(|| {
            parameters.get("default").map_or_else(|| b"(none)".to_vec(), <[u8]>::to_vec)
        });
        if value.is_empty() {
            return Ok(Effect::Nothing);
        }
        // It stays for the following ones, as in nginx.
        match parameters.get("encoding") {
            None => {}
            Some(b"none") => self.encoding = Encoding::None,
            Some(b"url") => self.encoding = Encoding::Url,
            Some(b"entity") => self.encoding = Encoding::Entity,
            Some(other) => {
                let other = Bytes(other);
                let message = format_args!("unknown encoding \"{other}\" in the \"echo\" command");
                mistake(x, message);
            }
        }
        let mut out = Vec::with_capacity(value.len());
        match self.encoding {
            Encoding::None => out = value,
            Encoding::Url => escape_uri(&value, Escape::Html, &mut out),
            Encoding::Entity => escape_html(&value, &mut out),
        }
        Ok(Effect::Text(out))
    }
}

fn is_conditional(name: &[u8]) -> bool {
    matches!(name, b"if" | b"elif" | b"else" | b"endif")
}

fn misplaced(x: &Exchange, command: &Command) -> Mistake {
    let name = Bytes(&command.name);
    mistake(x, format_args!("invalid context of SSI command: \"{name}\""))
}

/// The parameters of a command that has no others than it knows, none twice.
struct Parameters<'c>(&'c Command);

impl<'c> Parameters<'c> {
    fn get(&self, name: &str) -> Option<&'c [u8]> {
        let found = self.0.parameters.iter().find(|(known, _)| known == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }
}

fn check<'c>(x: &Exchange, command: &'c Command) -> Result<Parameters<'c>, Mistake> {
    let shown = Bytes(&command.name);
    let Some((_, known, required)) =
        KNOWN.iter().find(|(name, _, _)| name.as_bytes() == command.name)
    else {
        return Err(mistake(x, format_args!("invalid SSI command: \"{shown}\"")));
    };
    if command.parameters.len() > MOST_PARAMETERS {
        return Err(mistake(x, format_args!("too many SSI command parameters: \"{shown}\"")));
    }
    for (at, (name, _)) in command.parameters.iter().enumerate() {
        let parameter = Bytes(name);
        if !known.iter().any(|known| known.as_bytes() == name) {
            let message = "invalid parameter name:";
            return Err(mistake(
                x,
                format_args!("{message} \"{parameter}\" in \"{shown}\" SSI command"),
            ));
        }
        if command.parameters[..at].iter().any(|(before, _)| before == name) {
            return Err(mistake(
                x,
                format_args!("duplicate \"{parameter}\" parameter in \"{shown}\" SSI command"),
            ));
        }
    }
    let parameters = Parameters(command);
    match required {
        Some(name) if parameters.get(name).is_none() => Err(absent(x, command, name)),
        _ => Ok(parameters),
    }
}

fn absent(x: &Exchange, command: &Command, name: &str) -> Mistake {
    let shown = Bytes(&command.name);
    mistake(x, format_args!("mandatory \"{name}\" parameter is absent in \"{shown}\" SSI command"))
}

fn include(x: &mut Exchange, parameters: &Parameters<'_>) -> Result<Effect, Mistake> {
    let (uri, waits) = match (parameters.get("virtual"), parameters.get("file")) {
        (Some(uri), Some(file)) => {
            let (uri, file) = (Bytes(uri), Bytes(file));
            let what = "inclusion may be either";
            return Err(mistake(x, format_args!("{what} virtual=\"{uri}\" or file=\"{file}\"")));
        }
        (None, None) => {
            return Err(mistake(x, format_args!("no parameter in \"include\" SSI command")));
        }
        (Some(uri), None) => (uri, waits(x, parameters)?),
        (None, Some(file)) if parameters.get("wait").is_some() => {
            let file = Bytes(file);
            return Err(mistake(x, format_args!("\"wait\" cannot be used with file=\"{file}\"")));
        }
        (None, Some(file)) => (file, true),
    };
    let (set, stub) = (parameters.get("set"), parameters.get("stub"));
    if set.is_some() && stub.is_some() {
        let what = "\"set\" and \"stub\" cannot be used together in \"include\" SSI command";
        return Err(mistake(x, format_args!("{what}")));
    }
    let uri = evaluate(x, uri)?;
    let uri = relative(x, uri);
    let mut path = Vec::new();
    let Some(args) = split_internal(&uri, &mut path) else {
        let uri = Bytes(&uri);
        return Err(mistake(x, format_args!("unsafe URI \"{uri}\" was detected")));
    };
    let stub = match stub {
        None => None,
        Some(name) => Some(x.lasting::<Memory>().block(name).ok_or_else(|| {
            let name = Bytes(name);
            mistake(x, format_args!("\"stub\"=\"{name}\" for \"include\" not found"))
        })?),
    };
    let mut part = Part::new(x, &path, args.unwrap_or_default()).ok_or(Mistake)?;
    if let Some(name) = set {
        part.without_error_pages();
        return Ok(Effect::Set { part, name: name.to_ascii_lowercase() });
    }
    if let Some(text) = stub {
        part = part.or_else(Box::new(move |child| stand_in(child, &text)));
    }
    Ok(Effect::Include { part, waits })
}

fn waits(x: &Exchange, parameters: &Parameters<'_>) -> Result<bool, Mistake> {
    match parameters.get("wait") {
        None => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"no") => Ok(false),
        Some(word) if word.eq_ignore_ascii_case(b"yes") => Ok(true),
        Some(word) => {
            let word = Bytes(word);
            Err(mistake(x, format_args!("invalid value \"{word}\" in the \"wait\" parameter")))
        }
    }
}

/// `uri`, below the folder of the page when it does not begin with a slash.
fn relative(x: &Exchange, uri: Vec<u8>) -> Vec<u8> {
    if matches!(uri.first(), None | Some(b'/')) {
        return uri;
    }
    let page = x.text(x.request.uri);
    let folder = page.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    [&page[..folder], &uri].concat()
}

/// The block that stands in for an answer; commands in it are obeyed where the location that was
/// asked does so.
fn stand_in(child: &mut Exchange, text: &[u8]) -> Body {
    let body = Body::Whole(Data::from(Chunk::copy_of(text)));
    match child.location.kept::<Rc<Settings>>() {
        Some(settings) => included(body, settings),
        None => body,
    }
}
