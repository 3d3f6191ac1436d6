//! The field names that a server or a proxy treats specially, as small integers.
//!
//! Recognition is one multiply-and-add over four bytes of the name, one table look-up and one
//! comparison. The table is built by the compiler, which also refuses to build it when two names
//! fall on one place: then choose other multipliers in `place`.

use super::scan::is_same_name;

macro_rules! known_names {
    ($($variant:ident = $name:literal,)*) => {
        /// A field name with a meaning to a server or a proxy, in either direction.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            /// Any name not listed below.
            #[default]
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        /// Canonical spellings, indexed by the enum's number.
        static NAMES: &[&str] = &["", $($name,)*];

        /// Every variant in the order of its number.
        static ALL: &[Known] = &[Known::Other, $(Known::$variant,)*];
    };
}

known_names! {
    Host = "Host",
    Connection = "Connection",
    ContentLength = "Content-Length",
    TransferEncoding = "Transfer-Encoding",
    Expect = "Expect",
    Upgrade = "Upgrade",
    KeepAlive = "Keep-Alive",
    Te = "TE",
    Trailer = "Trailer",
    ProxyConnection = "Proxy-Connection",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyAuthenticate = "Proxy-Authenticate",
    Range = "Range",
    IfRange = "If-Range",
    IfModifiedSince = "If-Modified-Since",
    IfUnmodifiedSince = "If-Unmodified-Since",
    IfMatch = "If-Match",
    IfNoneMatch = "If-None-Match",
    Accept = "Accept",
    AcceptCharset = "Accept-Charset",
    AcceptEncoding = "Accept-Encoding",
    AcceptLanguage = "Accept-Language",
    UserAgent = "User-Agent",
    Referer = "Referer",
    Cookie = "Cookie",
    SetCookie = "Set-Cookie",
    Authorization = "Authorization",
    WwwAuthenticate = "WWW-Authenticate",
    XForwardedFor = "X-Forwarded-For",
    XForwardedProto = "X-Forwarded-Proto",
    XForwardedHost = "X-Forwarded-Host",
    XRealIp = "X-Real-IP",
    Forwarded = "Forwarded",
    Via = "Via",
    Date = "Date",
    Server = "Server",
    Location = "Location",
    Refresh = "Refresh",
    Etag = "ETag",
    LastModified = "Last-Modified",
    ContentType = "Content-Type",
    ContentEncoding = "Content-Encoding",
    ContentLanguage = "Content-Language",
    ContentLocation = "Content-Location",
    ContentRange = "Content-Range",
    ContentDisposition = "Content-Disposition",
    AcceptRanges = "Accept-Ranges",
    Expires = "Expires",
    CacheControl = "Cache-Control",
    Pragma = "Pragma",
    Vary = "Vary",
    Age = "Age",
    Link = "Link",
    Allow = "Allow",
    RetryAfter = "Retry-After",
    XAccelRedirect = "X-Accel-Redirect",
    XAccelExpires = "X-Accel-Expires",
    XAccelLimitRate = "X-Accel-Limit-Rate",
    XAccelBuffering = "X-Accel-Buffering",
    XAccelCharset = "X-Accel-Charset",
    XPad = "X-Pad",
    XPoweredBy = "X-Powered-By",
    XRequestId = "X-Request-ID",
    Status = "Status",
    Depth = "Depth",
    Destination = "Destination",
    Overwrite = "Overwrite",
    EarlyData = "Early-Data",
    Http2Settings = "HTTP2-Settings",
    Origin = "Origin",
    MaxForwards = "Max-Forwards",
    AltSvc = "Alt-Svc",
    StrictTransportSecurity = "Strict-Transport-Security",
    SecWebSocketKey = "Sec-WebSocket-Key",
    SecWebSocketVersion = "Sec-WebSocket-Version",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol",
    SecWebSocketExtensions = "Sec-WebSocket-Extensions",
}

/// Where a name with these four properties stands in `PLACES`. Letter case is folded by setting
/// one bit, which leaves digits and hyphens alone.
#[inline]
const fn place(len: usize, first: u8, middle: u8, last: u8) -> usize {
    let sum = len
        .wrapping_mul(42)
        .wrapping_add((first | 0x20) as usize * 105)
        .wrapping_add((last | 0x20) as usize * 67)
        .wrapping_add((middle | 0x20) as usize * 212);
    sum & 255
}

/// Number of the only known name that may stand at a place; 0 where there is none.
static PLACES: [u8; 256] = {
    let mut places = [0u8; 256];
    let mut number = 1;
    while number < NAMES.len() {
        let name = NAMES[number].as_bytes();
        let at = place(name.len(), name[0], name[name.len() / 2], name[name.len() - 1]);
        assert!(places[at] == 0, "two known names on one place: choose other multipliers");
        places[at] = number as u8;
        number += 1;
    }
    places
};

/// The first sixteen bytes of the names in lower case, padded with NULs.
static FOLDED: [[u8; 16]; NAMES.len()] = {
    let mut folded = [[0u8; 16]; NAMES.len()];
    let mut number = 1;
    while number < NAMES.len() {
        let name = NAMES[number].as_bytes();
        let mut at = 0;
        while at < name.len() && at < 16 {
            folded[number][at] = name[at] | 0x20;
            at += 1;
        }
        number += 1;
    }
    folded
};

/// The length of each name; 0 for the one that is none.
static LENGTHS: [u8; NAMES.len()] = {
    let mut lengths = [0u8; NAMES.len()];
    let mut number = 1;
    while number < NAMES.len() {
        lengths[number] = NAMES[number].len() as u8;
        number += 1;
    }
    lengths
};

impl Known {
    /// How many numbers there are, [`Known::Other`] included; all are below 128.
    pub const COUNT: usize = NAMES.len();

    /// Recognises a name without regard to ASCII case (RFC 9110 section 5.1).
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let ([first, ..], [.., last]) = (name, name) else { return Known::Other };
        let number = PLACES[place(name.len(), *first, name[name.len() / 2], *last)] as usize;
        if NAMES[number].len() == name.len() && NAMES[number].as_bytes().eq_ignore_ascii_case(name)
        {
            ALL[number]
        } else {
            Known::Other
        }
    }

    /// Recognises the name `buf[at..end]`, which is known to hold letters, digits and hyphens
    /// only: then folding is setting a bit, sixteen bytes at a time.
    #[inline]
    pub(super) fn of_plain(buf: &[u8], at: usize, end: usize) -> Known {
        let name = buf.get(at..end).unwrap_or(&[]);
        let ([first, ..], [.., last]) = (name, name) else { return Known::Other };
        let len = name.len();
        let number = PLACES[place(len, *first, name[len / 2], *last)] as usize;
        if LENGTHS[number] as usize != len {
            return Known::Other;
        }
        // Bytes behind the name may be read along, and count for nothing.
        let Some(chunk) = buf.get(at..).and_then(|rest| rest.first_chunk::<16>()) else {
            return Known::of(name);
        };
        let same = is_same_name(chunk, &FOLDED[number], len)
            && (len <= 16 || name[16..].eq_ignore_ascii_case(&NAMES[number].as_bytes()[16..]));
        if same { ALL[number] } else { Known::Other }
    }

    /// The canonical spelling; empty for [`Known::Other`].
    #[inline]
    pub fn name(self) -> &'static str {
        NAMES[self as usize]
    }

    /// This name's bit in a set of names.
    #[inline]
    pub const fn bit(self) -> u128 {
        1 << self as u8
    }
}

const _: () = assert!(Known::COUNT <= 128, "a set of known names is a u128");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_recognised_in_any_case() {
        for (number, &known) in ALL.iter().enumerate().skip(1) {
            let name = known.name();
            assert_eq!(known as usize, number);
            assert_eq!(Known::of(name.as_bytes()), known);
            assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), known);
            assert_eq!(Known::of(name.to_ascii_lowercase().as_bytes()), known);
            for spelling in [name.to_ascii_uppercase(), name.to_ascii_lowercase()] {
                // Alone, where words run out, and with a line's rest behind it.
                for rest in ["", ": x", ": a longer value"] {
                    let line = format!("{spelling}{rest}");
                    assert_eq!(Known::of_plain(line.as_bytes(), 0, name.len()), known, "{line}");
                }
            }
        }
    }

    #[test]
    fn near_misses_are_other() {
        for (_, &known) in ALL.iter().enumerate().skip(1) {
            let name = known.name().as_bytes();
            for place in 0..name.len() {
                let mut near = name.to_vec();
                near[place] ^= 0x01;
                assert_eq!(Known::of(&near), Known::Other, "{near:?}");
                near.extend_from_slice(b": value of a field");
                assert_eq!(Known::of_plain(&near, 0, name.len()), Known::Other, "{near:?}");
                // The folding bit must not turn a control into a hyphen or a digit.
                let mut control = name.to_vec();
                control[place] &= 0x1f;
                assert_eq!(Known::of(&control), Known::Other, "{control:?}");
            }
            assert_eq!(Known::of(&name[1..]), Known::Other);
        }
        assert_eq!(Known::of(b""), Known::Other);
        assert_eq!(Known::Other.name(), "");
    }
}
