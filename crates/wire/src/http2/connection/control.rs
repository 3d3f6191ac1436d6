//! Frames that come whole: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM, PRIORITY (RFC 9113
//! sections 6.3 to 6.9).

use super::*;

impl Connection {
    /// A frame of the connection, or a small one of a stream, is whole.
    pub(super) fn control(&mut self) -> Result<Option<Event>, Fault> {
        let payload = std::mem::take(&mut self.held);
        self.stage = Stage::Head;
        let outcome = match self.head.kind {
            Kind::Settings => self.settings(&payload),
            Kind::Ping => self.answer_ping(&payload),
            Kind::GoAway => self.peer_leaves(&payload),
            Kind::WindowUpdate => self.window_update(&payload),
            Kind::Reset => self.peer_reset(&payload),
            _ => self.priority(&payload),
        };
        self.held = payload;
        self.held.clear();
        outcome
    }

    fn settings(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        if self.head.stream != 0 {
            return Err(incorrect_identifier("SETTINGS"));
        }
        if self.head.has(flag::ACK) {
            if !payload.is_empty() {
                let text = "client sent SETTINGS frame with the ACK flag and nonzero length";
                return Err(Fault::new(Code::FrameSize, text));
            }
            self.settings_acked = true;
            return Ok(None);
        }
        let (rows, []) = payload.as_chunks::<6>() else {
            let text =
                format!("client sent SETTINGS frame with incorrect length {}", payload.len());
            return Err(Fault::with(Code::FrameSize, text));
        };
        for [n0, n1, value @ ..] in rows {
            self.setting(u16::from_be_bytes([*n0, *n1]), u32::from_be_bytes(*value))?;
        }
        self.peer.is_known = true;
        frame::put_head(&mut self.out, 0, Kind::Settings, flag::ACK, 0);
        self.budget.total += HEAD as u64;
        Ok(Some(Event::Room))
    }

    fn setting(&mut self, number: u16, value: u32) -> Result<(), Fault> {
        let incorrect = |code, name: &str| {
            let text = format!("client sent SETTINGS frame with incorrect {name} value {value}");
            Err(Fault::with(code, text))
        };
        match number {
            setting::INITIAL_WINDOW_SIZE => {
                if i64::from(value) > WINDOW_MAX {
                    return incorrect(Code::FlowControl, "INITIAL_WINDOW_SIZE");
                }
                let more = i64::from(value) - self.peer.initial_window;
                self.peer.initial_window = i64::from(value);
                for stream in self.streams.iter_mut() {
                    stream.send_window += more;
                    if stream.send_window > WINDOW_MAX {
                        return incorrect(Code::FlowControl, "INITIAL_WINDOW_SIZE");
                    }
                }
            }
            setting::MAX_FRAME_SIZE => {
                if !(PAYLOAD as u32..=0xff_ffff).contains(&value) {
                    return incorrect(Code::Protocol, "MAX_FRAME_SIZE");
                }
                self.peer.max_frame = value as usize;
            }
            setting::ENABLE_PUSH if value > 1 => return incorrect(Code::Protocol, "ENABLE_PUSH"),
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value,
            setting::HEADER_TABLE_SIZE => self.table_changed = true,
            _ => {}
        }
        Ok(())
    }

    fn answer_ping(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        if !self.head.has(flag::ACK) {
            frame::put_head(&mut self.out, payload.len(), Kind::Ping, flag::ACK, 0);
            self.out.extend_from_slice(payload);
            self.budget.total += (HEAD + payload.len()) as u64;
        }
        Ok(None)
    }

    fn peer_leaves(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        if payload.len() < 8 {
            let text = format!("client sent GOAWAY frame with incorrect length {}", payload.len());
            return Err(Fault::with(Code::FrameSize, text));
        }
        if self.head.stream != 0 {
            return Err(incorrect_identifier("GOAWAY"));
        }
        if self.role == Role::Server {
            // A client that leaves may still begin streams, and takes its answers.
            return Ok(None);
        }
        self.leaving = true;
        let last = frame::number(payload) & 0x7fff_ffff;
        Ok(Some(Event::GoAway { last, code: frame::number(&payload[4..]) }))
    }

    fn window_update(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        let (id, more) = (self.head.stream, i64::from(frame::number(payload) & 0x7fff_ffff));
        if id != 0 && self.is_idle(id) {
            return Err(idle("WINDOW_UPDATE", id));
        }
        if more == 0 {
            let text = "client sent WINDOW_UPDATE frame with incorrect window increment 0";
            let fault = Fault::new(Code::Protocol, text);
            return match id {
                0 => Err(fault),
                _ => self.fail(id, fault),
            };
        }
        if id == 0 {
            self.send_window += more;
            if self.send_window > WINDOW_MAX {
                let text = format!(
                    "client violated connection flow control: received WINDOW_UPDATE frame with \
                     window increment {more} not allowed for window {}",
                    self.send_window - more
                );
                return Err(Fault::with(Code::FlowControl, text));
            }
            return Ok(Some(Event::Room));
        }
        let Some(stream) = self.streams.get(id) else { return Ok(None) };
        stream.send_window += more;
        if stream.send_window > WINDOW_MAX {
            let text = format!(
                "client violated flow control for stream {id}: received WINDOW_UPDATE frame with \
                 window increment {more} not allowed for window {}",
                stream.send_window - more
            );
            return self.fail(id, Fault::with(Code::FlowControl, text));
        }
        Ok(Some(Event::Room))
    }

    fn peer_reset(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        let id = self.head.stream;
        if self.is_idle(id) {
            return Err(idle("RST_STREAM", id));
        }
        let Some(stream) = self.streams.find(id).copied() else {
            return match self.reset_by_peer == id {
                true => {
                    let text = format!("client sent RST_STREAM frame for closed stream {id}");
                    self.fail(id, Fault::with(Code::StreamClosed, text))
                }
                false => Ok(None),
            };
        };
        self.reset_by_peer = id;
        self.streams.remove(id);
        if !stream.sent_end {
            self.aborted()?;
        }
        Ok(Some(Event::Reset { stream: id, code: frame::number(payload) }))
    }

    /// Priorities are not followed (RFC 9113 section 5.3.2): streams take turns.
    fn priority(&mut self, payload: &[u8]) -> Result<Option<Event>, Fault> {
        let id = self.head.stream;
        self.budget.priorities = self.budget.priorities.saturating_sub(1);
        if self.budget.priorities == 0 {
            let text = "client sent too many PRIORITY frames";
            return Err(Fault::new(Code::EnhanceYourCalm, text));
        }
        if frame::number(payload) & 0x7fff_ffff == id && self.streams.find(id).is_some() {
            let text =
                format!("client sent PRIORITY frame for stream {id} with incorrect dependency");
            return self.fail(id, Fault::with(Code::Protocol, text));
        }
        Ok(None)
    }
}
