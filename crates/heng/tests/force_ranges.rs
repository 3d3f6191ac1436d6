//! Parts of answers of backends that do not offer them.

use testkit::{Answer, Backend, Config, Server};

#[test]
fn parts_are_cut_from_whole_answers() {
    let backend = Backend::with(|request| {
        assert!(request.header("Range").is_none() || request.target.starts_with("/plain"));
        Answer::text("0123456789").header("ETag", "\"a\"")
    });
    let server = Server::start(
        Config::server(
            "location / { proxy_pass http://127.0.0.1:%%PORT%%; proxy_force_ranges on;
                 proxy_set_header Range ''; }
             location /plain/ { proxy_pass http://127.0.0.1:%%PORT%%; }",
        )
        .with("PORT", backend.port()),
    );
    let ask = |path: &str, fields: &[(&str, &str)]| {
        let mut all = vec![("Host", "a")];
        all.extend_from_slice(fields);
        server.connect().request("GET", path, &all, b"")
    };
    let response = ask("/", &[("Range", "bytes=4-6")]).expect(206);
    assert_eq!(response.text(), "456");
    assert_eq!(response.header("Content-Range"), Some("bytes 4-6/10"));
    assert_eq!(ask("/", &[("Range", "bytes=-2"), ("If-Range", "\"a\"")]).expect(206).text(), "89");
    assert_eq!(
        ask("/", &[("Range", "bytes=-2"), ("If-Range", "\"b\"")]).expect(200).text().len(),
        10
    );
    ask("/", &[("Range", "bytes=20-")]).expect(416);
    assert_eq!(ask("/", &[]).expect(200).header("Accept-Ranges"), Some("bytes"));
    ask("/plain/", &[("Range", "bytes=4-6")]).expect(200);
}
