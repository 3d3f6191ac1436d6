//! Configurations: two files, one of which may include the other, judged by all directive tables.

#![no_main]

use libfuzzer_sys::fuzz_target;
use std::cell::OnceCell;
use std::path::Path;

thread_local! {
    static REGISTRY: OnceCell<config::Registry> = const { OnceCell::new() };
}

fuzz_target!(|texts: (&[u8], &[u8])| {
    let (main, included) = texts;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let files =
        config::MemoryFiles::new().with("/p/nginx.conf", text(main)).with("/p/a", text(included));
    REGISTRY.with(|registry| {
        let registry = registry.get_or_init(heng::modules::registry);
        let load =
            || config::load(&files, Path::new("/p/nginx.conf"), Path::new("/p"), &[], registry);
        let (_, first) = load();
        let (_, second) = load();
        assert_eq!(first, second);
    });
});
