//! Two sides back to back, hostile frames in a table, and any bytes at all.

use super::connection::*;
use super::frame::{self, Code, Kind, PAYLOAD, PREFACE, WINDOW, flag};
use super::hpack::{self, Limits};
use proptest::prelude::*;

const LISTS: Limits = Limits { field: 8192, list: 32768, count: 100 };
const RULES: Rules = Rules { initial_window: 65536, concurrent: 8, lists: LISTS };

fn server() -> Connection {
    Connection::new(Role::Server, RULES)
}

/// Feeds bytes in pieces of `size`; events until the first fault.
fn feed(side: &mut Connection, bytes: &[u8], size: usize) -> (Vec<Event>, Option<Fault>) {
    let mut events = Vec::new();
    for piece in bytes.chunks(size.max(1)) {
        let mut at = 0;
        while at < piece.len() {
            match side.turn().and_then(|()| side.receive(&piece[at..])) {
                Ok((used, event)) => {
                    at += used;
                    events.extend(event);
                }
                Err(fault) => return (events, Some(fault)),
            }
        }
    }
    (events, None)
}

fn request() -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [(":method", "GET"), (":scheme", "http"), (":path", "/")] {
        hpack::encode(&mut block, name.as_bytes(), value.as_bytes());
    }
    block
}

/// A frame as bytes.
fn frame_of(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame::put_head(&mut out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
    out
}

const ALL: u8 = flag::END_HEADERS | flag::END_STREAM;

/// The preface, SETTINGS, and `frames`.
fn after_preface(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    frame::put_settings(&mut bytes, &[]);
    bytes.extend(frames.concat());
    bytes
}

#[test]
fn a_request_and_its_answer() {
    for size in [1, 2, 7, 1000] {
        let (mut client, mut server) = (Connection::new(Role::Client, RULES), server());
        assert!(client.may_open());
        let id = client.open();
        client.send_head(id, &request(), false);
        client.send_data(id, 5, true);
        client.out.extend_from_slice(b"hello");
        let sent = std::mem::take(&mut client.out);
        let (events, fault) = feed(&mut server, &sent, size);
        assert_eq!(fault, None);
        assert!(events.contains(&Event::Head { stream: id, end: false }), "{events:?}");
        let is_last = |event: &Event| matches!(event, Event::Data { end: true, .. });
        assert!(events.iter().any(is_last), "{events:?}");
        let path = server.list().iter().find(|(name, _)| name == b":path");
        assert_eq!(path, Some((&b":path"[..], &b"/"[..])));
        let mut block = Vec::new();
        hpack::encode_status(&mut block, 200);
        server.send_head(id, &block, false);
        server.send_data(id, 2, false);
        server.out.extend_from_slice(b"ok");
        server.send_head(id, &block, true);
        let sent = std::mem::take(&mut server.out);
        let (events, fault) = feed(&mut client, &sent, size);
        assert_eq!(fault, None);
        assert!(events.contains(&Event::Head { stream: id, end: false }), "{events:?}");
        assert_eq!(events.last(), Some(&Event::Trailers { stream: id }));
        assert_eq!((client.open_streams(), server.open_streams()), (0, 0));
    }
}

/// A name, frames, and how they end the connection.
type Row = (&'static str, Vec<Vec<u8>>, Code);

/// RFC 9113 section 6.1, 6.2, 6.4 and 6.9.
fn broken_frames_of_streams() -> Vec<Row> {
    use Code as C;
    use Kind as K;
    let head = |id, flags| frame_of(K::Headers, flags, id, &request());
    let padded = |length: u8| [&[length][..], &request()].concat();
    vec![
        ("DATA on 0", vec![frame_of(K::Data, 0, 0, b"x")], C::Protocol),
        ("DATA on an idle stream", vec![frame_of(K::Data, 0, 1, b"x")], C::Protocol),
        ("RST_STREAM on an idle stream", vec![frame_of(K::Reset, 0, 1, &[0; 4])], C::Protocol),
        ("WINDOW_UPDATE idle", vec![frame_of(K::WindowUpdate, 0, 1, &[1; 4])], C::Protocol),
        ("WINDOW_UPDATE of 0", vec![frame_of(K::WindowUpdate, 0, 0, &[0; 4])], C::Protocol),
        (
            "window too large",
            vec![frame_of(K::WindowUpdate, 0, 0, &[127, 255, 255, 255])],
            C::FlowControl,
        ),
        ("even stream", vec![head(2, ALL)], C::Protocol),
        ("smaller stream", vec![head(5, ALL), head(3, ALL)], C::Protocol),
        ("HEADERS on 0", vec![head(0, ALL)], C::Protocol),
        ("HEADERS after the end", vec![head(1, ALL), head(1, ALL)], C::StreamClosed),
        ("empty HEADERS", vec![frame_of(K::Headers, ALL, 1, &[])], C::FrameSize),
        (
            "all padding",
            vec![frame_of(K::Headers, ALL | flag::PADDED, 1, &padded(200))],
            C::Protocol,
        ),
        (
            "padding of DATA",
            vec![head(1, 4), frame_of(K::Data, flag::PADDED, 1, &[9, 1])],
            C::Protocol,
        ),
        (
            "self-dependency",
            vec![frame_of(
                K::Headers,
                ALL | flag::PRIORITY,
                1,
                &[&[0, 0, 0, 1, 9][..], &request()].concat(),
            )],
            C::Protocol,
        ),
    ]
}

/// RFC 9113 section 6.3 to 6.10.
fn broken_frames_of_connections() -> Vec<Row> {
    use Code as C;
    use Kind as K;
    let head = |id, flags| frame_of(K::Headers, flags, id, &request());
    vec![
        ("CONTINUATION of nothing", vec![frame_of(K::Continuation, 4, 1, &[])], C::Protocol),
        ("frame within a block", vec![head(1, 0), frame_of(K::Ping, 0, 0, &[0; 8])], C::Protocol),
        (
            "other stream's CONTINUATION",
            vec![head(1, 0), frame_of(K::Continuation, 4, 3, &[])],
            C::Protocol,
        ),
        ("PUSH_PROMISE", vec![frame_of(K::PushPromise, 4, 1, &[0; 4])], C::Protocol),
        ("long SETTINGS", vec![frame_of(K::Settings, 0, 0, &[0; PAYLOAD + 1])], C::FrameSize),
        ("short PING", vec![frame_of(K::Ping, 0, 0, &[0; 7])], C::FrameSize),
        ("PING on a stream", vec![frame_of(K::Ping, 0, 1, &[0; 8])], C::Protocol),
        ("short RST_STREAM", vec![frame_of(K::Reset, 0, 1, &[0; 3])], C::FrameSize),
        ("short PRIORITY", vec![frame_of(K::Priority, 0, 1, &[0; 4])], C::FrameSize),
        ("PRIORITY on 0", vec![frame_of(K::Priority, 0, 0, &[0; 5])], C::Protocol),
        ("SETTINGS on a stream", vec![frame_of(K::Settings, 0, 1, &[])], C::Protocol),
        ("SETTINGS of 5 bytes", vec![frame_of(K::Settings, 0, 0, &[0; 5])], C::FrameSize),
        ("ACK with a payload", vec![frame_of(K::Settings, 1, 0, &[0; 6])], C::FrameSize),
        (
            "window setting",
            vec![frame_of(K::Settings, 0, 0, &[0, 4, 128, 0, 0, 0])],
            C::FlowControl,
        ),
        ("frame setting", vec![frame_of(K::Settings, 0, 0, &[0, 5, 0, 0, 0, 1])], C::Protocol),
        ("push setting", vec![frame_of(K::Settings, 0, 0, &[0, 2, 0, 0, 0, 2])], C::Protocol),
        ("short GOAWAY", vec![frame_of(K::GoAway, 0, 0, &[0; 7])], C::FrameSize),
        ("bad index", vec![frame_of(K::Headers, ALL, 1, &[0xff, 0x7f])], C::Compression),
    ]
}

/// RFC 9113 sections 4 to 6: what ends a connection, and with which code.
#[test]
fn broken_rules_end_the_connection() {
    let rows = broken_frames_of_streams().into_iter().chain(broken_frames_of_connections());
    for (name, frames, code) in rows {
        for size in [1, 9, 100_000] {
            let (_, fault) = feed(&mut server(), &after_preface(&frames), size);
            assert_eq!(fault.map(|fault| fault.code), Some(code), "{name}");
        }
    }
    let (_, fault) = feed(&mut server(), b"GET / HTTP/1.1\r\n", 3);
    assert_eq!(
        fault.map(|fault| fault.text.into_owned()).as_deref(),
        Some("invalid connection preface")
    );
}

/// What ends a stream only.
#[test]
fn broken_rules_that_end_a_stream() {
    let head = frame_of(Kind::Headers, flag::END_HEADERS, 1, &request());
    let ended = frame_of(Kind::Headers, ALL, 1, &request());
    let rows = [
        (&head, frame_of(Kind::WindowUpdate, 0, 1, &[0; 4]), Code::Protocol),
        (&head, frame_of(Kind::WindowUpdate, 0, 1, &[127, 255, 255, 255]), Code::FlowControl),
        (&ended, frame_of(Kind::Data, 0, 1, b"x"), Code::StreamClosed),
        (&head, frame_of(Kind::Priority, 0, 1, &[0, 0, 0, 1, 0]), Code::Protocol),
    ];
    for (first, second, code) in rows {
        let mut side = server();
        let (events, fault) = feed(&mut side, &after_preface(&[first.clone(), second]), 50);
        assert_eq!(fault, None);
        let Some(Event::Failed { stream: 1, fault }) = events.last() else { panic!("{events:?}") };
        assert_eq!(fault.code, code);
        // What comes late on a stream that we reset harms nobody.
        let late = frame_of(Kind::Data, 0, 1, b"late");
        assert_eq!(feed(&mut side, &late, 50), (vec![], None));
    }
}

#[test]
fn windows_are_kept_and_replenished() {
    let mut side = server();
    let head = frame_of(Kind::Headers, flag::END_HEADERS, 1, &request());
    let data = frame_of(Kind::Data, 0, 1, &[b'x'; PAYLOAD]);
    let four = [&data[..]; 4].concat();
    let (_, fault) = feed(&mut side, &after_preface(&[head, four]), 4096);
    assert_eq!((fault, side.allowed(1)), (None, 0));
    side.out.clear();
    side.allow(1, 100);
    assert_eq!(side.out, [0, 0, 4, 8, 0, 0, 0, 0, 1, 0, 0, 0, 100]);
    let (events, _) = feed(&mut side, &data, 4096);
    let is_flow = |event: &Event| match event {
        Event::Failed { fault, .. } => fault.code == Code::FlowControl,
        _ => false,
    };
    assert!(events.iter().any(is_flow), "{events:?}");
}

#[test]
fn no_more_is_sent_than_the_peer_allows() {
    let mut side = server();
    let head = frame_of(Kind::Headers, ALL, 1, &request());
    let small = frame_of(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 10]);
    feed(&mut side, &after_preface(&[small, head]), 4096);
    assert_eq!(side.room(1), 10);
    side.send_data(1, 10, false);
    assert_eq!(side.room(1), 0);
    // The window of a stream may become negative (RFC 9113 section 6.9.2).
    feed(&mut side, &frame_of(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 5]), 4096);
    feed(&mut side, &frame_of(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 5]), 4096);
    assert_eq!(side.room(1), 0);
    feed(&mut side, &frame_of(Kind::WindowUpdate, 0, 1, &[0, 0, 0, 7]), 4096);
    assert_eq!(side.room(1), 7);
}

/// Work for nothing, in each form that was ever used against servers.
#[test]
fn floods_are_detected() {
    let reset = |i: u32| {
        let id = 2 * i + 1;
        let head = frame_of(Kind::Headers, ALL, id, &request());
        [head, frame_of(Kind::Reset, 0, id, &[0, 0, 0, 8])].concat()
    };
    let made_to_reset = |i: u32| {
        let id = 2 * i + 1;
        let head = frame_of(Kind::Headers, ALL, id, &request());
        [head, frame_of(Kind::WindowUpdate, 0, id, &[0; 4])].concat()
    };
    let head = frame_of(Kind::Headers, flag::END_STREAM, 1, &request());
    type Make<'a> = &'a dyn Fn(u32) -> Vec<u8>;
    let rows: [(&str, Vec<u8>, Make<'_>); 8] = [
        ("rapid reset", vec![], &reset),
        ("made you reset", vec![], &made_to_reset),
        ("PING", vec![], &|_| frame_of(Kind::Ping, 0, 0, &[0; 8])),
        ("SETTINGS", vec![], &|_| frame_of(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 10])),
        ("PRIORITY", vec![], &|_| frame_of(Kind::Priority, 0, 3, &[0; 5])),
        ("empty DATA", frame_of(Kind::Headers, 4, 1, &request()), &|_| {
            frame_of(Kind::Data, 0, 1, &[])
        }),
        ("empty CONTINUATION", head.clone(), &|_| frame_of(Kind::Continuation, 0, 1, &[])),
        ("CONTINUATION", head, &|_| frame_of(Kind::Continuation, 0, 1, &request())),
    ];
    for (name, first, make) in rows {
        let mut side = server();
        feed(&mut side, &after_preface(&[first]), 4096);
        let mut bytes = 0;
        let fault = (0..2_000_000).find_map(|i| {
            let frames = make(i);
            bytes += frames.len();
            side.out.clear();
            feed(&mut side, &frames, 4096).1
        });
        let fault = fault.unwrap_or_else(|| panic!("{name} goes on for ever"));
        assert!(bytes < 10 << 20, "{name} took {bytes} bytes to be seen: {fault:?}");
    }
}

/// A block that never ends does not grow what we hold.
#[test]
fn a_field_that_never_ends_is_refused_early() {
    let mut side = server();
    // A literal whose value is announced with 8,000 bytes, a byte per frame.
    let first = frame_of(Kind::Headers, 0, 1, &[0, 1, b'a', 0x7f, 0xc1, 0x3d]);
    feed(&mut side, &after_preface(&[first]), 4096);
    for _ in 0..8000 {
        assert_eq!(feed(&mut side, &frame_of(Kind::Continuation, 0, 1, b"x"), 99).1, None);
    }
    let long = frame_of(Kind::Headers, 0, 1, &[0, 1, b'a', 0x7f, 0xff, 0xff, 0x3f]);
    let (_, fault) = feed(&mut server(), &after_preface(&[long]), 99);
    assert_eq!(fault.map(|fault| fault.code), Some(Code::EnhanceYourCalm));
}

#[test]
fn too_many_streams_are_refused_and_can_be_tried_again() {
    let mut side = server();
    let heads: Vec<Vec<u8>> =
        (0..9).map(|i| frame_of(Kind::Headers, ALL, 2 * i + 1, &request())).collect();
    let (events, fault) = feed(&mut side, &after_preface(&heads), 4096);
    assert_eq!((fault, side.open_streams()), (None, 8));
    assert!(matches!(events.last(), Some(Event::Refused(_))), "{events:?}");
    side.reset(1, Code::NoError);
    let again = frame_of(Kind::Headers, ALL, 19, &request());
    let (events, _) = feed(&mut side, &again, 4096);
    assert_eq!(events, [Event::Head { stream: 19, end: true }]);
}

proptest! {
    /// Frames of any kind with any content, in any pieces: no panic, the same verdict however
    /// they are cut, and nothing grows.
    #[test]
    fn any_frames_are_taken_or_refused(
        frames in proptest::collection::vec(
            (0u8..11, any::<u8>(), 0u32..8, proptest::collection::vec(any::<u8>(), 0..40)), 0..30),
        size in 1usize..64,
    ) {
        let mut bytes = after_preface(&[]);
        for (kind, flags, stream, payload) in frames {
            let length = (payload.len() as u32).to_be_bytes();
            bytes.extend_from_slice(&length[1..]);
            bytes.extend_from_slice(&[kind, flags]);
            bytes.extend_from_slice(&stream.to_be_bytes());
            bytes.extend_from_slice(&payload);
        }
        let (mut one, mut other) = (server(), server());
        let (_, first) = feed(&mut one, &bytes, size);
        let (_, second) = feed(&mut other, &bytes, bytes.len());
        prop_assert_eq!(first, second);
        prop_assert!(one.open_streams() <= 8);
        prop_assert!(one.allowed(1) <= WINDOW + 1);
    }

    #[test]
    fn any_bytes_are_taken_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut side = Connection::new(Role::Client, RULES);
        side.open();
        feed(&mut side, &bytes, 100);
    }
}
