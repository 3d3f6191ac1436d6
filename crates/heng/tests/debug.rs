//! What is logged at level debug, for all or for chosen clients.

use testkit::{Config, Server};

const LINES: [&str; 8] = [
    "accept: 127.0.0.1:",
    "http request line: \"GET /a?b HTTP/1.1\"",
    "http uri: \"/a\"",
    "http args: \"b\"",
    "http header: \"Host: ",
    "using configuration \"/\"",
    "http finalize request: 204, \"/a?b\"",
    "close http connection: ",
];

fn serving(events: &str, log: &str) -> Server {
    Server::start(Config::new(&format!(
        "events {{ {events} }} http {{ {log}
                 server {{ listen 127.0.0.1:%%PORT_0%%; location / {{ return 204; }} }} }}"
    )))
}

#[test]
fn the_level_debug_shows_what_happens() {
    let server = serving("", "error_log %%DIR%%/one.log debug; error_log %%DIR%%/two.log info;");
    server.get("/a?b").expect(204);
    for line in LINES {
        let found = server.wait_for_line("one.log", line);
        assert!(found.contains(" [debug] "), "{found}");
        assert!(!found.contains(", client: "), "{found}");
    }
    assert!(!server.read("two.log").contains("[debug]"));
}

#[test]
fn chosen_clients_are_logged_in_every_detail() {
    let logs = "error_log %%DIR%%/one.log alert; error_log %%DIR%%/two.log alert;";
    for clients in ["127.0.0.1", "127.0.0.0/8", "localhost"] {
        let server =
            serving(&format!("debug_connection 10.0.0.1; debug_connection {clients};"), logs);
        server.get("/a?b").expect(204);
        for line in LINES {
            server.wait_for_line("one.log", line);
        }
        server.wait_for_line("two.log", "close http connection: ");
        assert_eq!(server.read("one.log"), server.read("two.log"));
    }
    for others in ["", "debug_connection 10.0.0.0/8; debug_connection unix:;"] {
        let server = serving(others, logs);
        server.get("/a?b").expect(204);
        assert_eq!(server.read("one.log") + &server.read("two.log"), "");
    }
}

#[test]
fn unknown_names_are_refused() {
    let outcome =
        Server::check(Config::new("events { debug_connection no.such.invalid; } http {}"));
    let expected = "host not found in debug_connection \"no.such.invalid\"";
    assert!(outcome.stderr.contains(expected), "{}", outcome.stderr);
}
