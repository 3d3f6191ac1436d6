//! Answers of name servers.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|message: &[u8]| {
    let _ = wire::dns::reply(message);
});
