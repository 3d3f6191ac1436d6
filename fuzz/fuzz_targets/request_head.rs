//! Heads of requests, whole and in pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::http1::{Options, Parsed, RequestParser};

fuzz_target!(|input: (u8, u8, &[u8])| {
    let (settings, step, head) = input;
    let options = Options {
        ignore_invalid_headers: settings & 1 != 0,
        underscores_in_headers: settings & 2 != 0,
        max_headers: if settings & 4 != 0 { 3 } else { 1000 },
    };
    let mut fields = Vec::new();
    let whole = RequestParser::new(options).parse(head, &mut fields);
    if let Ok(Parsed::Complete { len, line }) = &whole {
        assert!(*len <= head.len());
        assert!(line.text.end() <= *len && line.path.end() <= *len);
        for field in &fields {
            assert!(field.name.end() <= field.value.at as usize && field.value.end() <= *len);
        }
    }
    // In pieces of `step` bytes.
    let mut parser = RequestParser::new(options);
    let mut found = Vec::new();
    let mut end = 0;
    let piecewise = loop {
        end = (end + usize::from(step) + 1).min(head.len());
        match parser.parse(&head[..end], &mut found) {
            Ok(Parsed::Partial) if end < head.len() => {}
            verdict => break verdict,
        }
    };
    assert_eq!(piecewise, whole);
    if whole.is_ok() {
        assert_eq!(found, fields);
    }
});
