//! What happened on the way to peers, for `$upstream_*` and the error log.

use session::text::Span;
use smallvec::SmallVec;

/// The ways of one session, in order.
#[derive(Default)]
pub struct UpstreamLog {
    /// Each one that was tried: mostly one.
    pub attempts: SmallVec<[Attempt; 1]>,
}

/// One way.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt {
    /// The peer, or the group when nobody was left.
    pub peer: Span,
    /// When it began, in milliseconds of the loop's clock.
    pub begun_ms: u64,
    /// Milliseconds until the connection stood.
    pub connect_ms: Option<u64>,
    /// Milliseconds until the first byte came.
    pub first_byte_ms: Option<u64>,
    /// Milliseconds until it was over.
    pub session_ms: Option<u64>,
    /// Bytes that were sent to the peer.
    pub bytes_sent: u64,
    /// Bytes that came from it.
    pub bytes_received: u64,
}

impl UpstreamLog {
    /// A new way, to `peer`. The one before is over.
    pub fn begin(&mut self, peer: Span) -> &mut Attempt {
        self.end();
        self.attempts.push(Attempt { peer, begun_ms: net::now(), ..Attempt::default() });
        // One was pushed just now.
        self.attempts.last_mut().expect("just pushed")
    }

    /// The present way is over.
    pub fn end(&mut self) {
        if let Some(last) = self.attempts.last_mut() {
            let elapsed = net::now().saturating_sub(last.begun_ms);
            last.session_ms.get_or_insert(elapsed);
        }
    }
}
