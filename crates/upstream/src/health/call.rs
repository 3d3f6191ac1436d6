//! A check over gRPC: a call of `grpc.health.v1.Health/Check`
//! (<https://github.com/grpc/grpc/blob/master/doc/health-checking.md>), over a connection of its
//! own.

use net::Stream;
use session::answer::{Fault, receive, send};
use wire::http2::frame::WINDOW_MAX;
use wire::http2::hpack::{self, Limits};
use wire::http2::{Connection, Event, HeaderList, Role, Rules};

use super::directives::Line;

/// The longest list of fields of an answer.
const LIST_MAX: usize = 64 * 1024;
/// How much of an answer's message is looked at: it is of a few bytes.
const MESSAGE_MAX: usize = 4096;
/// `SERVING` of `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// What is called, and what must come of it.
pub struct Call {
    head: Vec<u8>,
    message: Vec<u8>,
    /// The `grpc-status` that is good; with 0 the answer must also say that it serves.
    wanted: u32,
}

/// What is known of an answer.
#[derive(Default)]
struct Outcome {
    status: Option<u32>,
    message: Vec<u8>,
}

impl Call {
    /// The call that `line` asks for. `fields`: complete field lines as of HTTP/1, among them a
    /// host.
    pub(super) fn new(line: &Line, fields: &[u8], secure: bool) -> Call {
        let mut head = Vec::new();
        hpack::encode(&mut head, b":method", b"POST");
        hpack::encode(&mut head, b":scheme", if secure { b"https" } else { b"http" });
        hpack::encode(&mut head, b":path", b"/grpc.health.v1.Health/Check");
        let lines = || {
            fields.split(|byte| *byte == b'\n').filter_map(|line| {
                let at = line.iter().position(|byte| *byte == b':')?;
                Some((line[..at].to_ascii_lowercase(), line[at + 1..].trim_ascii()))
            })
        };
        for (_, host) in lines().filter(|(name, _)| name == b"host").take(1) {
            hpack::encode(&mut head, b":authority", host);
        }
        hpack::encode(&mut head, b"content-type", b"application/grpc");
        hpack::encode(&mut head, b"te", b"trailers");
        let own: [&[u8]; 3] = [b"host", b"content-type", b"te"];
        for (name, value) in lines().filter(|(name, _)| !own.contains(&&name[..])) {
            hpack::encode(&mut head, &name, value);
        }
        let message = message(line.grpc_service.as_deref().unwrap_or_default());
        Call { head, message, wanted: line.grpc_status.unwrap_or(0) }
    }

    /// Calls, and judges the answer.
    ///
    /// # Errors
    /// Why the server is not well.
    pub(super) async fn make(&self, stream: &Stream) -> Result<(), Fault> {
        let lists = Limits { field: LIST_MAX, list: LIST_MAX, count: 1000 };
        let rules = Rules { initial_window: WINDOW_MAX as u32, concurrent: 1, lists };
        let mut codec = Connection::new(Role::Client, rules);
        let id = codec.open();
        codec.send_head(id, &self.head, false);
        codec.send_data(id, self.message.len(), true);
        codec.out.extend_from_slice(&self.message);
        let mut outcome = Outcome::default();
        let mut input = Vec::new();
        loop {
            if !codec.out.is_empty() {
                send(stream, &std::mem::take(&mut codec.out)).await?;
            }
            input.clear();
            if !receive(stream, &mut input).await? {
                return Err(broken("closed prematurely"));
            }
            let mut at = 0;
            while at < input.len() {
                let received = codec.receive(&input[at..]);
                let (used, event) = received.map_err(|fault| broken(fault.text))?;
                if let Some(event) = event
                    && outcome.take(event, id, codec.list(), &input[at..])?
                {
                    return self.judge(&outcome);
                }
                at += used;
            }
        }
    }

    fn judge(&self, outcome: &Outcome) -> Result<(), Fault> {
        let Some(status) = outcome.status else { return Err(broken("no grpc-status")) };
        if status != self.wanted {
            return Err(Fault::of("checking gRPC status", format!("status {status}")));
        }
        match serving(&outcome.message) {
            _ if status != 0 => Ok(()),
            Some(SERVING) => Ok(()),
            Some(other) => Err(Fault::of("checking gRPC health", format!("health {other}"))),
            None => Err(broken("invalid message")),
        }
    }
}

impl Outcome {
    /// Takes in what happened on the stream `id`; true when the answer is complete.
    fn take(
        &mut self,
        event: Event,
        id: u32,
        list: &HeaderList,
        input: &[u8],
    ) -> Result<bool, Fault> {
        match event {
            Event::Head { stream, end } if stream == id => {
                let status = value(list, b":status").unwrap_or_default();
                if status.first() == Some(&b'1') && !end {
                    return Ok(false);
                }
                if status != b"200" {
                    let status = String::from_utf8_lossy(status);
                    return Err(Fault::of("checking HTTP status code", format!("status {status}")));
                }
                self.status = grpc_status(list);
                Ok(end)
            }
            Event::Data { stream, from, to, end } if stream == id => {
                let room = MESSAGE_MAX.saturating_sub(self.message.len());
                self.message.extend(input[from..to].iter().take(room));
                Ok(end)
            }
            Event::Trailers { stream } if stream == id => {
                self.status = grpc_status(list).or(self.status);
                Ok(true)
            }
            Event::Reset { stream, code } if stream == id => {
                Err(broken(format!("reset with error {code}")))
            }
            Event::Failed { stream, fault } if stream == id => Err(broken(fault.text)),
            Event::GoAway { last, code } if last < id => {
                Err(broken(format!("goaway with error {code}")))
            }
            _ => Ok(false),
        }
    }
}

fn broken(reason: impl Into<String>) -> Fault {
    Fault::of("calling gRPC health", reason)
}

fn value<'l>(list: &'l HeaderList, name: &[u8]) -> Option<&'l [u8]> {
    list.iter().find(|(found, _)| *found == name).map(|(_, value)| value)
}

fn grpc_status(list: &HeaderList) -> Option<u32> {
    std::str::from_utf8(value(list, b"grpc-status")?).ok()?.parse().ok()
}

/// A `HealthCheckRequest`: its field 1 is the service, left out when it is empty. Five bytes stand
/// before it: that it is not compressed, and its length.
fn message(service: &str) -> Vec<u8> {
    let mut request = Vec::new();
    if !service.is_empty() {
        request.push(0x0a);
        let mut left = service.len();
        while left > 0x7f {
            request.push(left as u8 | 0x80);
            left >>= 7;
        }
        request.push(left as u8);
        request.extend_from_slice(service.as_bytes());
    }
    let mut out = vec![0];
    out.extend_from_slice(&(request.len() as u32).to_be_bytes());
    out.extend(request);
    out
}

/// The status in a `HealthCheckResponse`, its field 1, which is 0 (`UNKNOWN`) when it is left out.
/// `None` when the message is none.
fn serving(message: &[u8]) -> Option<u64> {
    let (head, rest) = message.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let mut rest = rest.get(..length).filter(|_| head[0] == 0)?;
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        let skipped = match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut rest)?).ok()?,
            5 => 4,
            _ => return None,
        };
        rest = rest.get(skipped..)?;
    }
    Some(status)
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_services() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let long = message(&"x".repeat(300));
        assert_eq!((long.len(), &long[5..8]), (5 + 3 + 300, &[0x0a, 0xac, 2][..]));
    }

    #[test]
    fn answers_tell_who_serves() {
        let check = |bytes: &[u8], expected| assert_eq!(serving(bytes), expected, "{bytes:?}");
        check(&[0, 0, 0, 0, 2, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 2, 8, 2], Some(2));
        check(&[0, 0, 0, 0, 0], Some(0));
        // Unknown fields of all kinds, and then the status.
        check(&[0, 0, 0, 0, 6, 0x12, 2, 9, 9, 8, 1], Some(1));
        check(&[0, 0, 0, 0, 7, 0x1d, 1, 2, 3, 4, 8, 1], Some(1));
        check(&[1, 0, 0, 0, 2, 8, 1], None);
        check(&[0, 0, 0, 0, 3, 8, 1], None);
        check(&[0, 0, 0, 0, 1, 8], None);
        check(&[0, 0, 0, 0, 2, 0x12, 9], None);
        check(&[0xff; 20], None);
        check(&[], None);
    }
}
