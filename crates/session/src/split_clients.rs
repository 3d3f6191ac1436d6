//! `split_clients`: a variable whose value is drawn by chance, but always the same for the same
//! text: A/B tests (nginx: ngx_http_split_clients_module).
//!
//! Written for every kind of conversation alike: an engine calls [`compile`] for its block.

use crate::contexts::{HTTP, STREAM};
use crate::map::variable_name;
use crate::text::Span;
use crate::variables::{Caching, Source, Subject, Template, Variables};
use config::{AnyDirective, Args, Arity, Directive, Invalid, Node, Opens, Scope, read};
use std::rc::Rc;

/// The directives of this file.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&SPLIT_CLIENTS];

/// `split_clients`, see [`SplitLine`].
pub static SPLIT_CLIENTS: Directive<SplitLine> =
    Directive::new("split_clients", &[HTTP, STREAM], read_split)
        .takes(Arity::Exactly(2))
        .many()
        .opens(Opens::Rows)
        .syntax("split_clients TEXT $VARIABLE { ... }")
        .text(
            "Defines a variable whose value depends on a hash of TEXT with its variables \
             replaced. Each row of the block has a share and a value: `12.5%` with at most two \
             digits behind the point, or `*` for the rest. The same TEXT always gets the same \
             value.",
        )
        .example(
            "split_clients \"${remote_addr}AAA\" $variant {\n    0.5% .one;\n    2% .two;\n    \
             * \"\";\n}",
        );

/// What `split_clients` says in front of its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SplitLine {
    /// What is hashed.
    pub subject: config::Template,
    /// The variable's name, without `$`.
    pub name: String,
}

fn read_split(args: &Args<'_>) -> Result<SplitLine, Invalid> {
    let subject = read::template_at(args, 0)?;
    Ok(SplitLine { subject, name: variable_name(args, 1)? })
}

/// Hundredths of a percent in all.
const WHOLE: u64 = 10_000;

/// Defines the variables of all `split_clients` blocks of a level. Faults go to the scope.
pub fn compile<X: Subject>(scope: &Scope<'_>, table: &mut Variables<X>) {
    for (line, rows, span) in scope.row_blocks(&SPLIT_CLIENTS) {
        let mut shares = Vec::new();
        // A row that opens a block is reported already.
        for row in rows.iter().filter(|row| row.block.is_none()) {
            match share(row) {
                Ok(share) => shares.push(share),
                Err(invalid) => scope.refuse(row, invalid),
            }
        }
        let Some(parts) = parts(shares) else {
            scope.error(span, "percent total is greater than 100%");
            continue;
        };
        let split = Split { subject: Template::compile(&line.subject, table), parts };
        let source = Source::Computed(Rc::new(move |x: &mut X| Some(split.value(x))));
        if let Err(reason) = table.define(&line.name, source, Caching::Kept) {
            scope.error(span, reason);
        }
    }
}

/// Hundredths of a percent, `None` for the rest, and a value.
type Share = (Option<u64>, Box<[u8]>);

fn share(row: &Node) -> Result<Share, Invalid> {
    let text = row.name.bytes();
    let [value] = row.args.as_slice() else {
        return Err(Invalid::new("invalid number of the split_clients parameters"));
    };
    let share = match text {
        b"*" => None,
        _ => {
            let share = text.strip_suffix(b"%").and_then(hundredths).filter(|share| *share > 0);
            let text = String::from_utf8_lossy(text);
            Some(share.ok_or_else(|| Invalid::new(format!("invalid percent value \"{text}\"")))?)
        }
    };
    Ok((share, value.bytes().into()))
}

/// A number with at most two digits behind the point, times a hundred.
fn hundredths(text: &[u8]) -> Option<u64> {
    let (whole, rest) = match text.iter().position(|byte| *byte == b'.') {
        Some(point) => (&text[..point], &text[point + 1..]),
        None => (text, &b""[..]),
    };
    let is_number = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    if text.is_empty() || rest.len() > 2 || !is_number(whole) || !is_number(rest) {
        return None;
    }
    let digits = whole.iter().chain(rest).chain(std::iter::repeat_n(&b'0', 2 - rest.len()));
    digits.copied().try_fold(0_u64, |number, digit| {
        number.checked_mul(10)?.checked_add(u64::from(digit - b'0')).filter(|n| *n < 1 << 31)
    })
}

/// The hash below which a value holds, `None` for any, and the value.
type Part = (Option<u32>, Box<[u8]>);

/// The parts that shares come to; `None` when they are more than the whole.
fn parts(shares: Vec<Share>) -> Option<Box<[Part]>> {
    let (mut sum, mut below) = (0, 0_u64);
    shares
        .into_iter()
        .map(|(share, value)| {
            sum = share.map_or(WHOLE, |share| sum + share);
            let share = share.filter(|_| sum != WHOLE);
            if sum > WHOLE {
                return None;
            }
            // A sum of shares of 2^32 - 1 that are less than the whole.
            below += share.unwrap_or(0) * u64::from(u32::MAX) / WHOLE;
            Some((share.map(|_| below as u32), value))
        })
        .collect()
}

/// A compiled block.
struct Split {
    subject: Template,
    parts: Box<[Part]>,
}

impl Split {
    fn value<X: Subject>(&self, x: &mut X) -> Span {
        let subject = self.subject.value(x);
        let hash = murmur2(x.arena().text(subject));
        let found = self.parts.iter().find(|(below, _)| below.is_none_or(|below| hash < below));
        x.arena_mut().push(found.map_or(b"", |(_, value)| value))
    }
}

/// MurmurHash2 with a seed of 0 (Austin Appleby), as nginx has it.
fn murmur2(text: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = text.len() as u32;
    let mut words = text.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        mixed ^= mixed >> 24;
        hash = hash.wrapping_mul(M) ^ mixed.wrapping_mul(M);
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (n, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * n);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Talk, compiled};

    #[test]
    fn hashes_are_those_of_murmur2() {
        // From an implementation in another language.
        for (text, expected) in [
            ("", 0x0000_0000),
            ("a", 0x9268_5f5e),
            ("ab", 0x1aa1_4063),
            ("abc", 0x1357_7c9b),
            ("abcd", 0x2687_3021),
            ("abcde", 0x5f09_a8de),
            ("the quick brown fox", 0xb352_8f7c),
        ] {
            assert_eq!(murmur2(text.as_bytes()), expected, "{text}");
        }
    }

    fn shares(rows: &str) -> [usize; 3] {
        let text = format!("split_clients \"$x\" $y {{ {rows} }}");
        let (variables, faults) = compiled(&text, DIRECTIVES, compile::<Talk>);
        assert_eq!(faults, Vec::<String>::new(), "{rows}");
        let mut counts = [0; 3];
        for n in 0..4_000 {
            let value = Talk::new(&variables, &[("x", &n.to_string())]).value("y");
            counts[match value.as_str() {
                "a" => 0,
                "b" => 1,
                "" => 2,
                other => panic!("{other}"),
            }] += 1;
        }
        counts
    }

    #[test]
    fn values_get_their_shares() {
        for (rows, expected) in [
            ("50% a; * b;", [2_000, 2_000, 0]),
            ("50% a; 50% b;", [2_000, 2_000, 0]),
            ("10.25% a; 0.5% b;", [410, 20, 3_570]),
            (".5% a; 25.% b;", [20, 1_000, 2_980]),
            ("100% a;", [4_000, 0, 0]),
            ("* b;", [0, 4_000, 0]),
            ("", [0, 0, 4_000]),
        ] {
            let found = shares(rows);
            for (found, expected) in found.into_iter().zip(expected) {
                let slack = if expected % 4_000 == 0 { 0 } else { 110 };
                assert!(found.abs_diff(expected) <= slack, "{rows}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn faults_have_nginx_words() {
        for (text, expected) in [
            ("split_clients $x y { }", "invalid variable name \"y\""),
            ("split_clients $x $x { }", "the duplicate \"x\" variable"),
            ("split_clients $x $y { 50 a; }", "invalid percent value \"50\""),
            ("split_clients $x $y { 0% a; }", "invalid percent value \"0%\""),
            ("split_clients $x $y { .% a; }", "invalid percent value \".%\""),
            ("split_clients $x $y { % a; }", "invalid percent value \"%\""),
            ("split_clients $x $y { 1.234% a; }", "invalid percent value \"1.234%\""),
            ("split_clients $x $y { 1.2.3% a; }", "invalid percent value \"1.2.3%\""),
            ("split_clients $x $y { -1% a; }", "invalid percent value \"-1%\""),
            ("split_clients $x $y { 99999999999% a; }", "invalid percent value \"99999999999%\""),
            ("split_clients $x $y { 60% a; 50% b; }", "percent total is greater than 100%"),
            ("split_clients $x $y { * a; 50% b; }", "percent total is greater than 100%"),
            ("split_clients $x $y { * ; }", "invalid number of the split_clients parameters"),
        ] {
            let (_, faults) = compiled(text, DIRECTIVES, compile::<Talk>);
            assert_eq!(faults.first().map(String::as_str), Some(expected), "{text}");
        }
    }
}
