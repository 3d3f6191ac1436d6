//! `status_zone`: what comes to servers and locations, in the API and for Prometheus.

use testkit::{Answer, Backend, Client, Config, Gate, Server, until};

fn ask(server: &Server, method: &str, path: &str, status: u16) -> String {
    let mut client = Client::connect(server.port(1));
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    client.read_response().expect(status).text().to_string()
}

/// The number behind a name, the first of that name.
fn number(text: &str, name: &str) -> u64 {
    let rest =
        text.split(&format!("\"{name}\":")).nth(1).unwrap_or_else(|| panic!("{name} {text}"));
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or_else(|_| panic!("{name} in {text}"))
}

const API: &str = "server { listen 127.0.0.1:%%PORT_1%%;
    location /api { api write=on; allow 127.0.0.1; deny all; }
    location /look { api; }
    location /metrics { prometheus; } }";

#[test]
fn requests_are_counted_by_server_and_location() {
    let gate = Gate::new();
    let held = gate.clone();
    let backend = Backend::with(move |_| Answer::text("late").after_gate(&held));
    let config = Config::http(&format!(
        "{API}
         server {{
             listen 127.0.0.1:%%PORT_0%%;
             status_zone site;
             location / {{ return 200 hello; }}
             location /gone {{ status_zone gone; return 404;
                 location /gone/away {{ return 444; }} }}
             location /late {{ status_zone late; proxy_pass http://127.0.0.1:%%BACKEND%%; }}
         }}"
    ));
    let server = Server::start(config.with("BACKEND", backend.port()).main("worker_processes 2;"));
    for _ in 0..5 {
        server.get("/").expect(200);
    }
    (0..3).for_each(|_| drop(server.get("/gone").expect(404)));
    let mut closed = server.connect();
    closed.send("GET /gone/away HTTP/1.1\r\nHost: a\r\n\r\n");
    closed.expect_closed();
    let mut late = server.connect();
    late.send("GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
    gate.wait_arrived(1);
    let site = || ask(&server, "GET", "/api/9/http/server_zones/site", 200);
    assert!(until(|| number(&site(), "discarded") == 1), "{}", site());
    let text = site();
    for (name, expected) in
        [("processing", 1), ("requests", 10), ("2xx", 5), ("4xx", 3), ("5xx", 0), ("total", 8)]
    {
        assert_eq!(number(&text, name), expected, "{name} in {text}");
    }
    assert!(number(&text, "received") > 100 && number(&text, "sent") > 800, "{text}");
    gate.open();
    late.read_response().expect(200);
    assert!(until(|| number(&site(), "processing") == 0));
    let all = ask(&server, "GET", "/api/9/http/location_zones", 200);
    assert!(all.starts_with("{\"gone\":{") && all.contains("\"late\":{"), "{all}");
    let gone = ask(&server, "GET", "/api/9/http/location_zones/gone", 200);
    assert_eq!((number(&gone, "requests"), number(&gone, "4xx")), (4, 3), "{gone}");
    assert!(!gone.contains("processing"));
    let metrics = ask(&server, "GET", "/metrics", 200);
    for line in [
        "heng_http_server_zone_requests_total{zone=\"site\"} 10",
        "heng_http_server_zone_responses_total{zone=\"site\",class=\"4xx\"} 3",
        "heng_http_location_zone_requests_total{zone=\"late\"} 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "no {line} in\n{metrics}");
    }
    // They outlive a reload, and are forgotten when that is asked for.
    server.reload();
    assert_eq!(number(&site(), "requests"), 10);
    ask(&server, "DELETE", "/look/9/http/server_zones/site", 405);
    ask(&server, "DELETE", "/api/9/http/server_zones/site", 204);
    assert_eq!(number(&site(), "requests"), 0);
    assert!(ask(&server, "GET", "/api/9/http/server_zones/other", 404).contains("ZoneNotFound"));
    ask(&server, "GET", "/api/9/http/server_zones/site/more", 404);
}

#[test]
fn sessions_are_counted() {
    let backend = Backend::named("here");
    let refusing = Backend::refusing();
    let config = Config::new(&format!(
        "events {{}}
         stream {{
             server {{ listen 127.0.0.1:%%PORT_0%%; status_zone good;
                 proxy_pass 127.0.0.1:%%GOOD%%; }}
             server {{ listen 127.0.0.1:%%PORT_2%%; status_zone bad;
                 proxy_pass 127.0.0.1:%%BAD%%; }}
         }}
         http {{ {API} }}"
    ));
    let server = Server::start(config.with("GOOD", backend.port()).with("BAD", refusing.port()));
    (0..3).for_each(|_| drop(server.get("/").expect(200)));
    server.connect_to(2).expect_closed();
    let zone = |name: &str| ask(&server, "GET", &format!("/api/9/stream/server_zones/{name}"), 200);
    assert!(until(|| number(&zone("good"), "2xx") == 3), "{}", zone("good"));
    assert!(until(|| number(&zone("bad"), "5xx") == 1), "{}", zone("bad"));
    let good = zone("good");
    assert_eq!((number(&good, "connections"), number(&good, "processing")), (3, 0), "{good}");
    assert!(number(&good, "received") > 50 && number(&good, "sent") > 50, "{good}");
}
