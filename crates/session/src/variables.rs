//! Variables and the templates that use them ("a$b"), for every engine alike.
//!
//! A variable is a number in a [`Variables`] table that an engine (http, stream, mail) fills
//! while compiling. Names are looked up once, at load time; at run time a template is a list of
//! texts and numbers. Each conversation keeps one cell per used variable, so that a value is
//! computed at most once unless it is volatile. nginx: "Embedded Variables" of each module.
//!
//! Values are spans of the conversation's arena (`text`): no String is made on the way to a log.

use crate::log::Level;
use crate::regex::Captures;
use crate::text::{Arena, Span};
use std::collections::HashMap;
use std::rc::Rc;

/// The number of a variable in its engine's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VariableId(pub u32);

/// What variables are asked of: a request, a stream session, a mail session.
pub trait Subject: Sized + 'static {
    /// The text that spans point into.
    fn arena(&self) -> &Arena;
    /// The same, for appending computed values.
    fn arena_mut(&mut self) -> &mut Arena;
    /// The table this conversation's templates were compiled against.
    fn variables(&self) -> Rc<Variables<Self>>;
    /// The cells that hold values already computed.
    fn cells(&mut self) -> &mut Cells;
    /// The `n`th group of the last successful regular expression.
    fn capture(&mut self, n: u8) -> Option<Span>;
    /// Remembers the groups of a successful match.
    fn set_captures(&mut self, captures: Captures);
    /// Reports a fault found while evaluating, such as a cycle.
    fn complain(&mut self, level: Level, message: std::fmt::Arguments<'_>);
}

/// Computes a value without arguments.
pub type Getter<X> = fn(&mut X) -> Option<Span>;
/// Computes a value of a family such as `$arg_NAME`; the name comes without its prefix.
pub type FamilyGetter<X> = fn(&mut X, &str) -> Option<Span>;
/// Takes the value that `set` assigns to a built-in variable such as `$args`.
pub type Setter<X> = fn(&mut X, Span);

/// Computes a value from something compiled from the configuration.
pub type Compute<X> = Rc<dyn Fn(&mut X) -> Option<Span>>;

/// Where a variable's value comes from.
pub enum Source<X> {
    /// A function of the conversation.
    Plain(Getter<X>),
    /// A member of a family (`arg_`, `http_`, `cookie_` and so on) with the rest of its name.
    Family(FamilyGetter<X>, Box<str>),
    /// Something compiled from the configuration, such as a map.
    Computed(Compute<X>),
    /// A value that only assignments put into the cell (`set`, named captures).
    Stored,
}

impl<X> Clone for Source<X> {
    fn clone(&self) -> Source<X> {
        match self {
            Source::Plain(get) => Source::Plain(*get),
            Source::Family(get, name) => Source::Family(*get, name.clone()),
            Source::Computed(get) => Source::Computed(get.clone()),
            Source::Stored => Source::Stored,
        }
    }
}

/// Whether a value may change during the conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Computed once and kept.
    Kept,
    /// Computed at each use (nginx: not cacheable).
    Volatile,
}

/// One row of an engine's table of built-in variables.
pub struct Builtin<X: 'static> {
    /// The name without `$`; a family ends in `_`.
    pub name: &'static str,
    /// How the value is found.
    pub get: BuiltinGetter<X>,
    /// Whether the value is kept.
    pub caching: Caching,
    /// One sentence for the manual.
    pub text: &'static str,
    /// What an assignment does; a variable without cannot be assigned, a member of a family can.
    pub set: Option<Setter<X>>,
}

/// The two shapes of built-in variables.
pub enum BuiltinGetter<X: 'static> {
    /// One variable.
    One(Getter<X>),
    /// All variables that begin with the row's name.
    Family(FamilyGetter<X>),
}

impl<X> Builtin<X> {
    /// A variable that is computed at each use.
    pub const fn volatile(name: &'static str, get: Getter<X>, text: &'static str) -> Builtin<X> {
        Builtin { name, get: BuiltinGetter::One(get), caching: Caching::Volatile, text, set: None }
    }

    /// A variable that is computed once.
    pub const fn kept(name: &'static str, get: Getter<X>, text: &'static str) -> Builtin<X> {
        Builtin { name, get: BuiltinGetter::One(get), caching: Caching::Kept, text, set: None }
    }

    /// A family of variables, each computed at each use.
    pub const fn family(
        name: &'static str,
        get: FamilyGetter<X>,
        text: &'static str,
    ) -> Builtin<X> {
        Builtin {
            name,
            get: BuiltinGetter::Family(get),
            caching: Caching::Volatile,
            text,
            set: None,
        }
    }

    /// Makes the variable assignable: `set` takes the value.
    #[must_use]
    pub const fn settable(mut self, set: Setter<X>) -> Builtin<X> {
        self.set = Some(set);
        self
    }
}

struct Entry<X> {
    name: Box<str>,
    source: Option<Source<X>>,
    caching: Caching,
    assignable: bool,
    set: Option<Setter<X>>,
}

/// A built-in variable: its source, whether it is kept, and what an assignment does.
type Found<X> = (Source<X>, Caching, Option<Setter<X>>);

/// The table of all variables that a configuration uses.
pub struct Variables<X: 'static> {
    entries: Vec<Entry<X>>,
    ids: HashMap<Box<str>, VariableId>,
    builtins: Vec<&'static [Builtin<X>]>,
}

impl<X: 'static> Default for Variables<X> {
    fn default() -> Variables<X> {
        Variables { entries: Vec::new(), ids: HashMap::new(), builtins: Vec::new() }
    }
}

impl<X: 'static> Variables<X> {
    /// A table that knows the built-in variables of `builtins`.
    pub fn new(builtins: &[&'static [Builtin<X>]]) -> Variables<X> {
        Variables { builtins: builtins.to_vec(), ..Variables::default() }
    }

    /// How many variables the configuration uses: the number of cells a conversation needs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True when no variable is used.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The name of `id`, without `$`.
    pub fn name(&self, id: VariableId) -> &str {
        self.entries.get(id.0 as usize).map_or("", |entry| &entry.name)
    }

    /// The id of `name`, made on first use. A name that nobody defines by the end of compiling
    /// shows up in [`Variables::unknown`]. Names are case-insensitive as in nginx.
    pub fn reference(&mut self, name: &str) -> VariableId {
        let name = name.to_ascii_lowercase();
        if let Some(id) = self.ids.get(name.as_str()) {
            return *id;
        }
        let (source, caching, set) = match self.builtin(&name) {
            Some((source, caching, set)) => (Some(source), caching, set),
            None => (None, Caching::Kept, None),
        };
        // A member of a family may be replaced, as in nginx: `set $arg_page 1;`.
        let assignable = set.is_some() || matches!(source, Some(Source::Family(..)));
        let id = VariableId(self.entries.len() as u32);
        self.ids.insert(name.as_str().into(), id);
        let name = name.into();
        self.entries.push(Entry { name, source, caching, assignable, set });
        id
    }

    /// Whether the engine itself has a variable of that name.
    pub fn is_builtin(&self, name: &str) -> bool {
        self.builtin(&name.to_ascii_lowercase()).is_some()
    }

    fn builtin(&self, name: &str) -> Option<Found<X>> {
        let rows = || self.builtins.iter().flat_map(|rows| rows.iter());
        for row in rows() {
            if let BuiltinGetter::One(get) = row.get
                && row.name == name
            {
                return Some((Source::Plain(get), row.caching, row.set));
            }
        }
        for row in rows() {
            if let BuiltinGetter::Family(get) = row.get
                && let Some(rest) = name.strip_prefix(row.name)
                && !rest.is_empty()
            {
                return Some((Source::Family(get, rest.into()), row.caching, row.set));
            }
        }
        None
    }

    /// Defines `name` (map, geo, split_clients and the like).
    ///
    /// # Errors
    /// nginx's words when the name is taken by a variable that cannot change.
    pub fn define(
        &mut self,
        name: &str,
        source: Source<X>,
        caching: Caching,
    ) -> Result<VariableId, String> {
        let id = self.reference(name);
        let entry = &mut self.entries[id.0 as usize];
        if entry.source.is_some() && !entry.assignable {
            return Err(format!("the duplicate \"{name}\" variable"));
        }
        entry.source = Some(source);
        entry.caching = caching;
        entry.assignable = true;
        Ok(id)
    }

    /// Makes `name` assignable (`set`, named captures).
    ///
    /// # Errors
    /// nginx's words when the name belongs to a variable that cannot change.
    pub fn assignable(&mut self, name: &str) -> Result<VariableId, String> {
        self.assignable_or(name, |_| Source::Stored)
    }

    /// As [`Variables::assignable`]; when nothing else defines `name`, `unset` makes what its
    /// value comes from until something is assigned.
    ///
    /// # Errors
    /// As [`Variables::assignable`].
    pub fn assignable_or(
        &mut self,
        name: &str,
        unset: impl FnOnce(VariableId) -> Source<X>,
    ) -> Result<VariableId, String> {
        let id = self.reference(name);
        let entry = &mut self.entries[id.0 as usize];
        match &entry.source {
            None => {
                entry.source = Some(unset(id));
                entry.assignable = true;
                Ok(id)
            }
            Some(_) if entry.assignable => Ok(id),
            Some(_) => Err(format!("the duplicate \"{name}\" variable")),
        }
    }

    /// Names that templates use and nobody defined, in order of first use.
    pub fn unknown(&self) -> Vec<&str> {
        self.entries.iter().filter(|e| e.source.is_none()).map(|e| &*e.name).collect()
    }
}

/// What is known of one variable in one conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cell {
    /// Not asked for yet.
    #[default]
    Empty,
    /// Being computed; asking again means a cycle.
    Computing,
    /// Has no value.
    Missing,
    /// Has this value.
    Value(Span),
}

/// The cells of one conversation, one per variable in use.
#[derive(Clone, Debug, Default)]
pub struct Cells(Vec<Cell>);

impl Cells {
    /// Cells for a table of `count` variables, all empty.
    pub fn new(count: usize) -> Cells {
        Cells(vec![Cell::Empty; count])
    }

    fn at(&mut self, id: VariableId) -> &mut Cell {
        let at = id.0 as usize;
        if at >= self.0.len() {
            self.0.resize(at + 1, Cell::Empty);
        }
        &mut self.0[at]
    }

    /// Assigns a value (`set`, captures).
    pub fn assign(&mut self, id: VariableId, value: Option<Span>) {
        *self.at(id) = value.map_or(Cell::Missing, Cell::Value);
    }

    /// Forgets one value, so that it is computed anew.
    pub fn forget(&mut self, id: VariableId) {
        *self.at(id) = Cell::Empty;
    }

    /// One value, when it is known.
    pub fn value(&self, id: VariableId) -> Option<Span> {
        match self.0.get(id.0 as usize) {
            Some(Cell::Value(span)) => Some(*span),
            _ => None,
        }
    }

    /// The values that are known.
    pub fn values(&self) -> impl Iterator<Item = (VariableId, Span)> + '_ {
        self.0.iter().enumerate().filter_map(|(at, cell)| match cell {
            Cell::Value(span) => Some((VariableId(at as u32), *span)),
            _ => None,
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.0.fill(Cell::Empty);
    }
}

/// Assigns `value` to variable `id`, as `set` does.
pub fn assign<X: Subject>(x: &mut X, id: VariableId, value: Span) {
    let set = x.variables().entries.get(id.0 as usize).and_then(|entry| entry.set);
    match set {
        Some(set) => set(x, value),
        None => x.cells().assign(id, Some(value)),
    }
}

/// The value of variable `id`, or `None` when it has none.
pub fn value<X: Subject>(x: &mut X, id: VariableId) -> Option<Span> {
    let table = x.variables();
    value_from(x, &table, id)
}

/// The value of the variable of that name, for texts that come at run time (SSI): `None` when it
/// has none, or when there is no such variable.
pub fn value_by_name<X: Subject>(x: &mut X, name: &str) -> Option<Span> {
    let table = x.variables();
    let name = name.to_ascii_lowercase();
    if let Some(id) = table.ids.get(name.as_str()) {
        return value_from(x, &table, *id);
    }
    match table.builtin(&name)?.0 {
        Source::Plain(get) => get(x),
        Source::Family(get, rest) => get(x, &rest),
        Source::Computed(_) | Source::Stored => None,
    }
}

fn value_from<X: Subject>(x: &mut X, table: &Variables<X>, id: VariableId) -> Option<Span> {
    let entry = table.entries.get(id.0 as usize)?;
    match *x.cells().at(id) {
        Cell::Value(span) => return Some(span),
        Cell::Missing => return None,
        Cell::Computing => {
            let name = &entry.name;
            let message = format_args!("cycle while evaluating variable \"{name}\"");
            x.complain(Level::Error, message);
            return None;
        }
        Cell::Empty => {}
    }
    let found = match entry.source.as_ref()? {
        Source::Plain(get) if entry.caching == Caching::Volatile => return get(x),
        Source::Family(get, name) if entry.caching == Caching::Volatile => return get(x, name),
        Source::Plain(get) => get(x),
        Source::Family(get, name) => get(x, name),
        Source::Stored => return None,
        Source::Computed(get) => {
            *x.cells().at(id) = Cell::Computing;
            let found = get(x);
            *x.cells().at(id) = Cell::Empty;
            found
        }
    };
    if entry.caching == Caching::Kept {
        x.cells().assign(id, found);
    }
    found
}

enum Piece {
    Text(Box<[u8]>),
    Variable(VariableId),
    Capture(u8),
}

/// A compiled "a$b": texts, variables and captures.
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Compiles a parsed template; each name becomes a reference in `table`.
    pub fn compile<X>(source: &config::Template, table: &mut Variables<X>) -> Template {
        let pieces = source
            .parts
            .iter()
            .map(|part| match part {
                config::Part::Text(text) => Piece::Text(text.as_slice().into()),
                config::Part::Variable(name) => Piece::Variable(table.reference(name)),
                config::Part::Capture(n) => Piece::Capture(*n),
            })
            .collect();
        Template { pieces }
    }

    /// A template without variables.
    pub fn constant(text: &[u8]) -> Template {
        Template { pieces: vec![Piece::Text(text.into())] }
    }

    /// The text, when no variable or capture occurs in it.
    pub fn as_constant(&self) -> Option<&[u8]> {
        match self.pieces.as_slice() {
            [] => Some(b""),
            [Piece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The ids of the variables in it, in order.
    pub fn references(&self) -> impl Iterator<Item = VariableId> + '_ {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Variable(id) => Some(*id),
            _ => None,
        })
    }

    /// True when a numbered capture occurs in it.
    pub fn has_captures(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Capture(_)))
    }

    /// The value, as a span of the conversation's arena. Missing variables count as empty.
    pub fn value<X: Subject>(&self, x: &mut X) -> Span {
        self.value_with(x, |x, n| x.capture(n))
    }

    /// As [`Template::value`], with `capture` to say what `$1` and its kin stand for.
    pub fn value_with<X: Subject>(
        &self,
        x: &mut X,
        capture: fn(&mut X, u8) -> Option<Span>,
    ) -> Span {
        match self.pieces.as_slice() {
            [] => Span::EMPTY,
            [Piece::Text(text)] => x.arena_mut().push(text),
            [Piece::Variable(id)] => value(x, *id).unwrap_or_default(),
            [Piece::Capture(n)] => capture(x, *n).unwrap_or_default(),
            pieces => {
                let table = x.variables();
                join(x, &table, pieces, capture)
            }
        }
    }

    /// Hands each part of the value to `sink` in order: a text of the template, or what a
    /// variable has (None: no value). The access log escapes the latter only.
    pub fn for_each<X: Subject>(&self, x: &mut X, mut sink: impl FnMut(&mut X, Segment<'_>)) {
        let table = x.variables();
        for piece in &self.pieces {
            let span = match piece {
                Piece::Text(text) => {
                    sink(x, Segment::Text(text));
                    continue;
                }
                Piece::Variable(id) => value_from(x, &table, *id),
                Piece::Capture(n) => x.capture(*n),
            };
            sink(x, Segment::Value(span));
        }
    }
}

/// One part of a template's value, see [`Template::for_each`].
pub enum Segment<'a> {
    /// Text of the template itself.
    Text(&'a [u8]),
    /// The value of a variable or capture.
    Value(Option<Span>),
}

/// Values are computed first and joined after, since computing one may append to the arena.
fn join<X: Subject>(
    x: &mut X,
    table: &Variables<X>,
    pieces: &[Piece],
    capture: fn(&mut X, u8) -> Option<Span>,
) -> Span {
    const INLINE: usize = 16;
    if pieces.len() > INLINE {
        let (head, tail) = pieces.split_at(INLINE);
        let first = join(x, table, head, capture);
        let rest = join(x, table, tail, capture);
        let mark = x.arena().mark();
        x.arena_mut().copy(first);
        x.arena_mut().copy(rest);
        return x.arena().since(mark);
    }
    let mut found = [Span::EMPTY; INLINE];
    for (piece, span) in pieces.iter().zip(&mut found) {
        *span = match piece {
            Piece::Text(_) => Span::EMPTY,
            Piece::Variable(id) => value_from(x, table, *id).unwrap_or_default(),
            Piece::Capture(n) => capture(x, *n).unwrap_or_default(),
        };
    }
    let arena = x.arena_mut();
    let mark = arena.mark();
    for (piece, span) in pieces.iter().zip(found) {
        match piece {
            Piece::Text(text) => arena.push(text),
            _ => arena.copy(span),
        };
    }
    arena.since(mark)
}
