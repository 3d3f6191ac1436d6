//! Parts of answers: the fields Range and If-Range.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::http1::range::{Verdict, if_range_holds, parse};

fuzz_target!(|input: (u64, Option<u8>, &[u8])| {
    let (length, max, value) = input;
    let mut found = Vec::new();
    let max = max.map(u32::from);
    match parse(value, length, max, &mut found) {
        Verdict::Partial => {
            assert!(!found.is_empty());
            assert!(max.is_none_or(|max| found.len() <= max as usize));
            let mut total = 0u64;
            for range in &found {
                assert!(range.start < range.end && range.end <= length);
                total += range.end - range.start;
            }
            // Nobody gets more by asking for parts than by asking for all.
            assert!(total <= length);
        }
        Verdict::NotSatisfiable | Verdict::Whole => {}
    }
    if_range_holds(value, Some(b"\"tag\""), Some(1_700_000_000));
});
