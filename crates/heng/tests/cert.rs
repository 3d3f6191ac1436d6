//! `heng cert`: a pair that a server can use at once.

use std::process::Command;

use testkit::tls::TlsClient;
use testkit::{Config, Server};

#[test]
fn a_pair_is_made_once_and_works() {
    let place = Server::start(Config::server("return 200;"));
    let run = || {
        let directory = place.path(".");
        Command::new(testkit::binary())
            .args(["cert", "a.example", "127.0.0.1", "--dir"])
            .arg(directory)
            .output()
            .expect("the program")
    };
    let made = run();
    let lines = String::from_utf8(made.stdout).unwrap();
    assert!(made.status.success() && lines.contains("ssl_certificate_key "), "{lines}");
    let config = format!(
        "server {{ listen 127.0.0.1:%%PORT_0%% ssl; {lines} return 200 $ssl_server_name; }}"
    );
    let server = Server::start(Config::http(&config));
    let answer = TlsClient::new("a.example").get(server.port(0), "/").unwrap();
    assert!(answer.ends_with("a.example"), "{answer}");
    let again = run();
    assert!(!again.status.success());
    let words = String::from_utf8(again.stderr).unwrap();
    assert!(words.contains("cannot write"), "{words}");
}
