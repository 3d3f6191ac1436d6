//! Heads of backends' answers, whole and in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::http1::{ParsedResponse, ResponseParser};

fuzz_target!(|input: (u8, &[u8])| {
    let (step, head) = input;
    let mut fields = Vec::new();
    let whole = ResponseParser::new(50).parse(head, &mut fields);
    if let Ok(ParsedResponse::Complete { len, .. }) = &whole {
        assert!(*len <= head.len());
        for field in &fields {
            assert!(field.name.end() <= field.value.at as usize && field.value.end() <= *len);
        }
    }
    let mut parser = ResponseParser::new(50);
    let mut found = Vec::new();
    let mut end = 0;
    let piecewise = loop {
        end = (end + usize::from(step) + 1).min(head.len());
        match parser.parse(&head[..end], &mut found) {
            Ok(ParsedResponse::Partial) if end < head.len() => {}
            verdict => break verdict,
        }
    };
    assert_eq!(piecewise, whole);
    if whole.is_ok() {
        assert_eq!(found, fields);
    }
});
