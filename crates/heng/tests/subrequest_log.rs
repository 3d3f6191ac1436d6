//! What the access log says about subrequests.

use testkit::{Answer, Backend, Config, Gate, Server};

fn serving(backend: &Backend, inside: &str) -> Server {
    Server::start(
        Config::http(&format!(
            "log_format s '$uri $status $upstream_response_length';
             access_log %%DIR%%/logs/access.log s;
             server {{ listen 127.0.0.1:%%PORT_0%%; log_subrequest on;
                 location / {{ {inside} root %%DIR%%/html; }}
                 location /sub {{ proxy_pass http://127.0.0.1:%%BACKEND%%; }} }}"
        ))
        .with("BACKEND", backend.port())
        .file("html/a", "text"),
    )
}

#[test]
fn it_is_written_when_the_answer_was_read() {
    for inside in ["auth_request /sub;", "mirror /sub;"] {
        let gate = Gate::new();
        let backend = {
            let gate = gate.clone();
            Backend::with(move |_| Answer::text("0123456789").pause_at(4, &gate))
        };
        let server = serving(&backend, inside);
        assert_eq!(server.get("/a").expect(200).text(), "text");
        assert!(!server.access_log().contains("/sub"), "{inside}");
        gate.open();
        server.wait_for_access("/sub 200 10");
        server.wait_for_access("/a 200 ");
        assert_eq!(server.access_log().matches("/sub").count(), 1);
    }
    // An answer that is there at once is logged once too.
    let backend = Backend::with(|_| Answer::text("01"));
    let server = serving(&backend, "auth_request /sub;");
    server.get("/a").expect(200);
    server.wait_for_access("/sub 200 2");
    assert_eq!(server.access_log().matches("/sub").count(), 1);
}
