//! DNS messages as a client sees them: questions out, answers in (RFC 1035, 2782, 3596).
//!
//! Answers are hostile: every offset is checked, compression pointers only lead backwards and
//! only so often, and records that do not belong to the question are left out (RFC 5452). The
//! codec keeps no state; which question an answer belongs to is for the caller to decide.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest name as text, without the final dot (RFC 1035 section 2.3.4).
pub const NAME_MAX: usize = 253;
/// The longest label.
const LABEL_MAX: usize = 63;
/// Bytes of a message's header.
const HEADER: usize = 12;
/// Compression pointers that one name may follow.
const JUMPS: usize = 16;
/// Records that are read of one answer.
const RECORDS_MAX: usize = 512;
/// CNAMEs that are followed inside one answer.
const CHAIN_MAX: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Servers of a service (RFC 2782).
    Srv,
    /// The name of an address.
    Ptr,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
            Kind::Srv => 33,
            Kind::Ptr => 12,
        }
    }

    fn of(number: u16) -> Option<Kind> {
        [Kind::A, Kind::Aaaa, Kind::Srv, Kind::Ptr].into_iter().find(|k| k.number() == number)
    }
}

const CNAME: u16 = 5;
const SOA: u16 = 6;
const OPT: u16 = 41;
const CLASS_IN: u16 = 1;

/// A server of a service (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Lower comes first.
    pub priority: u16,
    /// The share among those of one priority.
    pub weight: u16,
    /// Where it listens.
    pub port: u16,
    /// Its host, in lower case and without a final dot.
    pub host: String,
}

/// An answer to one question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Addresses that the name, or what it is an alias of, has.
    pub addresses: Vec<IpAddr>,
    /// Servers of the service that was asked for.
    pub services: Vec<Service>,
    /// Names of the address that was asked for.
    pub names: Vec<String>,
    /// The last alias of the chain, when the answer does not say what is behind it.
    pub alias: Option<String>,
    /// The shortest time to live of the records used, in seconds.
    pub ttl_s: u32,
    /// For how long the absence of records may be remembered, in seconds: only when the answer
    /// carries the zone's SOA (RFC 2308 section 5).
    pub negative_ttl_s: Option<u32>,
    /// The answer section held no record at all.
    pub is_empty: bool,
}

/// The head of an answer, and what it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The number of the question.
    pub id: u16,
    /// The response code: 0 is success, 3 is no such name (RFC 1035 section 4.1.1).
    pub code: u8,
    /// There is more than fits; ask over TCP.
    pub truncated: bool,
    /// The name of the question, in lower case.
    pub name: String,
    /// The type of the question.
    pub kind: Kind,
    /// Its records; empty when the code is not 0 or the answer is truncated.
    pub answer: Answer,
}

/// Why a message is no answer, in nginx's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadReply {
    /// It ends too early.
    Short,
    /// It is no response to a standard query: number and flags.
    Flags(u16, u16),
    /// A response code without a question that could be read: code and number.
    Code(u8, u16),
    /// It repeats no question, or several.
    Questions,
    /// A pointer in the question, or a name that cannot be.
    Name(&'static str),
    /// The class of the question or of a record.
    Class(u16),
    /// The type of the question.
    Type(u16),
    /// A record whose length does not fit its type.
    Record(&'static str),
}

impl fmt::Display for BadReply {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadReply::Short => out.write_str("short DNS response"),
            BadReply::Flags(id, flags) => {
                write!(out, "invalid DNS response {id} fl:{flags:04X}")
            }
            BadReply::Code(code, id) => {
                write!(out, "DNS error ({code}: {}), query id:{id}", code_text(*code))
            }
            BadReply::Questions => out.write_str("invalid number of questions in DNS response"),
            BadReply::Name(text) => out.write_str(text),
            BadReply::Class(class) => write!(out, "unknown query class {class} in DNS response"),
            BadReply::Type(kind) => write!(out, "unknown query type {kind} in DNS response"),
            BadReply::Record(what) => write!(out, "invalid {what} record in DNS response"),
        }
    }
}

/// What a response code means, in nginx's words.
pub fn code_text(code: u8) -> &'static str {
    match code {
        1 => "Format error",
        2 => "Server failure",
        3 => "Host not found",
        4 => "Unimplemented",
        5 => "Operation refused",
        110 => "Operation timed out",
        _ => "Unknown error",
    }
}

/// A question with recursion desired. `None` when `name` cannot be one: an empty or too long
/// label, or too long in all. A final dot is allowed.
pub fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() || name.len() > NAME_MAX {
        return None;
    }
    let mut out = Vec::with_capacity(HEADER + name.len() + 6);
    out.extend(id.to_be_bytes());
    // Flags: recursion desired. One question, nothing else.
    out.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_MAX {
            return None;
        }
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out.extend(kind.number().to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    Some(out)
}

/// The name under which the name of an address is asked for (RFC 1035 section 3.5, RFC 3596
/// section 2.5).
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(v6) => {
            let mut name = String::with_capacity(72);
            for octet in v6.octets().iter().rev() {
                name.push_str(&format!("{:x}.{:x}.", octet & 15, octet >> 4));
            }
            name + "ip6.arpa"
        }
    }
}

/// Reads a message that should be an answer.
///
/// # Errors
/// What is wrong with it.
pub fn reply(message: &[u8]) -> Result<Reply, BadReply> {
    let mut at = Reader { message, at: 0 };
    let id = at.u16()?;
    let flags = at.u16()?;
    let [questions, answers, authorities] = [at.u16()?, at.u16()?, at.u16()?];
    at.u16()?;
    // A response, to a standard query, with no reserved bit set but AD and CD (nginx's mask).
    if flags & 0xf840 != 0x8000 {
        return Err(BadReply::Flags(id, flags));
    }
    let code = (flags & 0xf) as u8;
    let truncated = flags & 0x0200 != 0;
    if code == 1 || code > 5 {
        return Err(BadReply::Code(code, id));
    }
    if questions != 1 {
        return Err(BadReply::Questions);
    }
    let name = at.question_name()?;
    let (kind, class) = (at.u16()?, at.u16()?);
    if class != CLASS_IN {
        return Err(BadReply::Class(class));
    }
    let kind = Kind::of(kind).ok_or(BadReply::Type(kind))?;
    let mut reply = Reply { id, code, truncated, name, kind, answer: Answer::default() };
    reply.answer.is_empty = answers == 0;
    if truncated {
        return Ok(reply);
    }
    if code == 0 {
        read_answers(&mut at, &mut reply, answers)?;
    }
    if answers == 0 && matches!(code, 0 | 3) {
        reply.answer.negative_ttl_s = read_soa(&mut at, authorities);
    }
    Ok(reply)
}

/// One record: its place is behind its head.
struct Record {
    owner: String,
    kind: u16,
    ttl: u32,
    data: (usize, usize),
}

fn read_answers(at: &mut Reader<'_>, reply: &mut Reply, count: u16) -> Result<(), BadReply> {
    let mut records = Vec::new();
    for _ in 0..usize::from(count).min(RECORDS_MAX) {
        records.push(at.record()?);
    }
    let mut chain = vec![reply.name.clone()];
    let mut ttl = u32::MAX;
    // Aliases first: servers may give them in any order.
    while chain.len() <= CHAIN_MAX {
        let end = &chain[chain.len() - 1];
        let alias = records.iter().find(|record| record.kind == CNAME && record.owner == *end);
        let Some(alias) = alias else { break };
        let to = at.name_at(alias.data.0)?;
        ttl = ttl.min(alias.ttl);
        if chain.contains(&to) {
            break;
        }
        chain.push(to);
    }
    let found = &mut reply.answer;
    for record in records.iter().filter(|record| chain.contains(&record.owner)) {
        if record.kind != reply.kind.number() {
            continue;
        }
        let data = &at.message[record.data.0..record.data.1];
        match reply.kind {
            Kind::A => {
                let octets: [u8; 4] = data.try_into().map_err(|_| BadReply::Record("A"))?;
                found.addresses.push(Ipv4Addr::from(octets).into());
            }
            Kind::Aaaa => {
                let octets: [u8; 16] = data.try_into().map_err(|_| BadReply::Record("AAAA"))?;
                found.addresses.push(Ipv6Addr::from(octets).into());
            }
            Kind::Srv => {
                let [p1, p2, w1, w2, o1, o2, _, ..] = data else {
                    return Err(BadReply::Record("SRV"));
                };
                found.services.push(Service {
                    priority: u16::from_be_bytes([*p1, *p2]),
                    weight: u16::from_be_bytes([*w1, *w2]),
                    port: u16::from_be_bytes([*o1, *o2]),
                    host: at.name_at(record.data.0 + 6)?,
                });
            }
            Kind::Ptr => found.names.push(at.name_at(record.data.0)?),
        }
        ttl = ttl.min(record.ttl);
    }
    let nothing = found.addresses.is_empty() && found.services.is_empty() && found.names.is_empty();
    if nothing && chain.len() > 1 {
        found.alias = chain.pop();
    }
    found.ttl_s = if ttl == u32::MAX { 0 } else { ttl };
    Ok(())
}

/// The time for which absence holds: the lesser of the SOA's own time to live and its `MINIMUM`
/// field, which are its last four bytes.
fn read_soa(at: &mut Reader<'_>, authorities: u16) -> Option<u32> {
    for _ in 0..usize::from(authorities).min(RECORDS_MAX) {
        let record = at.record().ok()?;
        if record.kind == SOA {
            let data = &at.message[record.data.0..record.data.1];
            let minimum = u32::from_be_bytes(*data.last_chunk::<4>()?);
            return Some(record.ttl.min(minimum));
        }
    }
    None
}

struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u16(&mut self) -> Result<u16, BadReply> {
        let bytes = self.message.get(self.at..self.at + 2).ok_or(BadReply::Short)?;
        self.at += 2;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, BadReply> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// The name of the question, which has nothing before it to point to.
    fn question_name(&mut self) -> Result<String, BadReply> {
        let (name, end) = self.name_from(self.at, Pointers::Refused)?;
        if name.is_empty() {
            return Err(BadReply::Name("zero-length domain name in DNS response"));
        }
        self.at = end;
        Ok(name)
    }

    fn name_at(&self, at: usize) -> Result<String, BadReply> {
        self.name_from(at, Pointers::Followed).map(|(name, _)| name)
    }

    /// A name, in lower case, and where what follows it begins.
    fn name_from(&self, from: usize, pointers: Pointers) -> Result<(String, usize), BadReply> {
        let mut name = String::new();
        let (mut at, mut end, mut jumps) = (from, None, 0);
        loop {
            let length = usize::from(*self.message.get(at).ok_or(BadReply::Short)?);
            at += 1;
            match length & 0xc0 {
                0 => {}
                0xc0 if pointers == Pointers::Followed => {
                    let low = usize::from(*self.message.get(at).ok_or(BadReply::Short)?);
                    end.get_or_insert(at + 1);
                    let to = (length & 0x3f) << 8 | low;
                    jumps += 1;
                    // Backwards only, so that no name is without an end.
                    if to >= at - 1 || jumps > JUMPS {
                        return Err(BadReply::Name(LOOP));
                    }
                    at = to;
                    continue;
                }
                0xc0 => return Err(BadReply::Name(POINTER)),
                _ => return Err(BadReply::Name(INVALID)),
            }
            if length == 0 {
                return Ok((name, end.unwrap_or(at)));
            }
            let label = self.message.get(at..at + length).ok_or(BadReply::Short)?;
            if !name.is_empty() {
                name.push('.');
            }
            // A name is compared and asked for again as text: bytes that would change its
            // meaning there have no place in a host's name.
            if label.iter().any(|byte| !byte.is_ascii_graphic() || *byte == b'.') {
                return Err(BadReply::Name(INVALID));
            }
            name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
            if name.len() > NAME_MAX {
                return Err(BadReply::Name(INVALID));
            }
            at += length;
        }
    }

    fn record(&mut self) -> Result<Record, BadReply> {
        let (owner, end) = self.name_from(self.at, Pointers::Followed)?;
        self.at = end;
        let (kind, class) = (self.u16()?, self.u16()?);
        if class != CLASS_IN && kind != OPT {
            return Err(BadReply::Class(class));
        }
        // A time with its highest bit set counts as 0 (RFC 2181 section 8).
        let ttl = Some(self.u32()?).filter(|ttl| *ttl < 1 << 31).unwrap_or(0);
        let length = usize::from(self.u16()?);
        let data = (self.at, self.at + length);
        if data.1 > self.message.len() {
            return Err(BadReply::Short);
        }
        self.at = data.1;
        Ok(Record { owner, kind, ttl, data })
    }
}

/// Whether a name may be compressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pointers {
    Followed,
    Refused,
}

const LOOP: &str = "compression pointers loop in DNS response";
const POINTER: &str = "unexpected compression pointer in DNS response";
const INVALID: &str = "invalid name in DNS response";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message: flags, question, and raw records of answer and authority sections.
    fn message(flags: u16, name: &str, kind: Kind, answers: &[&[u8]], soa: &[&[u8]]) -> Vec<u8> {
        let mut out = question(7, name, kind).expect("a name");
        out[2..4].copy_from_slice(&flags.to_be_bytes());
        out[7] = answers.len() as u8;
        out[9] = soa.len() as u8;
        answers.iter().chain(soa).for_each(|record| out.extend(*record));
        out
    }

    /// A record of the name of the question.
    fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut out = owner.to_vec();
        out.extend(kind.to_be_bytes());
        out.extend([0, 1]);
        out.extend(ttl.to_be_bytes());
        out.extend((data.len() as u16).to_be_bytes());
        out.extend(data);
        out
    }

    const ASKED: &[u8] = &[0xc0, 12];

    #[test]
    fn questions() {
        let plain = question(0x1234, "a.bc", Kind::Aaaa).expect("a name");
        assert_eq!(plain, *b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x02bc\0\0\x1c\0\x01");
        assert_eq!(question(0x1234, "a.bc.", Kind::Aaaa), Some(plain));
        let long = "x".repeat(64);
        let names = ["", ".", "a..b", ".a", "a..", &long, &"abc.".repeat(64)];
        for name in names {
            assert_eq!(question(1, name, Kind::A), None, "{name}");
        }
        assert_eq!(reverse_name([1, 2, 3, 4].into()), "4.3.2.1.in-addr.arpa");
        let v6 = reverse_name(IpAddr::V6("2001:db8::1".parse().expect("an address")));
        assert!(v6.starts_with("1.0.0.0.") && v6.ends_with(".8.b.d.0.1.0.0.2.ip6.arpa"), "{v6}");
    }

    #[test]
    fn addresses_of_the_name_and_of_its_aliases() {
        let alias = record(ASKED, CNAME, 50, b"\x02al\xc0\x0e");
        let address = record(b"\x02AL\xc0\x0e", 1, 40, &[10, 0, 0, 1]);
        let other = record(b"\x04evil\0", 1, 1, &[6, 6, 6, 6]);
        // In any order; what belongs to another name is left out.
        let records: [&[u8]; 3] = [&address, &other, &alias];
        let found = reply(&message(0x8180, "w.Ex", Kind::A, &records, &[])).expect("a reply");
        assert_eq!((found.id, found.code, &*found.name), (7, 0, "w.ex"));
        assert_eq!(found.answer.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!((found.answer.ttl_s, found.answer.alias), (40, None));
        let only = reply(&message(0x8180, "w.ex", Kind::A, &[&alias], &[])).expect("a reply");
        assert_eq!(only.answer.alias.as_deref(), Some("al.ex"));
        assert_eq!(only.answer.ttl_s, 50);
        let circle = record(ASKED, CNAME, 50, ASKED);
        let round = reply(&message(0x8180, "w.ex", Kind::A, &[&circle], &[])).expect("a reply");
        assert_eq!(round.answer.alias, None);
    }

    #[test]
    fn services_and_names() {
        let data = b"\0\x01\0\x05\x1f\x90\x01h\xc0\x0c";
        let service = record(ASKED, 33, 9, data);
        let found = reply(&message(0x8180, "_a.b", Kind::Srv, &[&service], &[])).expect("a reply");
        let expected = Service { priority: 1, weight: 5, port: 8080, host: "h._a.b".to_owned() };
        assert_eq!(found.answer.services, [expected]);
        let name = record(ASKED, 12, 9, b"\x01n\0");
        let found = reply(&message(0x8180, "1.arpa", Kind::Ptr, &[&name], &[])).expect("a reply");
        assert_eq!(found.answer.names, ["n"]);
    }

    #[test]
    fn absence_is_remembered_only_with_a_soa() {
        let none = reply(&message(0x8183, "a.b", Kind::A, &[], &[])).expect("a reply");
        assert_eq!((none.code, none.answer.is_empty, none.answer.negative_ttl_s), (3, true, None));
        let mut data = vec![0; 22];
        data[21] = 20;
        let soa = record(ASKED, SOA, 300, &data);
        let some = reply(&message(0x8180, "a.b", Kind::A, &[], &[&soa])).expect("a reply");
        assert_eq!((some.code, some.answer.negative_ttl_s), (0, Some(20)));
    }

    #[test]
    fn what_is_no_answer() {
        let good = message(0x8180, "a.b", Kind::A, &[], &[]);
        let check = |change: &dyn Fn(&mut Vec<u8>), expected: &str| {
            let mut bad = good.clone();
            change(&mut bad);
            let error = reply(&bad).expect_err(expected);
            assert_eq!(error.to_string(), expected);
        };
        check(&|m| m.truncate(11), "short DNS response");
        check(&|m| m.truncate(18), "short DNS response");
        check(&|m| m[2] = 1, "invalid DNS response 7 fl:0180");
        check(&|m| m[2] = 0x88, "invalid DNS response 7 fl:8880");
        check(&|m| m[3] = 0x81, "DNS error (1: Format error), query id:7");
        check(&|m| m[3] = 0x86, "DNS error (6: Unknown error), query id:7");
        check(&|m| m[5] = 2, "invalid number of questions in DNS response");
        check(&|m| m[12] = 0xc0, "unexpected compression pointer in DNS response");
        check(&|m| m[12] = 0, "zero-length domain name in DNS response");
        check(&|m| m[12] = 0x80, "invalid name in DNS response");
        check(&|m| m[20] = 9, "unknown query class 9 in DNS response");
        check(&|m| m[18] = 2, "unknown query type 2 in DNS response");
        let v4 = record(ASKED, 1, 1, &[1, 2, 3]);
        let bad = reply(&message(0x8180, "a.b", Kind::A, &[&v4], &[])).expect_err("too short");
        assert_eq!(bad.to_string(), "invalid A record in DNS response");
        let ahead = record(&[0xc0, 40], 1, 1, &[1, 2, 3, 4]);
        let bad = reply(&message(0x8180, "a.b", Kind::A, &[&ahead], &[])).expect_err("a loop");
        assert_eq!(bad.to_string(), LOOP);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = reply(&bytes);
            // The same behind a head and a question that are fine, so that records are reached.
            let mut message = message(0x8180, "a.b", Kind::Srv, &[], &[]);
            message[7] = 3;
            message[9] = 2;
            message.extend(&bytes);
            let _ = reply(&message);
        }
    }
}
