//! What happened on the way to the backends, for `$upstream_*`, the error log and retries.
//!
//! It survives internal redirects: nginx lists the attempts of all of them, separated by " : ".

use session::text::Span;
use smallvec::SmallVec;

/// One attempt to get an answer from one peer.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The peer as nginx prints it, `127.0.0.1:8080` or `unix:/path`.
    pub peer: Span,
    /// The status the peer answered; 502 or 504 when it failed.
    pub status: Option<u16>,
    /// Milliseconds until the connection stood.
    pub connect_ms: Option<u64>,
    /// Milliseconds until the head was complete.
    pub header_ms: Option<u64>,
    /// Milliseconds until the last byte.
    pub response_ms: Option<u64>,
    /// Bytes of the body received.
    pub response_length: u64,
    /// Bytes received, head included.
    pub bytes_received: u64,
    /// Bytes sent to the peer.
    pub bytes_sent: u64,
    /// First attempt after an internal redirect: printed after " : " instead of ", ".
    pub after_redirect: bool,
}

/// All attempts of one exchange.
#[derive(Debug, Default)]
pub struct UpstreamLog {
    /// In the order in which they were made.
    pub attempts: SmallVec<[Attempt; 1]>,
    /// The URL of the attempt under way, for the error log: `http://127.0.0.1:8080/path`.
    pub url: Option<Span>,
    /// The head of the last answer, for `$upstream_http_*` and `$upstream_cookie_*`.
    pub headers: crate::headers::Headers,
    /// The trailers of the last answer, for `$upstream_trailer_*`.
    pub trailers: crate::headers::Headers,
    /// What the configuration names as host and port, until an internal redirect.
    pub place: Option<(Span, Span)>,
    /// The next attempt follows an internal redirect.
    pub redirected: bool,
}

impl UpstreamLog {
    /// The URL being tried, as the error log shows it.
    pub fn current(&self) -> Option<Span> {
        self.url
    }

    /// Begins an attempt at `peer`.
    pub fn begin(&mut self, peer: Span) -> &mut Attempt {
        let after_redirect = std::mem::take(&mut self.redirected) && !self.attempts.is_empty();
        self.attempts.push(Attempt {
            peer,
            status: None,
            connect_ms: None,
            header_ms: None,
            response_ms: None,
            response_length: 0,
            bytes_received: 0,
            bytes_sent: 0,
            after_redirect,
        });
        // An attempt was pushed just now.
        self.attempts.last_mut().expect("just pushed")
    }

    /// The attempt under way, or the last one.
    pub fn last(&mut self) -> Option<&mut Attempt> {
        self.attempts.last_mut()
    }
}
