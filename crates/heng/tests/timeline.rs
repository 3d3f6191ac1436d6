//! What happened to a server lately, as the API tells it, and for how long it was out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use testkit::{Answer, Backend, Config, Response, Server, until};

/// A server of a group whose rows and location these are.
fn start(rows: &str, location: &str) -> Server {
    Server::start(Config::http(&format!(
        "proxy_connect_timeout 2s; proxy_read_timeout 2s;
         upstream u {{ zone u 64k; {rows} }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location / {{ proxy_pass http://u; {location} }}
             location /api {{ api write=on; allow 127.0.0.1; deny all; }}
         }}"
    )))
}

fn ask(server: &Server, method: &str, path: &str, body: &str) -> Response {
    let mut client = server.connect();
    let length = body.len();
    client.send(format!(
        "{method} /api/9/http/upstreams/u{path} HTTP/1.1\r\nHost: a\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    ));
    client.read_response()
}

/// The events of a server, as `what: why`.
fn events(server: &Server, id: u32) -> Vec<String> {
    let text = ask(server, "GET", &format!("/servers/{id}/timeline"), "").expect(200);
    let text = text.text().to_string();
    let value = |part: &str, name: &str| {
        let from = part.split(&format!("\"{name}\":\"")).nth(1).unwrap_or_default().to_owned();
        from.split('"').next().unwrap_or_default().to_owned()
    };
    let parts = text.split('{').skip(1);
    parts
        .map(|part| {
            assert!(value(part, "time").starts_with("20"), "{part}");
            format!("{}: {}", value(part, "event"), value(part, "reason"))
        })
        .collect()
}

/// The description of the group's servers.
fn peers(server: &Server) -> String {
    ask(server, "GET", "", "").expect(200).text().to_string()
}

#[test]
fn checks_tell_what_they_saw() {
    let status = Arc::new(AtomicU16::new(200));
    let now = status.clone();
    let checked = Backend::with(move |_| Answer::status(now.load(Ordering::Relaxed)));
    let other = Backend::named("other");
    let rows = format!("server 127.0.0.1:{}; server 127.0.0.1:{};", checked.port(), other.port());
    let server = start(&rows, "health_check interval=20ms fails=2 passes=3;");
    assert_eq!(events(&server, 0), Vec::<String>::new());
    assert!(!peers(&server).contains("downstart"));
    status.store(503, Ordering::Relaxed);
    let unhealthy = "unhealthy: checking HTTP status code: status 503".to_owned();
    assert!(until(|| events(&server, 0) == [unhealthy.clone()]), "{:?}", events(&server, 0));
    let all = peers(&server);
    assert!(all.contains("\"downstart\":\"20") && all.contains("\"unhealthy\":1"), "{all}");
    status.store(200, Ordering::Relaxed);
    let healthy = "healthy: 3 passed".to_owned();
    assert!(until(|| events(&server, 0) == [unhealthy.clone(), healthy.clone()]));
    // At least three intervals of checks, and over.
    let all = peers(&server);
    let downtime = all.split("\"downtime\":").nth(1).and_then(|rest| rest.split(',').next());
    let downtime: u64 = downtime.and_then(|text| text.parse().ok()).expect("a number");
    assert!((40..60_000).contains(&downtime) && !all.contains("downstart"), "{all}");
    assert_eq!(events(&server, 1), Vec::<String>::new());
}

#[test]
fn failures_and_recoveries_of_requests_are_told() {
    let mut flapping = Backend::named("here");
    let other = Backend::named("other");
    let rows = format!(
        "server 127.0.0.1:{} max_fails=2 fail_timeout=1s; server 127.0.0.1:{};",
        flapping.port(),
        other.port()
    );
    let server = start(&rows, "");
    flapping.down();
    let unavailable = "unavail: 2 failed within 1 s";
    let asks = || {
        server.get("/").expect(200);
        events(&server, 0)
    };
    assert!(until(|| asks() == [unavailable]));
    assert!(peers(&server).contains("\"state\":\"unavail\""));
    flapping.up();
    let recovered = [unavailable, "recovered: a request was answered"];
    assert!(until(|| asks() == recovered), "{:?}", events(&server, 0));
    // It outlives a reload.
    server.reload();
    assert_eq!(events(&server, 0), recovered);
}

#[test]
fn what_operators_do_is_told() {
    let backend = Backend::named("here");
    let server = start(&format!("server 127.0.0.1:{};", backend.port()), "");
    for change in ["{\"drain\":true}", "{\"down\":true}", "{\"weight\":3}", "{\"down\":false}"] {
        ask(&server, "PATCH", "/servers/0", change).expect(200);
    }
    let expected = ["draining: by the API", "down: by the API", "up: by the API"];
    assert_eq!(events(&server, 0), expected);
    ask(&server, "POST", "/servers", "{\"server\":\"127.0.0.9:1\"}").expect(201);
    assert_eq!(events(&server, 1), ["added: by the API"]);
    // Who comes to the place of another one has a past of his own.
    ask(&server, "DELETE", "/servers/1", "").expect(200);
    ask(&server, "GET", "/servers/1/timeline", "").expect(404);
    ask(&server, "POST", "/servers", "{\"server\":\"127.0.0.9:2\",\"down\":true}").expect(201);
    assert_eq!(events(&server, 2), ["added: by the API"]);
    ask(&server, "GET", "/servers/x/timeline", "").expect(400);
    ask(&server, "DELETE", "/servers/2/timeline", "").expect(405);
}

#[test]
fn ejections_are_told() {
    let failing = Backend::with(|_| Answer::status(500));
    let other = Backend::named("other");
    let rows = format!(
        "server 127.0.0.1:{}; server 127.0.0.1:{}; outlier_detection consecutive_5xx=2;",
        failing.port(),
        other.port()
    );
    let server = start(&rows, "");
    (0..6).for_each(|_| drop(server.get("/")));
    assert_eq!(events(&server, 0), ["ejected: consecutive answers of 5xx"]);
    assert!(peers(&server).contains("\"downstart\":\"20"));
}

#[test]
fn of_several_checks_all_must_pass() {
    let statuses = [200, 200].map(|status| Arc::new(AtomicU16::new(status)));
    let now = statuses.clone();
    let checked = Backend::with(move |request| {
        let which = usize::from(request.target == "/two");
        Answer::status(now[which].load(Ordering::Relaxed))
    });
    let server = Server::start(Config::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:{}; server 127.0.0.1:1 down; }}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             location /a {{ proxy_pass http://u; health_check uri=/one interval=20ms; }}
             location /b {{ proxy_pass http://u; health_check uri=/two interval=20ms; }}
             location /api {{ api; }}
         }}",
        checked.port()
    )));
    let state =
        |wanted: &str| until(|| peers(&server).contains(&format!("\"state\":\"{wanted}\"")));
    assert!(state("up"));
    statuses[1].store(500, Ordering::Relaxed);
    assert!(state("unhealthy"));
    // The first one fails and passes meanwhile; the second one still fails.
    statuses[0].store(500, Ordering::Relaxed);
    assert!(until(|| events(&server, 0).len() >= 2));
    statuses[0].store(200, Ordering::Relaxed);
    let asked = checked.request_count();
    checked.wait_requests(asked + 8);
    assert!(!peers(&server).contains("\"state\":\"up\""), "{}", peers(&server));
    statuses[1].store(200, Ordering::Relaxed);
    assert!(state("up"));
}
