//! Frames: their heads, types and flags, and how the small ones are written (RFC 9113 section 4
//! and 6).

/// Bytes of a frame's head.
pub const HEAD: usize = 9;
/// The longest payload that a peer must take, and that we send.
pub const PAYLOAD: usize = 16384;
/// The longest payload that a client may send us: bodies and header blocks are taken as they come,
/// so their length costs nothing. nginx announces the same.
pub const PAYLOAD_MAX: usize = 0xff_ffff;
/// The largest flow-control window.
pub const WINDOW_MAX: i64 = 0x7fff_ffff;
/// Every window at first.
pub const WINDOW: i64 = 65535;
/// What a client says first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Data = 0,
    Headers = 1,
    Priority = 2,
    Reset = 3,
    Settings = 4,
    PushPromise = 5,
    Ping = 6,
    GoAway = 7,
    WindowUpdate = 8,
    Continuation = 9,
    /// To be ignored (RFC 9113 section 4.1).
    Unknown = 255,
}

impl Kind {
    fn of(byte: u8) -> Kind {
        use Kind as K;
        match byte {
            0 => K::Data,
            1 => K::Headers,
            2 => K::Priority,
            3 => K::Reset,
            4 => K::Settings,
            5 => K::PushPromise,
            6 => K::Ping,
            7 => K::GoAway,
            8 => K::WindowUpdate,
            9 => K::Continuation,
            _ => K::Unknown,
        }
    }
}

/// Flags; which of them mean something depends on the type.
pub mod flag {
    /// The stream's last frame in this direction.
    pub const END_STREAM: u8 = 1;
    /// The answer to SETTINGS or PING.
    pub const ACK: u8 = 1;
    /// The header block ends here.
    pub const END_HEADERS: u8 = 4;
    /// A length of padding comes first.
    pub const PADDED: u8 = 8;
    /// Five bytes of priority come first.
    pub const PRIORITY: u8 = 0x20;
}

/// Settings by number (RFC 9113 section 6.5.2).
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
}

/// Why a stream or a connection ended (RFC 9113 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Code {
    NoError = 0,
    Protocol = 1,
    Internal = 2,
    FlowControl = 3,
    SettingsTimeout = 4,
    StreamClosed = 5,
    FrameSize = 6,
    RefusedStream = 7,
    Cancel = 8,
    Compression = 9,
    Connect = 10,
    EnhanceYourCalm = 11,
}

/// A frame's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Bytes of the payload.
    pub length: usize,
    /// The type.
    pub kind: Kind,
    /// Flags.
    pub flags: u8,
    /// The stream; 0 is the connection.
    pub stream: u32,
}

impl FrameHead {
    /// Reads one.
    pub fn parse(bytes: &[u8; HEAD]) -> FrameHead {
        let [a, b, c, kind, flags, s0, s1, s2, s3] = *bytes;
        FrameHead {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind: Kind::of(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        }
    }

    /// True when a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame's head.
pub fn put_head(out: &mut Vec<u8>, length: usize, kind: Kind, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [s0, s1, s2, s3] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind as u8, flags, s0, s1, s2, s3]);
}

/// Appends SETTINGS.
pub fn put_settings(out: &mut Vec<u8>, settings: &[(u16, u32)]) {
    put_head(out, settings.len() * 6, Kind::Settings, 0, 0);
    for (number, value) in settings {
        out.extend_from_slice(&number.to_be_bytes());
        out.extend_from_slice(&value.to_be_bytes());
    }
}

/// Appends WINDOW_UPDATE.
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, more: u32) {
    put_head(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&more.to_be_bytes());
}

/// Appends RST_STREAM.
pub fn put_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    put_head(out, 4, Kind::Reset, 0, stream);
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// Appends GOAWAY.
pub fn put_go_away(out: &mut Vec<u8>, last: u32, code: Code) {
    put_head(out, 8, Kind::GoAway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&(code as u32).to_be_bytes());
}

/// The number in the first four bytes; 0 when there are fewer.
pub fn number(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |four| u32::from_be_bytes(*four))
}
