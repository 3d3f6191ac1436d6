//! Names that are known only while the program runs: `resolver`, `resolver_timeout`, and
//! `proxy_pass` with variables.

use std::time::{Duration, Instant};
use testkit::{Backend, Config, NameServer, Server, until};

/// A server that passes requests to the host that the query names, looked up with these lines.
fn server(names: &NameServer, backend: &Backend, directives: &str) -> Server {
    let config = Config::server(&format!(
        "resolver 127.0.0.1:%%DNS%% ipv6=off;
         location / {{ {directives} proxy_pass http://$arg_host:%%BACKEND%%/x; }}"
    ));
    Server::start(config.with("DNS", names.port()).with("BACKEND", backend.port()))
}

#[test]
fn a_name_is_looked_up_and_remembered() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "A", &["127.0.0.1"]);
    let server = server(&names, &backend, "");
    for _ in 0..3 {
        assert_eq!(server.get("/?host=a.test").expect(200).text(), "here");
    }
    assert_eq!(server.get("/?host=A.Test.").expect(200).text(), "here");
    assert_eq!(names.questions(), ["A a.test"]);
    assert_eq!(
        backend.requests()[0].header("Host"),
        Some(format!("a.test:{}", backend.port()).as_str())
    );
}

#[test]
fn without_a_resolver_names_stay_unknown() {
    let server = Server::start(Config::server(
        "location / { proxy_pass http://$arg_host:%%PORT_0%%/x; }
         location /x { return 200 self; }",
    ));
    server.get("/?host=a.test").expect(502);
    server.wait_for_log("no resolver defined to resolve a.test, client: 127.0.0.1");
    assert_eq!(server.get("/?host=127.0.0.1").expect(200).text(), "self");
}

#[test]
fn failures_are_told_in_the_words_of_nginx() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.fail("gone.test", 3);
    names.fail("broken.test", 2);
    let server = server(&names, &backend, "resolver_timeout 100ms;");
    server.get("/?host=gone.test").expect(502);
    server.wait_for_log("gone.test could not be resolved (3: Host not found), client:");
    server.get("/?host=empty.test").expect(502);
    server.wait_for_log("empty.test could not be resolved (3: Host not found)");
    server.get("/?host=broken.test").expect(502);
    server.wait_for_log("broken.test could not be resolved (2: Server failure)");
    server.get("/?host=a..test").expect(502);
    names.set_silent(true);
    let begin = Instant::now();
    server.get("/?host=slow.test").expect(502);
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    server.wait_for_log("slow.test could not be resolved (110: Operation timed out)");
    // Failures are not remembered.
    names.set_silent(false);
    names.set("gone.test", "A", &["127.0.0.1"]);
    assert_eq!(server.get("/?host=gone.test").expect(200).text(), "here");
}

#[test]
fn aliases_are_followed_and_long_answers_come_over_tcp() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "CNAME", &["b.test"]);
    names.set("b.test", "CNAME", &["c.test"]);
    names.set("c.test", "A", &["127.0.0.1"]);
    names.set("circle.test", "CNAME", &["circle.test"]);
    let server = server(&names, &backend, "");
    assert_eq!(server.get("/?host=a.test").expect(200).text(), "here");
    server.get("/?host=circle.test").expect(502);
    names.set_truncating(true);
    names.set("long.test", "A", &["127.0.0.1"]);
    assert_eq!(server.get("/?host=long.test").expect(200).text(), "here");
    assert!(names.questions().ends_with(&["A long.test".into(), "A long.test tcp".into()]));
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "A", &["127.0.0.2", "127.0.0.3", "127.0.0.1"]);
    let server = server(&names, &backend, "add_header X-Asked $upstream_addr;");
    let response = server.get("/?host=a.test").expect(200);
    let port = backend.port();
    let asked = format!("127.0.0.2:{port}, 127.0.0.3:{port}, 127.0.0.1:{port}");
    assert_eq!(response.header("X-Asked"), Some(asked.as_str()));
}

#[test]
fn valid_overrides_what_answers_say() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "A", &["127.0.0.1"]);
    names.set_ttl(0);
    let asked_for = |line: &str| {
        let before = names.questions().len();
        let config = Config::server(&format!(
            "resolver 127.0.0.1:%%DNS%% ipv6=off {line};
             location / {{ proxy_pass http://$arg_host:%%BACKEND%%/x; }}"
        ));
        let config = config.with("DNS", names.port()).with("BACKEND", backend.port());
        let server = Server::start(config);
        (0..3).for_each(|_| drop(server.get("/?host=a.test").expect(200)));
        names.questions().len() - before
    };
    assert_eq!(asked_for(""), 3);
    assert_eq!(asked_for("valid=1h"), 1);
}

#[test]
fn families_can_be_left_out() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set("a.test", "A", &["127.0.0.1"]);
    let asked_for = |line: &str, status: u16| {
        let before = names.questions().len();
        let config = Config::server(&format!(
            "location / {{
                 resolver 127.0.0.1:%%DNS%% {line};
                 proxy_pass http://$arg_host:%%BACKEND%%/x;
             }}"
        ));
        let config = config.with("DNS", names.port()).with("BACKEND", backend.port());
        Server::start(config).get("/?host=a.test").expect(status);
        names.questions().split_off(before).join(", ")
    };
    assert_eq!(asked_for("", 200), "A a.test, AAAA a.test");
    assert_eq!(asked_for("ipv6=off", 200), "A a.test");
    assert_eq!(asked_for("ipv4=off", 502), "AAAA a.test");
}

#[test]
fn a_client_that_leaves_is_not_waited_for() {
    let (names, backend) = (NameServer::new(), Backend::named("here"));
    names.set_silent(true);
    let server = server(&names, &backend, "");
    let mut client = server.connect();
    client.send("GET /?host=a.test HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(until(|| !names.questions().is_empty()), "the name is asked for");
    drop(client);
    server.wait_for_access(" 499 ");
}

#[test]
fn bad_lines_are_refused() {
    let check = |line: &str, expected: &str| {
        let outcome = Server::check(Config::server(line));
        assert!(outcome.stderr.contains(expected), "{line}: {}", outcome.stderr);
    };
    check("resolver;", "invalid number of arguments in \"resolver\" directive");
    check("resolver 127.0.0.1; resolver 127.0.0.1;", "\"resolver\" directive is duplicate");
    check("resolver 127.0.0.1 valid=x;", "invalid parameter: valid=x");
    check("resolver 127.0.0.1 ipv4=x;", "invalid parameter: ipv4=x");
    check("resolver 127.0.0.1 ipv4=off ipv6=off;", "cannot both be \"off\"");
    check(
        "resolver no-such-host.invalid; location / { proxy_pass http://$host; }",
        "host not found in resolver \"no-such-host.invalid\"",
    );
}
