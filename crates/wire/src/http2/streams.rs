//! The streams of a connection that are not closed: few, and in the order of their numbers.

use super::frame::WINDOW;

/// A stream that at least one side may still use.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    /// Bytes that we may send; negative after the peer made its windows smaller.
    pub(super) send_window: i64,
    /// Bytes that the peer may send.
    pub(super) recv_window: i64,
    /// The peer has sent its last frame.
    pub(super) received_end: bool,
    /// We have sent our last frame.
    pub(super) sent_end: bool,
    /// Of a client: the final head of the answer is here, what follows are trailers.
    pub(super) has_head: bool,
}

impl Stream {
    pub(super) fn new(id: u32, send_window: i64, recv_window: i64) -> Stream {
        Stream {
            id,
            send_window,
            recv_window,
            received_end: false,
            sent_end: false,
            has_head: false,
        }
    }
}

/// How many streams that we reset are remembered: the peer did not know of it when it sent more
/// on them, and is not to be blamed.
const REMEMBERED: usize = 64;

#[derive(Default)]
pub(super) struct Streams {
    list: Vec<Stream>,
    reset: std::collections::VecDeque<u32>,
}

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn get(&mut self, id: u32) -> Option<&mut Stream> {
        let at = self.list.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.list.get_mut(at)
    }

    pub(super) fn find(&self, id: u32) -> Option<&Stream> {
        let at = self.list.binary_search_by_key(&id, |stream| stream.id).ok()?;
        self.list.get(at)
    }

    /// Adds a stream with a number larger than all others.
    pub(super) fn push(&mut self, stream: Stream) {
        debug_assert!(self.list.last().is_none_or(|last| last.id < stream.id));
        self.list.push(stream);
    }

    pub(super) fn remove(&mut self, id: u32) {
        if let Ok(at) = self.list.binary_search_by_key(&id, |stream| stream.id) {
            self.list.remove(at);
        }
    }

    /// Removes a stream that we reset.
    pub(super) fn remove_reset(&mut self, id: u32) {
        self.remove(id);
        if self.reset.len() == REMEMBERED {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// True for a stream that we reset lately.
    pub(super) fn was_reset(&self, id: u32) -> bool {
        self.reset.contains(&id)
    }

    /// Gives back the room that streams took which are closed.
    pub(super) fn rest(&mut self) {
        self.list.shrink_to(4);
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.list.iter_mut()
    }
}

/// What the other side announced about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) initial_window: i64,
    pub(super) max_frame: usize,
    pub(super) max_streams: u32,
    /// Its first settings are here.
    pub(super) is_known: bool,
}

impl Default for Peer {
    fn default() -> Peer {
        Peer {
            initial_window: WINDOW,
            max_frame: super::frame::PAYLOAD,
            max_streams: u32::MAX,
            is_known: false,
        }
    }
}
