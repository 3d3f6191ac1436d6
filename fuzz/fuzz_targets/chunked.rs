//! Chunked bodies, whole and in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::http1::{ChunkDecoder, ChunkEvent, Trailers};

/// What a body decodes to: its data, and where it ends or that it is bad.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Done(usize),
    Partial,
    Bad,
}

fn decode(mut decoder: ChunkDecoder, body: &[u8], step: usize) -> (Vec<u8>, End) {
    let mut data = Vec::new();
    let mut at = 0;
    let mut end = 0;
    loop {
        match decoder.decode(&body[at..end]) {
            Ok(ChunkEvent::Data { skip, take }) => {
                data.extend_from_slice(&body[at + skip..at + skip + take]);
                at += skip + take;
            }
            Ok(ChunkEvent::NeedMore { consumed }) => {
                at += consumed;
                if end == body.len() {
                    return (data, End::Partial);
                }
                // What is asked for never lies behind the end of the body.
                assert!(decoder.least_remaining() > 0);
                end = (end + step).min(body.len());
            }
            Ok(ChunkEvent::Done { consumed }) => return (data, End::Done(at + consumed)),
            Err(_) => return (data, End::Bad),
        }
    }
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (is_request, step, body) = input;
    let decoder = || match is_request {
        true => ChunkDecoder::for_request(Trailers::default()),
        false => ChunkDecoder::for_response(Trailers::default()),
    };
    let whole = decode(decoder(), body, body.len().max(1));
    let piecewise = decode(decoder(), body, usize::from(step) + 1);
    assert_eq!(piecewise, whole);
});
