//! The Distinguished Encoding Rules (X.690) as far as certificates need them: a reader that walks
//! over tagged values in place.

/// Tags of the values that certificates are made of (X.680).
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OBJECT: u8 = 0x06;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A constructed value with a tag of the context, such as `[0]`.
    pub(crate) const fn context(n: u8) -> u8 {
        0xa0 | n
    }

    /// A primitive value with a tag of the context.
    pub(crate) const fn implicit(n: u8) -> u8 {
        0x80 | n
    }
}

/// What is there is not what should be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

pub(crate) type Result<T> = std::result::Result<T, Malformed>;

/// Walks over the values of one level.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

/// A value, and the bytes of it with its tag and length.
#[derive(Clone, Copy)]
pub(crate) struct Value<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    pub(crate) whole: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next value, whatever it is.
    pub(crate) fn next(&mut self) -> Result<Value<'a>> {
        let &[tag, first, ref rest @ ..] = self.rest else { return Err(Malformed) };
        let (length, content) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (bytes, content) =
                    rest.split_at_checked(usize::from(first & 0x7f)).ok_or(Malformed)?;
                let length = bytes.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
                (length, content)
            }
            _ => return Err(Malformed),
        };
        let (content, after) = content.split_at_checked(length).ok_or(Malformed)?;
        let whole = &self.rest[..self.rest.len() - after.len()];
        self.rest = after;
        Ok(Value { tag, content, whole })
    }

    /// The content of the next value, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8) -> Result<&'a [u8]> {
        let value = self.next()?;
        if value.tag == tag { Ok(value.content) } else { Err(Malformed) }
    }

    /// The next value, if it has this tag.
    pub(crate) fn optional(&mut self, tag: u8) -> Result<Option<Value<'a>>> {
        if self.rest.first() == Some(&tag) { self.next().map(Some) } else { Ok(None) }
    }

    /// The next value, a sequence, to be walked over.
    pub(crate) fn sequence(&mut self) -> Result<Reader<'a>> {
        self.expect(tag::SEQUENCE).map(Reader::new)
    }

    /// The bytes of the next value, a bit string of whole bytes.
    pub(crate) fn bits(&mut self) -> Result<&'a [u8]> {
        match self.expect(tag::BIT_STRING)? {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(Malformed),
        }
    }
}

/// Seconds since 1970 of a time value (RFC 5280 section 4.1.2.5).
pub(crate) fn time(value: Value<'_>) -> Result<i64> {
    let digits = value.content.strip_suffix(b"Z").ok_or(Malformed)?;
    let numbers: Vec<i64> = digits
        .chunks(2)
        .map(|two| match two {
            [a @ b'0'..=b'9', b @ b'0'..=b'9'] => Ok(i64::from((a - b'0') * 10 + (b - b'0'))),
            _ => Err(Malformed),
        })
        .collect::<Result<_>>()?;
    let (year, rest) = match (value.tag, numbers.as_slice()) {
        (tag::UTC_TIME, [year, rest @ ..]) => (year + if *year < 50 { 2000 } else { 1900 }, rest),
        (tag::GENERALIZED_TIME, [century, year, rest @ ..]) => (century * 100 + year, rest),
        _ => return Err(Malformed),
    };
    let (month, day, hour, minute, second) = match *rest {
        [month, day, hour, minute, second] => (month, day, hour, minute, second),
        [month, day, hour, minute] => (month, day, hour, minute, 0),
        _ => return Err(Malformed),
    };
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 {
        return Err(Malformed);
    }
    Ok(days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last one.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_short_or_long_and_never_beyond_the_end() {
        let check = |bytes: &[u8], expected: Result<usize>| {
            let got = Reader::new(bytes).next().map(|value| value.content.len());
            assert_eq!(got, expected, "{bytes:?}");
        };
        check(&[4, 0], Ok(0));
        check(&[4, 2, 1, 2, 3], Ok(2));
        check(&[4, 0x81, 1, 9], Ok(1));
        check(&[4, 0x82, 0, 1, 9], Ok(1));
        for bad in [&[][..], &[4], &[4, 1], &[4, 0x80, 0, 0], &[4, 0x81], &[4, 0x85, 0, 0, 0, 0, 0]]
        {
            check(bad, Err(Malformed));
        }
    }

    #[test]
    fn times_of_both_kinds() {
        let check = |tag, text: &str, expected| {
            let value = Value { tag, content: text.as_bytes(), whole: &[] };
            assert_eq!(time(value), expected, "{text}");
        };
        check(tag::UTC_TIME, "700101000000Z", Ok(0));
        check(tag::UTC_TIME, "000229120000Z", Ok(951_825_600));
        check(tag::GENERALIZED_TIME, "20261121123000Z", Ok(1_795_264_200));
        check(tag::GENERALIZED_TIME, "20991231235959Z", Ok(4_102_444_799));
        check(tag::UTC_TIME, "701301000000Z", Err(Malformed));
        check(tag::UTC_TIME, "70010100000", Err(Malformed));
    }
}
