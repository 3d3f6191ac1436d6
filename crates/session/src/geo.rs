//! `geo`: a variable whose value depends on an address (nginx: ngx_http_geo_module).
//!
//! Written for every kind of conversation alike: an engine calls [`compile`] and says how to find
//! the client's address. `geo/ranges.rs` has the block form in which rows are ranges.
//!
//! Whatever the rows are, they become sorted lists of ranges that do not overlap, one list for
//! each family of addresses, so that a lookup is one binary search.

mod ranges;

use crate::contexts::{HTTP, STREAM};
use crate::forwarded::Search;
use crate::map::variable_name;
use crate::network::{Network, Networks};
use crate::text::Span;
use crate::variables::{Caching, Source, Subject, VariableId, Variables, value};
use config::{AnyDirective, Args, Arity, Directive, Invalid, Node, Opens, Scope};
use ranges::Ranges;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&GEO];

/// `geo`, see [`GeoLine`].
pub static GEO: Directive<GeoLine> = Directive::new("geo", &[HTTP, STREAM], read_geo)
    .takes(Arity::Between(1, 2))
    .many()
    .opens(Opens::Rows)
    .syntax("geo [$ADDRESS] $VARIABLE { ... }")
    .text(
        "Defines a variable whose value depends on the client's address, or on the address that \
         the variable $ADDRESS holds. Each row of the block has a network, such as \
         `192.168.1.0/24` or `2001:db8::/32`, and a value; of several networks the smallest one \
         counts. With `ranges;` as the first row, the rows have ranges instead, such as \
         `192.168.1.0-192.168.1.255`, of IPv4 addresses only. What is no IPv4 address there, a \
         client of a unix socket, and an $ADDRESS that is none count as 255.255.255.255. Special \
         rows: `default` has the value for all other addresses (empty without it); `delete` \
         takes a network or range out again; in http, `proxy` names clients whose \
         `X-Forwarded-For` is believed; with `proxy_recursive` the addresses in it that are such \
         proxies themselves are skipped; with `volatile` the value is looked up anew at \
         each use; `include FILE` \
         reads rows from a file.",
    )
    .example("geo $region {\n    default world;\n    10.0.0.0/8 inside;\n    ::1 inside;\n}");

/// What `geo` says in front of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeoLine {
    /// The variable that has the address, without `$`; the client's own when absent.
    pub address: Option<String>,
    /// The variable to define, without `$`.
    pub name: String,
}

fn read_geo(args: &Args<'_>) -> Result<GeoLine, Invalid> {
    let first = variable_name(args, 0)?;
    Ok(match args.len() {
        1 => GeoLine { address: None, name: first },
        _ => GeoLine { address: Some(first), name: variable_name(args, 1)? },
    })
}

/// How an engine knows its clients.
pub struct Clients<X> {
    /// The client's address; `None` for a unix socket.
    pub address: fn(&X) -> Option<SocketAddr>,
    /// Looks into what proxies say about the client, the last word first.
    pub forwarded: fn(&X, &mut Search<'_>),
}

impl<X> Clone for Clients<X> {
    fn clone(&self) -> Clients<X> {
        *self
    }
}

impl<X> Copy for Clients<X> {}

/// Defines the variables of all `geo` blocks of a level. Faults go to the scope.
pub fn compile<X: Subject>(scope: &Scope<'_>, table: &mut Variables<X>, clients: Clients<X>) {
    for (line, rows, span) in scope.row_blocks(&GEO) {
        let mut reading = Rows::default();
        // A row that opens a block is reported already.
        for row in rows.iter().filter(|row| row.block.is_none()) {
            if let Err(invalid) = reading.row(scope, row) {
                scope.refuse(row, invalid);
            }
        }
        let caching = if reading.volatile { Caching::Volatile } else { Caching::Kept };
        let address = line.address.as_deref().map(|name| table.reference(name));
        let geo = reading.geo(address, clients);
        let source = Source::Computed(Rc::new(move |x: &mut X| Some(geo.value(x))));
        if let Err(reason) = table.define(&line.name, source, caching) {
            scope.error(span, reason);
        }
    }
}

type Text = Rc<[u8]>;

/// The rows of one block while they are read.
#[derive(Default)]
struct Rows {
    ranges: Option<Ranges>,
    networks: NetworkRows,
    default: Option<Text>,
    proxies: Networks,
    recursive: bool,
    volatile: bool,
}

/// Networks by family, by their first address and, the larger ones first, by their last.
type NetworkRows = BTreeMap<(IpAddr, std::cmp::Reverse<IpAddr>), Text>;

impl Rows {
    fn row(&mut self, scope: &Scope<'_>, row: &Node) -> Result<(), Invalid> {
        let name = row.name.bytes();
        let value = match row.args.as_slice() {
            [] if name == b"ranges" => return self.begin_ranges(),
            [] if name == b"proxy_recursive" && scope.context() != STREAM => {
                self.recursive = true;
                return Ok(());
            }
            [] if name == b"volatile" => {
                self.volatile = true;
                return Ok(());
            }
            [value] => value.bytes(),
            _ => return Err(Invalid::new("invalid number of the geo parameters")),
        };
        if name == b"proxy" && scope.context() != STREAM {
            self.proxies.add(network(scope, row, value)?);
            return Ok(());
        }
        match name {
            b"default" => self.set_default(scope, row, value),
            b"delete" => self.delete(scope, row, value)?,
            _ => self.add(scope, row, value)?,
        }
        Ok(())
    }

    fn begin_ranges(&mut self) -> Result<(), Invalid> {
        if self.ranges.is_none() && (self.default.is_some() || !self.networks.is_empty()) {
            return Err(Invalid::new(
                "the \"ranges\" directive must be the first directive inside \"geo\" block",
            ));
        }
        self.ranges.get_or_insert_default();
        Ok(())
    }

    fn set_default(&mut self, scope: &Scope<'_>, row: &Node, value: &[u8]) {
        if let Some(old) = self.default.replace(value.into()) {
            let (value, old) = (shown(value), shown(&old));
            let what = if self.ranges.is_some() {
                format!("duplicate default geo range value: \"{value}\", old value: \"{old}\"")
            } else {
                format!("duplicate network \"default\", value: \"{value}\", old value: \"{old}\"")
            };
            scope.warn(row.span, what);
        }
    }

    fn delete(&mut self, scope: &Scope<'_>, row: &Node, text: &[u8]) -> Result<(), Invalid> {
        if let Some(ranges) = &mut self.ranges {
            let (first, last) = ranges::parse(text)?;
            if !ranges.delete(first, last) {
                let text = shown(text);
                scope.warn(row.span, format!("no address range \"{text}\" to delete"));
            }
            return Ok(());
        }
        let (first, last) = network(scope, row, text)?.range();
        if self.networks.remove(&(first, std::cmp::Reverse(last))).is_none() {
            scope.warn(row.span, format!("no network \"{}\" to delete", shown(text)));
        }
        Ok(())
    }

    fn add(&mut self, scope: &Scope<'_>, row: &Node, value: &[u8]) -> Result<(), Invalid> {
        let text = row.name.bytes();
        if let Some(ranges) = &mut self.ranges {
            let (first, last) = ranges::parse(text)?;
            let duplicates = ranges.add(first, last, &value.into()).map_err(|range| {
                Invalid::new(format!("range \"{}\" overlaps \"{range}\"", shown(text)))
            })?;
            for old in duplicates {
                let (text, value, old) = (shown(text), shown(value), shown(&old));
                let what =
                    format!("duplicate range \"{text}\", value: \"{value}\", old value: \"{old}\"");
                scope.warn(row.span, what);
            }
            return Ok(());
        }
        let (first, last) = network(scope, row, text)?.range();
        let key = (first, std::cmp::Reverse(last));
        if let Some(old) = self.networks.insert(key, value.into()) {
            let (text, value, old) = (shown(text), shown(value), shown(&old));
            let what =
                format!("duplicate network \"{text}\", value: \"{value}\", old value: \"{old}\"");
            scope.warn(row.span, what);
        }
        Ok(())
    }

    fn geo<X>(self, address: Option<VariableId>, clients: Clients<X>) -> Geo<X> {
        let Rows { ranges, networks, default, proxies, recursive, .. } = self;
        let (mut v4, mut v6) = (Steps::default(), Steps::default());
        let is_ranges = ranges.is_some();
        match ranges {
            Some(ranges) => {
                for (first, last, value) in ranges.into_rows() {
                    v4.add(first, last, value);
                }
            }
            None => {
                for ((first, std::cmp::Reverse(last)), value) in networks {
                    match (first, last) {
                        (IpAddr::V4(first), IpAddr::V4(last)) => {
                            v4.add(first.into(), last.into(), value);
                        }
                        (IpAddr::V6(first), IpAddr::V6(last)) => {
                            v6.add(first.into(), last.into(), value);
                        }
                        // Both ends of a network are of one family.
                        _ => {}
                    }
                }
            }
        }
        let proxies = Some(proxies).filter(|proxies| !proxies.is_empty());
        let (v4, v6) = (v4.finish(), v6.finish());
        let default = default.unwrap_or_default();
        Geo { address, clients, proxies, recursive, is_ranges, v4, v6, default }
    }
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn network(scope: &Scope<'_>, row: &Node, text: &[u8]) -> Result<Network, Invalid> {
    let text = shown(text);
    let Some(parsed) = Network::parse(&text) else {
        return Err(Invalid::new(format!("invalid network \"{text}\"")));
    };
    if parsed.has_low_bits {
        scope.warn(row.span, format!("low address bits of {text} are meaningless"));
    }
    Ok(parsed.network)
}

/// Addresses of one family in steps: each holds from its first address to the next step's.
struct Steps<T> {
    /// First address and value; `None` where the default holds.
    list: Vec<(T, Option<Text>)>,
    /// Last address and value of the networks that are not over yet, the innermost at the end.
    open: Vec<(T, Text)>,
}

impl<T> Default for Steps<T> {
    fn default() -> Steps<T> {
        Steps { list: Vec::new(), open: Vec::new() }
    }
}

/// An address as a number.
trait Bits: Copy + Ord {
    /// The next one; `None` behind the last.
    fn next(self) -> Option<Self>;
}

impl Bits for u32 {
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }
}

impl Bits for u128 {
    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }
}

impl<T: Bits> Steps<T> {
    /// Adds a network. They come sorted by their first address, the larger ones first, and are
    /// either apart from or inside of one another.
    fn add(&mut self, first: T, last: T, value: Text) {
        self.close(Some(first));
        self.push(first, Some(value.clone()));
        self.open.push((last, value));
    }

    /// Ends the networks that are over before `first`.
    fn close(&mut self, first: Option<T>) {
        while let Some((last, _)) = self.open.last()
            && first.is_none_or(|first| *last < first)
        {
            let behind = last.next();
            self.open.pop();
            let outer = self.open.last().map(|(_, value)| value.clone());
            if let Some(behind) = behind {
                self.push(behind, outer);
            }
        }
    }

    fn push(&mut self, first: T, value: Option<Text>) {
        // A step that begins where another one does takes its place.
        while self.list.last().is_some_and(|(at, _)| *at == first) {
            self.list.pop();
        }
        if self.list.last().map(|(_, before)| before) != Some(&value) {
            self.list.push((first, value));
        }
    }

    fn finish(mut self) -> Box<[(T, Option<Text>)]> {
        self.close(None);
        self.list.into_boxed_slice()
    }
}

fn step<T: Bits>(steps: &[(T, Option<Text>)], address: T) -> Option<&Text> {
    let behind = steps.partition_point(|(first, _)| *first <= address);
    steps.get(behind.checked_sub(1)?)?.1.as_ref()
}

/// A compiled block.
struct Geo<X> {
    address: Option<VariableId>,
    clients: Clients<X>,
    proxies: Option<Networks>,
    recursive: bool,
    /// IPv6 addresses are no ranges.
    is_ranges: bool,
    v4: Box<[(u32, Option<Text>)]>,
    v6: Box<[(u128, Option<Text>)]>,
    default: Text,
}

impl<X: Subject> Geo<X> {
    fn value(&self, x: &mut X) -> Span {
        let found = match self.address(x).map(|address| address.to_canonical()) {
            Some(IpAddr::V4(address)) => step(&self.v4, address.into()),
            Some(IpAddr::V6(address)) if !self.is_ranges => step(&self.v6, address.into()),
            _ => step(&self.v4, Ipv4Addr::BROADCAST.into()),
        };
        x.arena_mut().push(found.unwrap_or(&self.default))
    }

    fn address(&self, x: &mut X) -> Option<IpAddr> {
        let address = match self.address {
            None => (self.clients.address)(x),
            Some(variable) => {
                let span = value(x, variable)?;
                let text = std::str::from_utf8(x.arena().text(span)).ok()?;
                Some(SocketAddr::new(text.parse().ok()?, 0))
            }
        };
        let Some(proxies) = &self.proxies else { return address.map(|address| address.ip()) };
        let mut search = Search::new(proxies, self.recursive, address);
        (self.clients.forwarded)(x, &mut search);
        search.found().or(address).map(|address| address.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, compiled};

    /// The client is `$x`, what proxies say of it `$z`.
    const CLIENTS: Clients<Talk> = Clients {
        address: |talk| Some(SocketAddr::new(talk.text_of("x").parse().ok()?, 1)),
        forwarded: |talk, search| {
            search.look_into(talk.text_of("z").as_bytes());
        },
    };

    fn check(rows: &str, expected: &[(&str, &str)]) {
        let faults = check_faulty(rows, expected);
        assert_eq!(faults, Vec::<String>::new(), "{rows}");
    }

    /// Warnings, after the values of `$y` for each client were compared.
    fn check_faulty(rows: &str, expected: &[(&str, &str)]) -> Vec<String> {
        let text = format!("geo $y {{ {rows} }}");
        let (variables, faults) =
            compiled(&text, DIRECTIVES, |scope, table| compile(scope, table, CLIENTS));
        for (client, value) in expected {
            let (client, forwarded) = client.split_once('<').unwrap_or((client, ""));
            let mut talk = Talk::new(&variables, &[("x", client), ("z", forwarded)]);
            assert_eq!(talk.value("y"), *value, "{client} {forwarded} in {text}");
        }
        faults
    }

    #[test]
    fn the_smallest_network_counts() {
        check("", &[("10.0.0.1", ""), ("::1", "")]);
        check(
            "default d; 10.0.0.0/8 a; 10.1.0.0/16 b; 10.1.2.3 c; 10.1.0.0/24 e; 11.0.0.0/8 a;
             2001:db8::/32 six; 2001:db8::1 one; 255.255.255.255 none;",
            &[
                ("9.255.255.255", "d"),
                ("10.0.0.0", "a"),
                ("10.1.0.0", "e"),
                ("10.1.0.255", "e"),
                ("10.1.1.0", "b"),
                ("10.1.2.2", "b"),
                ("10.1.2.3", "c"),
                ("10.1.2.4", "b"),
                ("10.2.0.0", "a"),
                ("11.255.255.255", "a"),
                ("12.0.0.0", "d"),
                ("255.255.255.254", "d"),
                ("255.255.255.255", "none"),
                ("::ffff:10.1.2.3", "c"),
                ("2001:db8::", "six"),
                ("2001:db8::1", "one"),
                ("2001:db8:ffff::", "six"),
                ("2001:db9::", "d"),
                ("unix", "none"),
            ],
        );
        check("0.0.0.0/0 w; ::/0 s; 128.0.0.0/1 h;", &[("1.2.3.4", "w"), ("129.0.0.0", "h")]);
        check("::/0 s; ffff:ffff::/32 l;", &[("::1", "s"), ("ffff:ffff::", "l"), ("1.1.1.1", "")]);
    }

    /// Every kind of nesting, against a search for the smallest network.
    #[test]
    fn steps_agree_with_a_search() {
        let mut seed = 1_u32;
        let mut draw = |n: u32| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) % n
        };
        for _ in 0..200 {
            let mut rows: Vec<(u32, u32, Text)> = Vec::new();
            for n in 0..draw(12) {
                let size = 1_u32 << draw(6);
                // Near the upper end, where adding one overflows.
                let first = u32::MAX - 63 + draw(64) / size * size;
                rows.retain(|(f, l, _)| (*f, *l) != (first, first + (size - 1)));
                rows.push((first, first + (size - 1), n.to_string().into_bytes().into()));
            }
            rows.sort_by_key(|(first, last, _)| (*first, std::cmp::Reverse(*last)));
            let mut steps = Steps::default();
            for (first, last, value) in &rows {
                steps.add(*first, *last, value.clone());
            }
            let steps = steps.finish();
            for address in u32::MAX - 70..=u32::MAX {
                let around = rows.iter().filter(|(f, l, _)| (*f..=*l).contains(&address));
                let smallest = around.min_by_key(|(first, last, _)| last - first);
                assert_eq!(step(&steps, address), smallest.map(|(_, _, value)| value), "{rows:?}");
            }
        }
    }

    #[test]
    fn rows_can_be_taken_out_and_replaced() {
        check("10.0.0.0/8 a; 10.1.0.0/16 b; delete 10.1.0.0/16;", &[("10.1.0.1", "a")]);
        for (rows, value, warning) in [
            ("delete 10.0.0.0/8;", "", "no network \"10.0.0.0/8\" to delete"),
            (
                "10.0.0.0/8 a; 10.0.0.0/8 b;",
                "b",
                "duplicate network \"10.0.0.0/8\", value: \"b\", old value: \"a\"",
            ),
            ("10.0.0.1/8 a;", "a", "low address bits of 10.0.0.1/8 are meaningless"),
            (
                "default a; default b;",
                "b",
                "duplicate network \"default\", value: \"b\", old value: \"a\"",
            ),
            (
                "ranges; default a; default b;",
                "b",
                "duplicate default geo range value: \"b\", old value: \"a\"",
            ),
            (
                "ranges; delete 1.0.0.0-2.0.0.0;",
                "",
                "no address range \"1.0.0.0-2.0.0.0\" to delete",
            ),
            (
                "ranges; 10.0.0.1-10.0.0.1 a; 10.0.0.1-10.0.0.1 b;",
                "b",
                "duplicate range \"10.0.0.1-10.0.0.1\", value: \"b\", old value: \"a\"",
            ),
        ] {
            assert_eq!(check_faulty(rows, &[("10.0.0.1", value)]), [warning], "{rows}");
        }
    }

    #[test]
    fn ranges_may_lie_in_one_another() {
        check(
            "ranges; default d; 127.0.0.0-127.0.0.255 a; 127.0.0.1-127.0.0.2 b;
             127.0.0.1-127.0.0.1 c; 10.10.3.0-10.13.2.255 far; 0.0.0.0-0.0.0.5 zero;
             255.255.255.255-255.255.255.255 none;",
            &[
                ("127.0.0.0", "a"),
                ("127.0.0.1", "c"),
                ("127.0.0.2", "b"),
                ("127.0.0.3", "a"),
                ("127.0.1.0", "d"),
                ("10.10.2.255", "d"),
                ("10.10.3.0", "far"),
                ("10.12.0.0", "far"),
                ("10.13.2.255", "far"),
                ("10.13.3.0", "d"),
                ("0.0.0.0", "zero"),
                ("0.0.0.6", "d"),
                ("::1", "none"),
                ("::ffff:0.0.0.1", "zero"),
                ("unix", "none"),
            ],
        );
        check(
            "ranges; 10.0.0.0-10.0.0.9 a; 10.0.0.0-10.0.0.4 b; 10.0.0.8-10.0.0.9 c;
             delete 10.0.0.5-10.0.0.7;",
            &[("10.0.0.4", "b"), ("10.0.0.5", ""), ("10.0.0.8", "c")],
        );
    }

    #[test]
    fn proxies_are_believed() {
        let rows = "default d; proxy 127.0.0.0/8; 192.0.2.0/24 t; 127.0.0.0/8 l;";
        check(
            rows,
            &[
                ("127.0.0.1<192.0.2.1", "t"),
                ("127.0.0.1<10.0.0.1, 192.0.2.1", "t"),
                ("127.0.0.1<192.0.2.1, 127.0.0.2", "l"),
                ("127.0.0.1<", "l"),
                ("127.0.0.1<nonsense", "l"),
                ("10.0.0.1<192.0.2.1", "d"),
            ],
        );
        check(&format!("proxy_recursive; {rows}"), &[("127.0.0.1<192.0.2.1, 127.0.0.2", "t")]);
    }

    #[test]
    fn the_address_may_be_a_variable() {
        let text = "geo $x $y { default d; 192.0.2.0/24 t; 255.255.255.255 none; }";
        let (variables, faults) =
            compiled(text, DIRECTIVES, |scope, table| compile(scope, table, CLIENTS));
        assert_eq!(faults, Vec::<String>::new());
        for (address, expected) in
            [("192.0.2.1", "t"), ("10.0.0.1", "d"), ("192.0.2.1:80", "none"), ("", "none")]
        {
            assert_eq!(Talk::new(&variables, &[("x", address)]).value("y"), expected, "{address}");
        }
        assert_eq!(Talk::new(&variables, &[]).value("y"), "none");
    }

    #[test]
    fn faults_have_nginx_words() {
        for (text, expected) in [
            ("geo y { }", "invalid variable name \"y\""),
            ("geo $x y { }", "invalid variable name \"y\""),
            ("geo $x { }", "the duplicate \"x\" variable"),
            ("geo $y { a; }", "invalid number of the geo parameters"),
            ("geo $y { ranges x y; }", "invalid number of the geo parameters"),
            ("geo $y { name v; }", "invalid network \"name\""),
            ("geo $y { proxy name; }", "invalid network \"name\""),
            ("geo $y { delete 10.0.0.0/40; }", "invalid network \"10.0.0.0/40\""),
            (
                "geo $y { default d; ranges; }",
                "the \"ranges\" directive must be the first directive inside \"geo\" block",
            ),
            ("geo $y { ranges; 10.0.0.0/8 v; }", "invalid range \"10.0.0.0/8\""),
            ("geo $y { ranges; 10.0.0.2-10.0.0.1 v; }", "invalid range \"10.0.0.2-10.0.0.1\""),
            ("geo $y { ranges; delete x-y; }", "invalid range \"x-y\""),
            (
                "geo $y { ranges; 10.0.0.0-10.0.0.5 a; 10.0.0.3-10.0.0.9 b; }",
                "range \"10.0.0.3-10.0.0.9\" overlaps \"10.0.0.0-10.0.0.5\"",
            ),
            ("geo $y { a { } }", "unexpected \"{\""),
        ] {
            let (_, faults) =
                compiled(text, DIRECTIVES, |scope, table| compile(scope, table, CLIENTS));
            assert_eq!(faults.first().map(String::as_str), Some(expected), "{text}");
        }
    }
}
