//! Chunk decoding by itself: limits, hints, trailers, and what servers may do that clients may not.

use proptest::prelude::*;
use wire::http1::{BadChunkKind, ChunkDecoder, ChunkEvent, TrailerParser, Trailers};

#[test]
fn chunk_framing_is_bounded() {
    let decode = |input: &[u8]| {
        let mut decoder = ChunkDecoder::for_request(Trailers::Skip);
        let mut at = 0;
        loop {
            match decoder.decode(&input[at..]) {
                Ok(ChunkEvent::Data { skip, take }) => at += skip + take,
                Ok(_) => return None,
                Err(fault) => return Some(fault.kind),
            }
        }
    };
    let extension = format!("1;{}\r\nx\r\n", "e".repeat(100));
    assert_eq!(decode(extension.repeat(100).as_bytes()), None);
    assert_eq!(decode(extension.repeat(300).as_bytes()), Some(BadChunkKind::TooMuchFraming));
    let long = format!("1;{}", "e".repeat(20_000));
    assert_eq!(decode(long.as_bytes()), Some(BadChunkKind::TooMuchFraming));
    assert_eq!(decode("0".repeat(20_000).as_bytes()), Some(BadChunkKind::TooMuchFraming));
    // A signature on each large chunk, and one-byte chunks, may go on for ever.
    let signed = format!("400;chunk-signature={}\r\n{}\r\n", "f".repeat(64), "x".repeat(1024));
    assert_eq!(decode(signed.repeat(1000).as_bytes()), None);
    assert_eq!(decode("1\r\nx\r\n".repeat(20_000).as_bytes()), None);
    let trailers = format!("0\r\n{}", "X: y\r\n".repeat(4000));
    assert_eq!(decode(trailers.as_bytes()), Some(BadChunkKind::TrailerTooLarge));
}

#[test]
fn old_servers_may_pad_their_chunk_sizes() {
    let mut decoder = ChunkDecoder::for_response(Trailers::Skip);
    assert_eq!(decoder.decode(b"3  \r\nabc"), Ok(ChunkEvent::Data { skip: 5, take: 3 }));
    assert_eq!(decoder.decode(b"\r\n0 \r\n\r\nX"), Ok(ChunkEvent::Done { consumed: 8 }));
    assert!(decoder.is_done());
    for bad in ["3 x\r\n", "3\n", "3\t\n", "3 \0"] {
        let mut decoder = ChunkDecoder::for_response(Trailers::Skip);
        assert!(decoder.decode(bad.as_bytes()).is_err(), "{bad:?}");
    }
}

#[test]
fn the_least_that_is_still_to_come() {
    // What remains of the shortest body that continues what was read, after each byte.
    let check = |input: &str, expected: &[u64]| {
        let mut decoder = ChunkDecoder::for_response(Trailers::Skip);
        let mut found = vec![decoder.least_remaining()];
        for byte in input.bytes() {
            assert!(decoder.decode(&[byte]).is_ok(), "{input:?}");
            found.push(decoder.least_remaining());
        }
        assert_eq!(found, expected, "{input:?}");
    };
    check("0\r\n\r\n", &[5, 4, 3, 2, 1, 0]);
    check("0;\r\nA:\r\n\r\n", &[5, 4, 4, 3, 2, 4, 4, 3, 2, 1, 0]);
    check("1\r\nx\r\n0\r\n\r\n", &[5, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    check("1 ;a\r\n", &[5, 10, 10, 10, 10, 9, 8]);
}

#[test]
fn trailers_are_kept_for_their_parser() {
    let input = b"3\r\nabc\r\n0\r\nX-Sum: 9 \r\nY: z\r\n\r\nHTTP/1.1 200";
    for cut in 0..input.len() {
        let mut decoder = ChunkDecoder::for_response(Trailers::Keep);
        let mut at = 0;
        let start = loop {
            let end = if at < cut { cut } else { input.len() };
            match decoder.decode(&input[at..end]) {
                Ok(ChunkEvent::Data { skip, take }) => at += skip + take,
                Ok(ChunkEvent::NeedMore { consumed }) => at += consumed,
                Ok(ChunkEvent::Done { consumed }) => break at + consumed,
                Err(fault) => panic!("{fault:?}"),
            }
        };
        let mut parser = TrailerParser::default();
        let mut fields = Vec::new();
        let section = &input[start..];
        let early = parser.parse(&section[..cut.min(section.len())], &mut fields);
        let len = match early {
            Ok(Some(len)) => len,
            Ok(None) => parser.parse(section, &mut fields).unwrap().unwrap(),
            Err(fault) => panic!("{fault:?}"),
        };
        assert_eq!(&section[len..], b"HTTP/1.1 200");
        let values: Vec<_> = fields.iter().map(|field| field.value.of(section)).collect();
        assert_eq!(values, [b"9".as_slice(), b"z"]);
    }
    let refused =
        |section: &str| TrailerParser::default().parse(section.as_bytes(), &mut Vec::new());
    assert!(refused(" X: y\r\n").is_err());
    assert!(refused("X\r\n").is_err());
    assert!(refused(&"X: y\r\n".repeat(101)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn chunked_bodies_come_out_as_they_went_in(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cut in 1usize..16,
    ) {
        let mut input = Vec::new();
        for chunk in &chunks {
            input.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            input.extend_from_slice(chunk);
            input.extend_from_slice(b"\r\n");
        }
        input.extend_from_slice(b"0\r\n\r\n");
        let mut decoder = ChunkDecoder::for_request(Trailers::Skip);
        let mut data = Vec::new();
        for mut piece in input.chunks(cut) {
            let missing = decoder.least_remaining();
            prop_assert!(missing > 0);
            loop {
                match decoder.decode(piece) {
                    Ok(ChunkEvent::Data { skip, take }) => {
                        data.extend_from_slice(&piece[skip..skip + take]);
                        piece = &piece[skip + take..];
                    }
                    Ok(ChunkEvent::NeedMore { consumed }) => {
                        prop_assert_eq!(consumed, piece.len());
                        break;
                    }
                    Ok(ChunkEvent::Done { consumed }) => {
                        prop_assert_eq!(consumed, piece.len());
                        break;
                    }
                    Err(fault) => prop_assert!(false, "{fault:?}"),
                }
            }
        }
        prop_assert!(decoder.is_done());
        prop_assert_eq!(data, chunks.concat());
    }

    #[test]
    fn noise_is_no_chunk_and_no_panic(input in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut decoder = ChunkDecoder::for_response(Trailers::Skip);
        let mut at = 0;
        while let Ok(ChunkEvent::Data { skip, take }) = decoder.decode(&input[at..]) {
            at += skip + take;
        }
        decoder.least_remaining();
    }
}
