//! What a scripted backend answers: a response built step by step, or a misdeed.

use crate::backend::Conversation;
use crate::message::{ReadError, Request};
use crate::wait::Gate;

/// One answer to one request. Starts as a sound HTTP/1.1 response; the methods bend it.
#[derive(Clone)]
pub struct Answer {
    status: u16,
    reason: &'static str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    framing: Framing,
    interim: Vec<u8>,
    before_head: Option<Gate>,
    /// Offsets into the body, ascending, at which sending waits for a gate.
    pauses: Vec<(usize, Gate)>,
    /// How many bytes of the body are sent before the connection is cut.
    cut: Option<(usize, Cut)>,
    after: After,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length,
    Chunked,
    UntilClose,
    /// The bytes of `body` are the whole answer.
    Raw,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Close,
    Reset,
}

/// What happens to the connection once the answer is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    /// The next request is read, unless the request said otherwise.
    Keep,
    Close,
    /// Every byte received comes back until the client ends.
    Echo,
    /// Nothing is sent; the connection stays until the client ends it.
    Hold,
}

/// What the backend does with the connection after an answer.
pub(crate) enum Next {
    Request,
    Close,
    Reset,
}

impl Answer {
    /// `200 OK` with that body and its Content-Length.
    pub fn text(body: impl Into<Vec<u8>>) -> Answer {
        Answer {
            status: 200,
            reason: "OK",
            headers: Vec::new(),
            body: body.into(),
            framing: Framing::Length,
            interim: Vec::new(),
            before_head: None,
            pauses: Vec::new(),
            cut: None,
            after: After::Keep,
        }
    }

    /// The bytes of the request as the body.
    pub fn echo(request: &Request) -> Answer {
        Answer::text(request.raw.clone()).header("Content-Type", "application/octet-stream")
    }

    /// A response of that status and an empty body.
    pub fn status(status: u16) -> Answer {
        Answer::text("").with_status(status, reason(status))
    }

    /// Exactly these bytes, then the next request.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Answer {
        Answer { framing: Framing::Raw, ..Answer::text(bytes) }
    }

    /// No byte; the connection stays open until the client closes it.
    pub fn silence() -> Answer {
        Answer { after: After::Hold, ..Answer::raw("") }
    }

    /// No byte; the connection is closed.
    pub fn close() -> Answer {
        Answer::raw("").then_close()
    }

    /// No byte; the connection is reset.
    pub fn reset() -> Answer {
        Answer { cut: Some((0, Cut::Reset)), ..Answer::raw("") }
    }

    /// `101 Switching Protocols` to `protocol`; afterwards every byte received comes back.
    pub fn upgrade(protocol: &str) -> Answer {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: upgrade\r\n\r\n"
        );
        Answer { after: After::Echo, ..Answer::raw(head) }
    }

    /// Changes the status line.
    pub fn with_status(self, status: u16, reason: &'static str) -> Answer {
        Answer { status, reason, ..self }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    /// Sends the body in chunks: one, or one between each two pauses.
    pub fn chunked(self) -> Answer {
        Answer { framing: Framing::Chunked, ..self }
    }

    /// Sends no framing: the end of the connection ends the body.
    pub fn until_close(self) -> Answer {
        Answer { framing: Framing::UntilClose, after: After::Close, ..self }
    }

    /// Closes the connection after the answer without announcing it.
    pub fn then_close(self) -> Answer {
        Answer { after: After::Close, ..self }
    }

    /// Sends the head and `length` bytes of the body, then closes. A chunked body ends inside
    /// its chunk.
    pub fn cut_after(self, length: usize) -> Answer {
        Answer { cut: Some((length, Cut::Close)), ..self }
    }

    /// Sends the head and `length` bytes of the body, then resets the connection.
    pub fn reset_after(self, length: usize) -> Answer {
        Answer { cut: Some((length, Cut::Reset)), ..self }
    }

    /// Sends these bytes, such as a 103 response, before the answer.
    pub fn interim(mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.interim.extend_from_slice(bytes.as_ref());
        self
    }

    /// Sends nothing before `gate` is open.
    pub fn after_gate(self, gate: &Gate) -> Answer {
        Answer { before_head: Some(gate.clone()), ..self }
    }

    /// Sends the head and `offset` bytes of the body, then waits for `gate`. Several pauses are
    /// given in ascending order.
    pub fn pause_at(mut self, offset: usize, gate: &Gate) -> Answer {
        self.pauses.push((offset, gate.clone()));
        self
    }

    /// Plays the answer to `request`.
    pub(crate) fn play(
        &self,
        request: &Request,
        conversation: &mut Conversation,
    ) -> Result<Next, ReadError> {
        if let Some(gate) = &self.before_head {
            gate.pass();
        }
        conversation.send(&self.interim);
        if self.framing != Framing::Raw {
            conversation.send(self.head(request).as_bytes());
        }
        if request.method != "HEAD" {
            self.send_body(conversation);
        }
        match (self.cut, self.after) {
            (Some((_, Cut::Reset)), _) => Ok(Next::Reset),
            (Some((_, Cut::Close)), _) | (None, After::Close) => Ok(Next::Close),
            (None, After::Keep) if self.announces_close(request) => Ok(Next::Close),
            (None, After::Keep) => Ok(Next::Request),
            (None, After::Echo) => loop {
                let bytes = conversation.read_some()?;
                conversation.send(&bytes);
            },
            (None, After::Hold) => {
                conversation.read_to_end();
                Ok(Next::Close)
            }
        }
    }

    fn announces_close(&self, request: &Request) -> bool {
        let says = |headers: &[(String, String)], word: &str| {
            headers.iter().any(|(name, value)| {
                name.eq_ignore_ascii_case("connection")
                    && value.split(',').any(|token| token.trim().eq_ignore_ascii_case(word))
            })
        };
        let old = request.version == "HTTP/1.0" && !says(&request.headers, "keep-alive");
        old || says(&request.headers, "close") || says(&self.headers, "close")
    }

    fn head(&self, request: &Request) -> String {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.reason);
        let mut add = |name: &str, value: &str| {
            head.push_str(&format!("{name}: {value}\r\n"));
        };
        match self.framing {
            Framing::Length if !matches!(self.status, 100..200 | 204 | 304) => {
                add("Content-Length", &self.body.len().to_string());
            }
            Framing::Chunked => add("Transfer-Encoding", "chunked"),
            _ => {}
        }
        let silent = !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection"));
        if silent && (self.framing == Framing::UntilClose || self.announces_close(request)) {
            add("Connection", "close");
        }
        for (name, value) in &self.headers {
            add(name, value);
        }
        head.push_str("\r\n");
        head
    }

    /// Sends the body from pause to pause, up to the cut.
    fn send_body(&self, conversation: &mut Conversation) {
        let end = self.cut.map_or(self.body.len(), |(length, _)| length.min(self.body.len()));
        let mut sent = 0;
        for (offset, gate) in &self.pauses {
            let stop = (*offset).clamp(sent, end);
            self.send_part(conversation, sent, stop);
            sent = stop;
            gate.pass();
        }
        self.send_part(conversation, sent, end);
        if self.framing == Framing::Chunked && self.cut.is_none() {
            conversation.send(b"0\r\n\r\n");
        }
    }

    fn send_part(&self, conversation: &mut Conversation, start: usize, end: usize) {
        let part = &self.body[start..end];
        if self.framing != Framing::Chunked || part.is_empty() {
            conversation.send(part);
            return;
        }
        // The chunk that is cut announces more than it brings.
        let cut = self.cut.is_some_and(|(length, _)| length == end);
        let announced = part.len() + usize::from(cut);
        let mut chunk = format!("{announced:x}\r\n").into_bytes();
        chunk.extend_from_slice(part);
        if !cut {
            chunk.extend_from_slice(b"\r\n");
        }
        conversation.send(&chunk);
    }
}

/// The usual reason phrase of the statuses that tests use.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Scripted",
    }
}
