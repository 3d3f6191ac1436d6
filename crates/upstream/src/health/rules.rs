//! What a good answer is: the compiled form of a `match` block. Pure.

use std::rc::Rc;

use session::regex::Regex;
use wire::http1::{Field, Known, Slice};

/// Ranges of statuses, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub Box<[(u16, u16)]>);

impl Statuses {
    fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

/// `status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusRule {
    /// The statuses are those that an answer must not have.
    pub negated: bool,
    /// The statuses.
    pub statuses: Statuses,
}

/// `header`; names are in lower case.
#[derive(Clone)]
pub enum HeaderRule {
    Present(Box<[u8]>),
    Absent(Box<[u8]>),
    Value(Box<[u8]>, Test),
}

/// A comparison with a text.
#[derive(Clone)]
pub enum Test {
    Equal(Box<[u8]>),
    Unequal(Box<[u8]>),
    Matched(Rc<Regex>),
    Unmatched(Rc<Regex>),
}

impl Test {
    /// A match that was given up is none.
    fn holds(&self, text: &[u8]) -> bool {
        match self {
            Test::Equal(value) => **value == *text,
            Test::Unequal(value) => **value != *text,
            Test::Matched(regex) => regex.is_match(text) == Ok(true),
            Test::Unmatched(regex) => regex.is_match(text) == Ok(false),
        }
    }
}

/// What `require` asks of an answer: something that is neither empty nor `0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `$upstream_status`: there is an answer, so it holds.
    Status,
    /// `$upstream_http_NAME`: a field of that name, with `_` in place of `-`.
    Field(Box<[u8]>),
    /// `$upstream_cookie_NAME`: a cookie that the answer sets.
    Cookie(Box<[u8]>),
}

impl Requirement {
    /// What a variable asks for; `None` for one that says nothing of an answer.
    pub fn of(name: &str) -> Option<Requirement> {
        let field = |name: &str| name.to_ascii_lowercase().into_bytes().into();
        match (name, name.strip_prefix("upstream_http_"), name.strip_prefix("upstream_cookie_")) {
            ("upstream_status", ..) => Some(Requirement::Status),
            (_, Some(name), _) if !name.is_empty() => Some(Requirement::Field(field(name))),
            (_, _, Some(name)) if !name.is_empty() => {
                Some(Requirement::Cookie(name.as_bytes().into()))
            }
            _ => None,
        }
    }

    fn holds(&self, head: &[u8], fields: &[Field]) -> bool {
        let is_set = |value: &[u8]| !value.is_empty() && value != b"0";
        match self {
            Requirement::Status => true,
            Requirement::Field(wanted) => {
                let is_same = |name: &[u8]| {
                    let plain = |byte: &u8| if *byte == b'-' { b'_' } else { *byte };
                    name.len() == wanted.len()
                        && name
                            .iter()
                            .zip(wanted)
                            .all(|(byte, wanted)| plain(byte).eq_ignore_ascii_case(wanted))
                };
                let mut named = fields.iter().filter(|field| is_same(field.name.of(head)));
                named.any(|field| is_set(field.value.of(head)))
            }
            Requirement::Cookie(wanted) => {
                let set = fields.iter().filter(|field| field.known == Known::SetCookie);
                let pairs =
                    set.filter_map(|field| field.value.of(head).split(|byte| *byte == b';').next());
                let values = pairs.filter_map(|pair| {
                    let at = pair.iter().position(|byte| *byte == b'=')?;
                    (pair[..at].trim_ascii() == &**wanted).then(|| pair[at + 1..].trim_ascii())
                });
                values.into_iter().any(is_set)
            }
        }
    }
}

/// `expect`.
#[derive(Clone)]
pub enum Expect {
    /// The server's first bytes are these.
    Begins(Box<[u8]>),
    /// The pattern matches somewhere in what it says.
    Matched(Rc<Regex>),
}

/// What is known of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    Met,
    /// More bytes may meet it.
    NotYet,
    Missed,
}

impl Expect {
    /// Whether what was received so far is what was expected.
    pub fn look(&self, received: &[u8]) -> Sight {
        match self {
            Expect::Begins(text) if received.starts_with(text) => Sight::Met,
            Expect::Begins(text) if text.starts_with(received) => Sight::NotYet,
            Expect::Begins(_) => Sight::Missed,
            Expect::Matched(regex) => match regex.is_match(received) {
                Ok(true) => Sight::Met,
                Ok(false) => Sight::NotYet,
                Err(_) => Sight::Missed,
            },
        }
    }
}

/// The rules for an answer over HTTP.
#[derive(Clone, Default)]
pub struct Rules {
    pub status: Option<StatusRule>,
    pub headers: Vec<HeaderRule>,
    pub required: Vec<Requirement>,
    pub body: Option<Test>,
}

impl Rules {
    /// Why status or fields are not those of a good answer; nothing when they are.
    pub fn judge_head(&self, head: &[u8], status: u16, fields: &[Field]) -> Option<&'static str> {
        let good = match &self.status {
            Some(rule) => rule.statuses.contains(status) != rule.negated,
            // With rules of other kinds only, any status will do.
            None if !self.is_empty() => true,
            None => (200..400).contains(&status),
        };
        if !good {
            return Some("checking HTTP status code");
        }
        if !self.headers.iter().all(|rule| rule.holds(head, fields)) {
            return Some("checking HTTP header");
        }
        let good = self.required.iter().all(|wanted| wanted.holds(head, fields));
        (!good).then_some("checking required variables")
    }

    /// Whether there is no rule but perhaps one for the status.
    fn is_empty(&self) -> bool {
        self.headers.is_empty() && self.required.is_empty() && self.body.is_none()
    }

    /// Whether the body is that of a good answer.
    pub fn judge_body(&self, body: &[u8]) -> Option<&'static str> {
        let good = self.body.as_ref().is_none_or(|test| test.holds(body));
        (!good).then_some("checking HTTP body")
    }
}

impl HeaderRule {
    fn holds(&self, head: &[u8], fields: &[Field]) -> bool {
        let values = |name: &[u8]| -> Vec<Slice> {
            let named = |field: &&Field| field.name.of(head).eq_ignore_ascii_case(name);
            fields.iter().filter(named).map(|field| field.value).collect()
        };
        match self {
            HeaderRule::Present(name) => !values(name).is_empty(),
            HeaderRule::Absent(name) => values(name).is_empty(),
            HeaderRule::Value(name, test) => match &values(name)[..] {
                [] => matches!(test, Test::Unequal(_) | Test::Unmatched(_)),
                values => values.iter().all(|value| test.holds(value.of(head))),
            },
        }
    }
}

impl std::fmt::Debug for Test {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, text) = match self {
            Test::Equal(text) => ("=", String::from_utf8_lossy(text).into_owned()),
            Test::Unequal(text) => ("!=", String::from_utf8_lossy(text).into_owned()),
            Test::Matched(regex) => ("~", regex.pattern().to_owned()),
            Test::Unmatched(regex) => ("!~", regex.pattern().to_owned()),
        };
        write!(out, "{name} {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use session::regex::Case;
    use wire::http1::{ParsedResponse, ResponseParser};

    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Role: primary\r\nVia: a\r\nVia: b\r\n\r\n";

    fn regex(pattern: &str) -> Rc<Regex> {
        Rc::new(Regex::new(pattern, Case::Sensitive).expect("a pattern"))
    }

    fn holds(rule: HeaderRule) -> bool {
        let mut fields = Vec::new();
        let parsed = ResponseParser::default().parse(HEAD, &mut fields).expect("a head");
        assert!(matches!(parsed, ParsedResponse::Complete { .. }));
        let rules = Rules { headers: vec![rule], ..Rules::default() };
        rules.judge_head(HEAD, 500, &fields).is_none()
    }

    #[test]
    fn headers() {
        let name = |name: &str| Box::<[u8]>::from(name.as_bytes());
        for (rule, expected) in [
            (HeaderRule::Present(name("x-role")), true),
            (HeaderRule::Present(name("x-none")), false),
            (HeaderRule::Absent(name("x-role")), false),
            (HeaderRule::Absent(name("x-none")), true),
            (HeaderRule::Value(name("x-role"), Test::Equal(name("primary"))), true),
            (HeaderRule::Value(name("x-role"), Test::Unequal(name("primary"))), false),
            (HeaderRule::Value(name("x-none"), Test::Equal(name("primary"))), false),
            (HeaderRule::Value(name("x-none"), Test::Unmatched(regex("p"))), true),
            (HeaderRule::Value(name("via"), Test::Matched(regex("^[ab]$"))), true),
            (HeaderRule::Value(name("via"), Test::Matched(regex("^a$"))), false),
        ] {
            assert_eq!(holds(rule.clone()), expected);
        }
    }

    #[test]
    fn requirements() {
        const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nX-Ready: yes\r\nX-Load: 0\r\nX-None:\r\n\
            Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=0\r\nSet-Cookie: c=\r\n\r\n";
        let mut fields = Vec::new();
        let parsed = ResponseParser::default().parse(HEAD, &mut fields).expect("a head");
        assert!(matches!(parsed, ParsedResponse::Complete { .. }));
        for (name, expected) in [
            ("upstream_status", true),
            ("upstream_http_x_ready", true),
            ("upstream_http_X_Ready", true),
            ("upstream_http_x_load", false),
            ("upstream_http_x_none", false),
            ("upstream_http_x_other", false),
            ("upstream_cookie_a", true),
            ("upstream_cookie_b", false),
            ("upstream_cookie_c", false),
            ("upstream_cookie_A", false),
        ] {
            let wanted = Requirement::of(name).expect("about answers");
            assert_eq!(wanted.holds(HEAD, &fields), expected, "{name}");
        }
        assert_eq!(Requirement::of("remote_addr"), None);
        assert_eq!(Requirement::of("upstream_http_"), None);
    }

    #[test]
    fn statuses() {
        let plain = Rules::default();
        let listed = |negated| Rules {
            status: Some(StatusRule {
                negated,
                statuses: Statuses([(200, 204), (418, 418)].into()),
            }),
            ..Rules::default()
        };
        for (rules, status, good) in [
            (&plain, 200, true),
            (&plain, 399, true),
            (&plain, 404, false),
            (&plain, 199, false),
            (&listed(false), 418, true),
            (&listed(false), 205, false),
            (&listed(true), 418, false),
            (&listed(true), 205, true),
        ] {
            assert_eq!(rules.judge_head(b"", status, &[]).is_none(), good, "{status}");
        }
    }

    #[test]
    fn expectations() {
        let begins = Expect::Begins(b"220 ".as_slice().into());
        let matched = Expect::Matched(regex("PONG"));
        for (expect, received, sight) in [
            (&begins, &b"22"[..], Sight::NotYet),
            (&begins, b"220 x", Sight::Met),
            (&begins, b"421", Sight::Missed),
            (&matched, b"+PO", Sight::NotYet),
            (&matched, b"+PONG", Sight::Met),
        ] {
            assert_eq!(expect.look(received), sight);
        }
    }
}
