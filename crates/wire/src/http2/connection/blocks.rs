//! DATA, and header blocks: HEADERS with their CONTINUATION (RFC 9113 sections 6.1, 6.2, 6.10).

use super::*;

impl Connection {
    /// The windows hold for the whole payload, padding included (RFC 9113 section 6.9.1).
    pub(super) fn begin_data(&mut self) -> Result<Option<Event>, Fault> {
        let (id, size) = (self.head.stream, self.head.length as i64);
        if id == 0 {
            return Err(incorrect_identifier("DATA"));
        }
        if self.is_idle(id) {
            return Err(idle("DATA", id));
        }
        if self.head.has(flag::PADDED) && size == 0 {
            let text = "client sent padded DATA frame with incorrect length: 0";
            return Err(Fault::new(Code::FrameSize, text));
        }
        if size > self.recv_window {
            let window = self.recv_window;
            let text = format!(
                "client violated connection flow control: received DATA frame length {size}, \
                 available window {window}"
            );
            return Err(Fault::with(Code::FlowControl, text));
        }
        self.recv_window -= size;
        if self.recv_window < WINDOW_MAX / 4 {
            // What streams may hold is bounded by their own windows.
            frame::put_window_update(&mut self.out, 0, (WINDOW_MAX - self.recv_window) as u32);
            self.recv_window = WINDOW_MAX;
        }
        self.stage = Stage::Data;
        let Some(stream) = self.streams.get(id) else {
            self.stage = Stage::Skip;
            return match self.streams.was_reset(id) || self.role == Role::Client {
                true => Ok(None),
                // Orderly closed: a late frame is the peer's mistake, and no reason to part.
                false => self.late(id),
            };
        };
        if size > stream.recv_window {
            let window = stream.recv_window;
            let text = format!(
                "client violated flow control for stream {id}: received DATA frame length \
                 {size}, available window {window}"
            );
            self.stage = Stage::Skip;
            return self.fail(id, Fault::with(Code::FlowControl, text));
        }
        stream.recv_window -= size;
        if stream.received_end {
            let text = format!("client sent DATA frame for half-closed stream {id}");
            self.stage = Stage::Skip;
            return self.fail(id, Fault::with(Code::StreamClosed, text));
        }
        Ok(None)
    }

    /// A frame for a stream that both sides have ended.
    fn late(&mut self, id: u32) -> Result<Option<Event>, Fault> {
        frame::put_reset(&mut self.out, id, Code::StreamClosed);
        self.budget.total += 13;
        self.aborted()?;
        Ok(None)
    }

    /// True for a stream that nobody has begun.
    pub(super) fn is_idle(&self, id: u32) -> bool {
        let is_ours = id % 2 == u32::from(self.role == Role::Client);
        if is_ours { id >= self.next_local } else { id > self.last_peer }
    }

    pub(super) fn data(&mut self, input: &[u8], at: &mut usize) -> Result<Option<Event>, Fault> {
        if self.head.has(flag::PADDED) {
            let Some(length) = input.get(*at) else { return Ok(None) };
            *at += 1;
            self.head.flags &= !flag::PADDED;
            self.padding = *length as usize;
            if self.padding > self.left - 1 {
                let text = format!(
                    "client sent padded DATA frame with incorrect length: {}, padding: {}",
                    self.head.length, self.padding
                );
                return Err(Fault::with(Code::Protocol, text));
            }
            self.left -= 1 + self.padding;
        }
        let from = *at;
        let taken = self.left.min(input.len() - from);
        *at += taken;
        self.left -= taken;
        let end = self.left == 0 && self.head.has(flag::END_STREAM);
        let stream = self.head.stream;
        if self.left == 0 {
            self.stage = if self.padding == 0 { Stage::Head } else { Stage::Skip };
        }
        self.budget.payload += taken as u64;
        if end {
            self.received_end(stream);
        }
        Ok((taken > 0 || end).then_some(Event::Data { stream, from, to: *at, end }))
    }

    pub(super) fn begin_headers(&mut self) -> Result<Stage, Fault> {
        if self.head.stream == 0 {
            return Err(incorrect_identifier("HEADERS"));
        }
        let prefix = prefix_len(&self.head);
        if self.head.length < prefix {
            let text =
                format!("client sent HEADERS frame with incorrect length {}", self.head.length);
            return Err(Fault::with(Code::FrameSize, text));
        }
        if self.head.length == prefix {
            let text = "client sent HEADERS frame with empty header block";
            return Err(Fault::new(Code::FrameSize, text));
        }
        Ok(Stage::Prefix)
    }

    /// Before a header block: padding, priority, and whose block it is.
    pub(super) fn prefix(&mut self) -> Result<(), Fault> {
        let held = std::mem::take(&mut self.held);
        let mut rest = held.as_slice();
        let id = self.head.stream;
        self.left = self.head.length - held.len();
        if self.head.has(flag::PADDED)
            && let Some((length, others)) = rest.split_first()
        {
            self.padding = *length as usize;
            rest = others;
            if self.padding >= self.left {
                let text = format!(
                    "client sent padded HEADERS frame with incorrect length: {}, padding: {}",
                    self.head.length, self.padding
                );
                return Err(Fault::with(Code::Protocol, text));
            }
            self.left -= self.padding;
        }
        let what = match self.role {
            Role::Server => self.block_of_client(id, rest)?,
            Role::Client => self.block_of_server(id)?,
        };
        self.list.clear();
        let end = self.head.has(flag::END_STREAM);
        self.block = Some(Block { stream: id, end, what, empty: 0 });
        self.held = held;
        self.held.clear();
        self.stage = Stage::Block;
        Ok(())
    }

    /// What a block that a client begins is for.
    fn block_of_client(&mut self, id: u32, priority: &[u8]) -> Result<BlockOf, Fault> {
        if let Some(stream) = self.streams.find(id) {
            // A second block ends the request (RFC 9113 section 8.1).
            if stream.received_end {
                let text = format!("client sent HEADERS frame for half-closed stream {id}");
                return Err(Fault::with(Code::StreamClosed, text));
            }
            if self.head.has(flag::END_STREAM) {
                return Ok(BlockOf::Trailers);
            }
        }
        if id.is_multiple_of(2) || id <= self.last_peer {
            if self.streams.was_reset(id) {
                return Ok(BlockOf::Nobody);
            }
            let last = self.last_peer;
            let text = format!(
                "client sent HEADERS frame with incorrect identifier {id}, the last was {last}"
            );
            return Err(Fault::with(Code::Protocol, text));
        }
        if priority.len() == 5 && frame::number(priority) & 0x7fff_ffff == id {
            let text =
                format!("client sent HEADERS frame for stream {id} with incorrect dependency");
            return Err(Fault::with(Code::Protocol, text));
        }
        if self.leaving {
            return Ok(BlockOf::Nobody);
        }
        self.last_peer = id;
        Ok(BlockOf::Head)
    }

    fn block_of_server(&mut self, id: u32) -> Result<BlockOf, Fault> {
        if id.is_multiple_of(2) || self.is_idle(id) {
            let text = format!("upstream sent HEADERS frame for unknown stream {id}");
            return Err(Fault::with(Code::Protocol, text));
        }
        Ok(match self.streams.find(id) {
            None => BlockOf::Nobody,
            Some(stream) if stream.received_end => {
                let text = format!("upstream sent HEADERS frame for closed stream {id}");
                return Err(Fault::with(Code::StreamClosed, text));
            }
            Some(stream) if stream.has_head => BlockOf::Trailers,
            Some(_) => BlockOf::Head,
        })
    }

    pub(super) fn begin_continuation(&mut self) -> Result<Stage, Fault> {
        let Some(block) = &mut self.block else {
            return Err(Fault::new(Code::Protocol, "client sent unexpected CONTINUATION frame"));
        };
        if self.head.length == 0 {
            block.empty += 1;
            if block.empty > EMPTY_CONTINUATIONS {
                return Err(Fault::flood());
            }
        }
        Ok(Stage::Block)
    }

    /// A part of a header block.
    pub(super) fn fragment(
        &mut self,
        input: &[u8],
        at: &mut usize,
    ) -> Result<Option<Event>, Fault> {
        let from = *at;
        let taken = self.left.min(input.len() - from);
        *at += taken;
        self.left -= taken;
        let last = self.left == 0 && self.head.has(flag::END_HEADERS);
        let part = &input[from..*at];
        let limits = &self.rules.lists;
        self.decoder.decode(part, last, limits, &mut self.list).map_err(bad_block)?;
        if self.left > 0 {
            return Ok(None);
        }
        self.stage = if self.padding == 0 { Stage::Head } else { Stage::Skip };
        match self.block.filter(|_| last) {
            Some(block) => {
                self.block = None;
                self.block_done(block)
            }
            None => Ok(None),
        }
    }

    fn block_done(&mut self, block: Block) -> Result<Option<Event>, Fault> {
        let (id, end) = (block.stream, block.end);
        match block.what {
            BlockOf::Nobody => {
                // Text for nobody pays for nothing.
                Ok(None)
            }
            BlockOf::Trailers => {
                if !end {
                    let text = format!("upstream sent trailers without end of stream {id}");
                    return self.fail(id, Fault::with(Code::Protocol, text));
                }
                self.received_end(id);
                Ok(Some(Event::Trailers { stream: id }))
            }
            BlockOf::Head if self.role == Role::Client => {
                let is_interim = self
                    .list
                    .iter()
                    .any(|(name, value)| name == b":status" && value.starts_with(b"1"));
                if let Some(stream) = self.streams.get(id) {
                    stream.has_head = !is_interim;
                }
                if end {
                    self.received_end(id);
                }
                Ok(Some(Event::Head { stream: id, end }))
            }
            BlockOf::Head => self.begin_stream(id, end),
        }
    }

    fn begin_stream(&mut self, id: u32, end: bool) -> Result<Option<Event>, Fault> {
        let concurrent = self.rules.concurrent;
        self.budget.new_streams += 1;
        let refusal = if self.streams.len() >= concurrent as usize {
            Some(format!("concurrent streams exceeded {}", self.streams.len()))
        } else if self.budget.new_streams > 2 * concurrent {
            Some("client sent too many streams at once".to_owned())
        } else if !self.settings_acked && !end && i64::from(self.rules.initial_window) < WINDOW {
            // It may send more than it is going to be allowed.
            Some("client sent stream with data before settings were acknowledged".to_owned())
        } else {
            None
        };
        if let Some(text) = refusal {
            self.budget.refused += 1;
            if self.budget.refused > concurrent.max(100) {
                let text = "client sent too many refused streams";
                return Err(Fault::new(Code::NoError, text));
            }
            frame::put_reset(&mut self.out, id, Code::RefusedStream);
            let stream = Stream::new(id, 0, 0);
            self.streams.push(stream);
            self.streams.remove_reset(id);
            return Ok(Some(Event::Refused(Fault::with(Code::RefusedStream, text))));
        }
        let window = i64::from(self.rules.initial_window);
        let window = if self.settings_acked { window } else { window.max(WINDOW) };
        let mut stream = Stream::new(id, self.peer.initial_window, window);
        stream.received_end = end;
        self.streams.push(stream);
        self.budget.payload += self.list.text_len() as u64;
        self.budget.priorities = self.budget.priorities.saturating_add(concurrent);
        Ok(Some(Event::Head { stream: id, end }))
    }
}

fn bad_block(bad: BadBlock) -> Fault {
    let (code, text) = match bad {
        BadBlock::Index => (Code::Compression, "client sent invalid header index"),
        BadBlock::Integer => {
            (Code::Compression, "client sent header block with too long header index value")
        }
        BadBlock::Huffman => (Code::Compression, "client sent invalid encoded header field"),
        BadBlock::Truncated => (Code::FrameSize, "client sent header block with incorrect length"),
        BadBlock::EmptyName => (Code::Protocol, "client sent zero header name length"),
        BadBlock::FieldTooLong => (Code::EnhanceYourCalm, "client sent too large header field"),
        BadBlock::ListTooLong => (Code::EnhanceYourCalm, "client sent too large header"),
    };
    Fault::new(code, text)
}
