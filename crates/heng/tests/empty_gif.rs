//! The picture of one pixel.

use testkit::{Config, Server};

#[test]
fn the_pixel_is_served_from_memory() {
    let server = Server::start(Config::server("location = /pixel { empty_gif; }"));
    let response = server.get("/pixel").expect(200);
    assert_eq!(response.header("Content-Type"), Some("image/gif"));
    assert_eq!(response.header("Content-Length"), Some("43"));
    assert_eq!(response.header("Last-Modified"), Some("Mon, 28 Sep 1970 06:00:00 GMT"));
    assert_eq!(response.body.len(), 43);
    // One by one pixels in little-endian order, after the name of the format.
    assert!(response.body.starts_with(b"GIF89a\x01\x00\x01\x00"), "{:?}", response.body);
    assert_eq!(response.body.last(), Some(&b';'));

    let since = ("If-Modified-Since", "Mon, 28 Sep 1970 06:00:00 GMT");
    server.connect().request("GET", "/pixel", &[("Host", "a"), since], b"").expect(304);
    assert_eq!(server.connect().post("/pixel", b"").status, 405);
    assert_eq!(server.get("/other").status, 404);
}
