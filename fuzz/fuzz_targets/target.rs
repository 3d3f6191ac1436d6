//! Targets of requests: decoding and normalising paths.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::http1::target::{parse, split_internal};

fn climbs(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|segment| segment == b"..")
}

fuzz_target!(|input: (bool, &[u8])| {
    let (merge_slashes, raw) = input;
    let mut normalised = Vec::new();
    // The parser of request lines lets no such byte through.
    if !raw.contains(&0)
        && let Ok(target) = parse(raw, merge_slashes, &mut normalised)
    {
        let path = target.path(raw, &normalised);
        assert_eq!(path.first(), Some(&b'/'));
        assert!(!climbs(path) && !path.contains(&0));
        assert!(path.len() <= raw.len() + 1);
        assert!(!merge_slashes || !path.windows(2).any(|two| two == b"//"));
        // A plain path says of itself that it is normal.
        if target.plain {
            let mut again = Vec::new();
            let target = parse(path, merge_slashes, &mut again).expect("a normal path");
            assert_eq!(target.path(path, &again), path);
        }
    }
    let mut path = Vec::new();
    if split_internal(raw, &mut path).is_some() {
        assert!(!climbs(&path) && !path.contains(&0));
    }
});
