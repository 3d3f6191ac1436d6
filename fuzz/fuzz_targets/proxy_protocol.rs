//! Headers of the PROXY protocol, whole and with more behind them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wire::proxy_protocol::{Origin, Parsed, find, parse, tls_parts};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    if let Ok(Parsed::Complete { len, origin }) = &whole {
        assert!(*len <= bytes.len());
        let extensions = match origin {
            Origin::Tcp(tcp) => &bytes[tcp.extensions.clone()],
            _ => &[],
        };
        for kind in 0..=255 {
            if let Ok(Some(value)) = find(extensions, kind) {
                tls_parts(value);
            }
        }
    }
    let is_whole = !matches!(whole, Ok(Parsed::Partial));
    let more = [bytes, b"GET / HTTP/1.1\r\n\r\n"].concat();
    if is_whole {
        assert_eq!(parse(&more), whole);
    }
});
