//! Compressing answers: which coding a client gets, the answer's head, and the body's way through
//! a coder. The codings themselves are in `gzip`, `brotli` and `zstd`; what they share is here.
//!
//! Of the codings that a location offers for an answer, the client gets the one that it weighs
//! highest (RFC 9110 section 12.5.3), and of those that it weighs alike the first of zstd, br and
//! gzip: the order in which they cost a worker least for the same size.

mod body;

use std::io::Write;

use config::Scope;
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder};
use session::text::Span;
use wire::http1::Known;

use crate::gzip::Conditions;
use crate::output;
use crate::sub_filter::weaken_etag;
use crate::type_list::TypeList;
pub(crate) use body::Volume;

/// What a coder is to do besides taking its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing: more will come.
    More,
    /// Put out all of it, so that the client can use it now.
    Flush,
    /// End.
    Finish,
}

/// What one step of a coder did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes taken.
    pub(crate) read: usize,
    /// Bytes put out.
    pub(crate) written: usize,
    /// All input is taken and the order carried out; otherwise more room is needed.
    pub(crate) complete: bool,
}

/// Compresses one body.
pub(crate) trait Coder {
    /// Takes from `input` and puts into `out`, as far as that goes.
    ///
    /// # Errors
    /// The call that failed and why, for the error log.
    fn step(&mut self, input: &[u8], out: &mut [u8], order: Order) -> Result<Step, String>;
}

/// Makes a coder for a body, given its length where that is known.
pub(crate) type MakeCoder = Box<dyn Fn(Option<u64>) -> Box<dyn Coder>>;

/// A coding that a location offers.
pub(crate) struct Offer {
    /// Its name in Content-Encoding.
    pub(crate) coding: &'static str,
    /// Answers of which types.
    pub(crate) types: TypeList,
    /// Shorter answers stay as they are.
    pub(crate) least: u64,
    /// Bytes of a piece of output.
    pub(crate) block: usize,
    /// What is demanded besides that the client accepts it.
    pub(crate) conditions: Option<Conditions>,
    pub(crate) make: MakeCoder,
}

impl Offer {
    /// True when the answer is one that is compressed for those who accept the coding.
    fn concerns(&self, x: &Exchange) -> bool {
        x.response.length.is_none_or(|length| length >= self.least) && self.types.has(x)
    }

    /// How much the client wants it, in thousandths; 0: it gets something else.
    fn weight(&self, x: &Exchange) -> u16 {
        if !x.is_main() || self.conditions.as_ref().is_some_and(|rules| !rules.allow(x)) {
            return 0;
        }
        weight(x, self.coding)
    }
}

struct Compress {
    /// The one that is preferred among equals comes first.
    offers: Vec<Offer>,
    /// Bytes of a file that are read at a time.
    read: usize,
    vary: bool,
}

/// Attaches what `gzip`, `brotli` and `zstd` say.
pub(crate) fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let offers =
        [crate::zstd::offer(scope), crate::brotli::offer(scope), crate::gzip::offer(scope)];
    let offers: Vec<Offer> = offers.into_iter().flatten().collect();
    let vary = crate::gzip::tells_caches(scope);
    let read = output::block_size(scope);
    if !offers.is_empty() || vary {
        builder.filter(Compress { offers, read, vary });
    }
}

/// A block must hold a coding's frame; a larger one would only hold up what is ready.
pub(crate) fn block_size(wanted: u64) -> usize {
    usize::try_from(wanted).unwrap_or(usize::MAX).clamp(64, 1 << 20)
}

impl Filter for Compress {
    fn apply(&self, x: &mut Exchange) {
        let response = &x.response;
        let is_plain = matches!(response.status, 200 | 403 | 404)
            && !matches!(response.body, Body::Tunnel(_))
            && response.headers.value(Known::ContentEncoding).is_none_or(Span::is_empty);
        let (mut concerned, mut best) = (false, None);
        for offer in self.offers.iter().filter(|offer| is_plain && offer.concerns(x)) {
            concerned = true;
            let weight = offer.weight(x);
            if weight > best.map_or(0, |(weight, _)| weight) {
                best = Some((weight, offer));
            }
        }
        if self.vary && (concerned || x.varies) {
            let value = x.arena.push(b"Accept-Encoding");
            x.response.headers.push_known(Known::Vary, value);
        }
        let Some((_, offer)) = best else { return };
        let coding = x.arena.push(offer.coding.as_bytes());
        let response = &mut x.response;
        response.headers.set_known(Known::ContentEncoding, coding);
        let length = response.length.take();
        response.allow_ranges = false;
        response.headers.remove(Known::AcceptRanges);
        weaken_etag(x);
        let body = std::mem::take(&mut x.response.body);
        let body = Body::Stream(Box::new(output::Reader::new(body, self.read)));
        let packed = body::Packed::new(body, offer.coding, (offer.make)(length), offer.block);
        x.response.body = Body::Stream(Box::new(packed));
    }
}

/// How much the client wants a coding, in thousandths: what its Accept-Encoding says of the name.
pub(crate) fn weight(x: &Exchange, coding: &str) -> u16 {
    let list = x.request.headers.value(Known::AcceptEncoding);
    list.map_or(0, |list| weight_in(x.text(list), coding.as_bytes()))
}

/// As in nginx `*` stands for no coding, and a weight that is none refuses it.
fn weight_in(value: &[u8], coding: &[u8]) -> u16 {
    for item in value.split(|&byte| byte == b',') {
        let mut parts = item.splitn(2, |&byte| byte == b';');
        let name = parts.next().unwrap_or_default();
        if name.trim_ascii().eq_ignore_ascii_case(coding) {
            return parts.next().map_or(1000, |parameter| thousandths(parameter).unwrap_or(0));
        }
    }
    0
}

/// The weight that ` q=0.5` and the like say; no parameter at all says 1.
fn thousandths(parameter: &[u8]) -> Option<u16> {
    let (whole, digits) = match parameter.trim_ascii() {
        [] => return Some(1000),
        [b'q' | b'Q', b'=', whole @ (b'0' | b'1')] => (whole, &b""[..]),
        [b'q' | b'Q', b'=', whole @ (b'0' | b'1'), b'.', digits @ ..] => (whole, digits),
        _ => return None,
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let mut value = 0;
    for at in 0..3 {
        value = 10 * value + digits.get(at).map_or(0, |digit| u16::from(digit - b'0'));
    }
    match whole {
        b'0' => Some(value),
        _ => (value == 0).then_some(1000),
    }
}

/// How many times smaller `coding` made the answer; none while it did not.
pub(crate) fn ratio(x: &mut Exchange, coding: &str) -> Option<Span> {
    let volume = volume(x, coding)?;
    let hundredths = rounded_ratio(volume.read, volume.written)?;
    let mark = x.arena.mark();
    x.arena.number(hundredths / 100);
    // Writing to a vector cannot fail.
    let _ = write!(x.arena.bytes_mut(), ".{:02}", hundredths % 100);
    Some(x.arena.since(mark))
}

/// What went through `coding`, when it compressed the answer.
pub(crate) fn volume(x: &Exchange, coding: &str) -> Option<Volume> {
    x.peek_state::<Volume>().filter(|volume| volume.coding == coding).copied()
}

/// `read / written` in hundredths, rounded.
fn rounded_ratio(read: u64, written: u64) -> Option<u64> {
    let thousandths = read.checked_mul(1000)?.checked_div(written)?;
    Some((thousandths + 5) / 10)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// What a coder makes of `text` that comes in pieces, with a flush after every third, when it
    /// is given little room at a time.
    pub(crate) fn packed(coder: &mut dyn Coder, text: &[u8], piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut work = |mut input: &[u8], order: Order| {
            loop {
                let mut room = [0; 500];
                let step = coder.step(input, &mut room, order).unwrap();
                out.extend_from_slice(&room[..step.written]);
                input = &input[step.read..];
                if step.complete {
                    assert!(input.is_empty());
                    return;
                }
                assert!(step.read + step.written > 0);
            }
        };
        for (at, part) in text.chunks(piece).enumerate() {
            work(part, if at % 3 == 2 { Order::Flush } else { Order::More });
        }
        work(b"", Order::Finish);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios() {
        let check = |read, written, expected| {
            assert_eq!(rounded_ratio(read, written), expected, "{read}/{written}");
        };
        check(100, 50, Some(200));
        check(1, 3, Some(33));
        check(2, 3, Some(67));
        check(1999, 1000, Some(200));
        check(0, 20, Some(0));
        check(5, 0, None);
        check(u64::MAX, 1, None);
    }

    #[test]
    fn weights() {
        let check = |value: &str, expected: u16| {
            assert_eq!(weight_in(value.as_bytes(), b"gzip"), expected, "{value}");
        };
        for value in ["gzip", "GZIP", "gzip, deflate", "deflate, gzip", "br , gzip ;q=1", "gzip;"] {
            check(value, 1000);
        }
        let weights = [
            ("1", 1000),
            ("1.", 1000),
            ("1.000", 1000),
            ("0.1", 100),
            ("0.001", 1),
            ("0.999", 999),
        ];
        for (q, expected) in weights {
            check(&format!("gzip;q={q}"), expected);
            check(&format!("deflate, gzip; Q={q} , br"), expected);
        }
        for q in ["0", "0.", "0.0", "0.000", "2", "1.1", "0.0001", "x", "0.x", "", "-1", ".5"] {
            check(&format!("gzip;q={q}"), 0);
        }
        for value in ["", "gzi", "xgzip", "gzipx", "x-gzip", "deflate", "*", "gzip;x=1"] {
            check(value, 0);
        }
        check("gzip;q=0, gzip", 0);
    }
}
