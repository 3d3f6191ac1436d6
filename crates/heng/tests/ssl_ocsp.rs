//! Whether certificates were revoked (OCSP): the server's own, shown with it, and clients'.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::ocsp::{Answers, Says, responder};
use testkit::tls::{Identity, TlsClient, parameters};
use testkit::{Answer, Backend, Config, NameServer, Server};

/// An authority, and a responder of its that says what `answers` makes of the authority.
fn world(answers: impl Fn(&Identity) -> Answers) -> (Identity, Backend) {
    let root = Identity::authority("root");
    let answers = answers(&root);
    let backend = Backend::with(move |request| answers.to_request(request));
    (root, backend)
}

/// A certificate of `root` whose responder is at `port`.
fn named(root: &Identity, name: &str, port: u16) -> Identity {
    let mut parameters = parameters(name, false);
    parameters.custom_extensions.push(responder(&format!("http://127.0.0.1:{port}/ocsp/")));
    Identity::made(parameters, Some(root))
}

/// Servers of http (port 0) and stream (port 1) that show `own` with `inside`.
fn stapling(inside: &str, own: &Identity, root: &Identity) -> Config {
    let files = "ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key;";
    let text = format!(
        "error_log %%DIR%%/error.log info; worker_processes 2; events {{ }}
         http {{ access_log off; server {{ listen 127.0.0.1:%%PORT_0%% ssl; {files} {inside}
             return 200 hello; }} }}
         stream {{ server {{ listen 127.0.0.1:%%PORT_1%% ssl; {files} {inside} return hello; }} }}"
    );
    Config::new(&text)
        .file("a.crt", format!("{}{}", own.certificate, root.certificate))
        .file("bare.crt", &own.certificate)
        .file("a.key", &own.key)
        .file("root.crt", &root.certificate)
}

/// What is shown to a client of port `n` with the server's certificate.
fn staple(server: &Server, n: usize) -> Vec<u8> {
    let client = TlsClient::new("a.example");
    client.connect(server.port(n)).expect("a handshake");
    client.staple()
}

fn is_shown(server: &Server, n: usize) -> bool {
    !staple(server, n).is_empty()
}

#[test]
fn answers_of_responders_are_shown_by_all_workers_and_outlive_a_reload() {
    let (root, backend) = world(Answers::by);
    let own = named(&root, "a.example", backend.port());
    let server = Server::start(stapling("ssl_stapling on;", &own, &root));
    for n in [0, 1] {
        server.wait_until("an answer", || is_shown(&server, n));
        let first = staple(&server, n);
        // Connections come to one worker and the other.
        assert!((0..12).all(|_| staple(&server, n) == first));
    }
    // One certificate is asked about once, however many servers and workers show it.
    assert_eq!(backend.request_count(), 1);
    let asked = backend.last_request();
    assert_eq!(asked.method, "GET");
    assert!(asked.target.starts_with("/ocsp/MF"), "{}", asked.target);
    server.reload();
    assert!((0..12).all(|_| is_shown(&server, 0) && is_shown(&server, 1)));
    assert_eq!(backend.request_count(), 1);
    let without = Server::start(stapling("", &own, &root));
    assert!(!is_shown(&without, 0));
    assert!(!is_shown(&without, 1));
}

#[test]
fn the_responder_may_be_named_and_looked_up() {
    let (root, backend) = world(Answers::by);
    let own = root.issue("a.example");
    let names = NameServer::new();
    names.set("ocsp.example", "A", &["127.0.0.1"]);
    let inside = format!(
        "ssl_stapling on; resolver 127.0.0.1:{} ipv6=off;
         ssl_stapling_responder http://ocsp.example:{}/;",
        names.port(),
        backend.port()
    );
    let server = Server::start(stapling(&inside, &own, &root));
    server.wait_until("an answer", || is_shown(&server, 0) && is_shown(&server, 1));
    let host = format!("ocsp.example:{}", backend.port());
    assert_eq!(backend.last_request().header("Host"), Some(host.as_str()));
    assert_eq!(server.error_log().matches("[error]").count(), 0);
    names.fail("ocsp.example", 3);
    let server = Server::start(stapling(&inside, &own, &root));
    server.wait_for_log(
        "ocsp.example could not be resolved (3: Host not found) while requesting certificate \
         status, responder: ocsp.example, certificate: \"",
    );
    assert!(!is_shown(&server, 0));
}

#[test]
fn the_issuer_may_be_among_the_trusted() {
    let (root, backend) = world(Answers::by);
    let own = named(&root, "a.example", backend.port());
    let bare = |inside: &str| {
        let config = stapling(inside, &own, &root).file("a.crt", &own.certificate);
        Server::start(config)
    };
    let server = bare("ssl_stapling on; ssl_trusted_certificate %%DIR%%/root.crt;");
    server.wait_until("an answer", || is_shown(&server, 0));
    let config = stapling("ssl_stapling on;", &own, &root).file("a.crt", &own.certificate);
    let warning =
        "[warn] \"ssl_stapling\" ignored, issuer certificate not found for certificate \"";
    Server::check(config).expect(0).says(warning);
    let own = root.issue("a.example");
    let nobody = "[warn] \"ssl_stapling\" ignored, no OCSP responder URL in the certificate \"";
    Server::check(stapling("ssl_stapling on;", &own, &root)).expect(0).says(nobody);
    let inside = "ssl_stapling on; ssl_stapling_responder https://x.example/;";
    let prefix = "[warn] \"ssl_stapling\" ignored, invalid URL prefix in OCSP responder \
                  \"https://x.example/\" in the certificate \"";
    Server::check(stapling(inside, &own, &root)).expect(0).says(prefix);
}

#[test]
fn what_does_not_say_that_all_is_well_is_not_shown() {
    let check = |answers: &dyn Fn(&Identity) -> Answers, expected: &str| {
        let (root, backend) = world(answers);
        let own = named(&root, "a.example", backend.port());
        let server = Server::start(stapling("ssl_stapling on;", &own, &root));
        let said = format!("{expected} while requesting certificate status, responder: 127.0.0.1");
        let log = server.wait_for_log(&said);
        assert!(log.contains("[error]"), "{log}");
        assert!(log.contains("/a.crt\""), "{log}");
        assert!(!is_shown(&server, 0), "{expected}");
    };
    check(
        &|root| Answers::by(root).saying(Says::Revoked),
        "certificate status \"revoked\" in the OCSP response",
    );
    check(
        &|root| Answers::by(root).saying(Says::Unknown),
        "certificate status \"unknown\" in the OCSP response",
    );
    check(
        &|root| Answers::by(root).saying(Says::Refuses(6)),
        "OCSP response not successful (6: unauthorized)",
    );
    check(
        &|root| Answers::by(root).until(-400),
        "OCSP_check_validity() failed (SSL: error:1380007D:OCSP routines::status expired)",
    );
    check(
        &|_| Answers::by(&Identity::own("stranger")),
        "OCSP_basic_verify() failed (SSL: error:13800076:OCSP routines::signer certificate not \
         found)",
    );
    // Another key under the issuer's name.
    check(
        &|_| Answers::by(&Identity::authority("root")),
        "OCSP_basic_verify() failed (SSL: error:13800075:OCSP routines::signature failure)",
    );
}

#[test]
fn broken_responders_are_asked_again_soon() {
    let root = Identity::authority("root");
    let answers = Answers::by(&root);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let backend = Backend::with(move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::status(500),
        _ => answers.to_request(request),
    });
    let own = named(&root, "a.example", backend.port());
    let server = Server::start(stapling("ssl_stapling on;", &own, &root));
    server.wait_for_log("OCSP responder sent status 500 while requesting certificate status");
    // A reload does not wait out the pause after a fault.
    server.reload();
    server.wait_until("an answer", || is_shown(&server, 0));
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn who_signed_may_be_checked() {
    // Whom the issuer did not name for it may not answer in its place.
    let root = Identity::authority("root");
    let check = |signer: &Identity, inside: &str, expected: Option<&str>| {
        let answers = Answers::showing(signer);
        let backend = Backend::with(move |request| answers.to_request(request));
        let own = named(&root, "a.example", backend.port());
        let server = Server::start(stapling(inside, &own, &root));
        match expected {
            None => server.wait_until("an answer", || is_shown(&server, 0)),
            Some(expected) => {
                server.wait_for_log(expected);
                assert!(!is_shown(&server, 0));
            }
        }
    };
    let other = root.issue("other");
    let mut delegate = parameters("delegate", false);
    delegate.extended_key_usages = vec![testkit::tls::rcgen::ExtendedKeyUsagePurpose::OcspSigning];
    let delegate = Identity::made(delegate, Some(&root));
    let verify = "ssl_stapling on; ssl_stapling_verify on; \
                  ssl_trusted_certificate %%DIR%%/root.crt;";
    check(&other, "ssl_stapling on;", None);
    check(&other, verify, Some("error:13800070:OCSP routines::root ca not trusted"));
    check(&delegate, verify, None);
    check(
        &delegate,
        "ssl_stapling on; ssl_stapling_verify on;",
        Some("certificate verify error:Verify error: self-signed certificate in certificate chain"),
    );
    check(&root, "ssl_stapling on; ssl_stapling_verify on;", None);
}

/// Servers that ask clients for a certificate with `inside`: http (port 0) tells what came of it,
/// stream (port 1) greets.
fn asking(inside: &str, root: &Identity) -> Config {
    let own = Identity::own("a.example");
    let files = "ssl_certificate %%DIR%%/a.crt; ssl_certificate_key %%DIR%%/a.key; \
                 ssl_verify_client on; ssl_client_certificate %%DIR%%/root.crt; \
                 ssl_verify_depth 2;";
    let text = format!(
        "error_log %%DIR%%/error.log info; worker_processes 2; events {{ }}
         http {{ access_log off; server {{ listen 127.0.0.1:%%PORT_0%% ssl; {files} {inside}
             error_page 495 =200 /bad; location = /bad {{ return 200 \"bad $ssl_client_verify\"; }}
             location / {{ return 200 $ssl_client_verify; }} }} }}
         stream {{ server {{ listen 127.0.0.1:%%PORT_1%% ssl; {files} {inside}
             return $ssl_client_verify; }} }}"
    );
    Config::new(&text)
        .file("a.crt", &own.certificate)
        .file("a.key", &own.key)
        .file("root.crt", &root.certificate)
}

/// What the http server says of a client that shows `identity`.
fn verdict(server: &Server, identity: &Identity) -> String {
    let answer = TlsClient::showing("a.example", identity).get(server.port(0), "/").unwrap();
    answer.rsplit("\r\n").next().unwrap_or_default().to_owned()
}

/// What the stream server says.
fn greeting(server: &Server, identity: &Identity) -> String {
    use std::io::Read;
    let client = TlsClient::showing("a.example", identity);
    let mut said = String::new();
    if let Ok(mut connection) = client.connect(server.port(1)) {
        // A client that is refused hears nothing.
        let _ = connection.read_to_string(&mut said);
    }
    said
}

#[test]
fn certificates_of_clients_are_asked_about() {
    for (says, expected) in [
        (Says::Good, "SUCCESS"),
        (Says::Revoked, "bad FAILED:certificate revoked"),
        (Says::Unknown, "bad FAILED:certificate status unknown"),
        (Says::Refuses(2), "bad FAILED:certificate status request failed"),
    ] {
        let (root, backend) = world(|root| Answers::by(root).saying(says));
        let client = named(&root, "client", backend.port());
        let server = Server::start(asking("ssl_ocsp on;", &root));
        assert_eq!(verdict(&server, &client), expected);
        assert_eq!(backend.request_count(), 1);
        let is_good = says == Says::Good;
        assert_eq!(greeting(&server, &client), if is_good { "SUCCESS" } else { "" });
        let words = expected.rsplit(':').next().unwrap_or_default();
        if !is_good {
            server.wait_for_log(&format!("client SSL certificate verify error: {words}"));
        }
        let server = Server::start(asking("", &root));
        assert_eq!(verdict(&server, &client), "SUCCESS");
        assert_eq!(greeting(&server, &client), "SUCCESS");
        assert_eq!(backend.request_count(), 2);
    }
}

#[test]
fn answers_about_clients_are_kept_for_all_workers() {
    let (root, backend) = world(Answers::by);
    let client = named(&root, "client", backend.port());
    let server = Server::start(asking("ssl_ocsp leaf; ssl_ocsp_cache shared:o:1m;", &root));
    for _ in 0..12 {
        assert_eq!(verdict(&server, &client), "SUCCESS");
        assert_eq!(greeting(&server, &client), "SUCCESS");
    }
    assert_eq!(backend.request_count(), 1);
    assert!(!verdict(&server, &Identity::own("stranger")).contains("SUCCESS"));
    assert_eq!(backend.request_count(), 1, "strangers are not asked about");
}

#[test]
fn the_responder_for_clients_may_be_named() {
    let (root, backend) = world(Answers::by);
    let client = root.issue("client");
    let server = Server::start(asking("ssl_ocsp on;", &root));
    assert_eq!(verdict(&server, &client), "bad FAILED:certificate status request failed");
    server.wait_for_log("no OCSP responder URL in certificate");
    let inside = format!("ssl_ocsp on; ssl_ocsp_responder http://127.0.0.1:{}/x;", backend.port());
    let server = Server::start(asking(&inside, &root));
    assert_eq!(verdict(&server, &client), "SUCCESS");
    assert_eq!(greeting(&server, &client), "SUCCESS");
    assert!(backend.last_request().target.starts_with("/x/MF"));
    // Resumed sessions are asked about again.
    let again = TlsClient::showing("a.example", &client);
    let count = backend.request_count();
    for n in 1..=2 {
        let mut connection = again.connect(server.port(0)).unwrap();
        assert!(connection.get("/").unwrap().ends_with("SUCCESS"));
        assert_eq!(connection.is_resumed(), n == 2);
        assert_eq!(backend.request_count(), count + n);
    }
    let wrong = "ssl_ocsp on; ssl_ocsp_responder https://x.example;";
    Server::check(asking(wrong, &root)).expect(1).says(
        "invalid URL prefix in OCSP responder \"https://x.example\" in \"ssl_ocsp_responder\"",
    );
}

#[test]
fn the_whole_chain_may_be_asked_about() {
    let (root, good) = world(Answers::by);
    let mut middle = parameters("middle", true);
    let bad = Answers::by(&root).saying(Says::Revoked);
    let bad = Backend::with(move |request| bad.to_request(request));
    middle.custom_extensions.push(responder(&format!("http://127.0.0.1:{}/", bad.port())));
    let middle = Identity::made(middle, Some(&root));
    let by_middle = Answers::by(&middle);
    let leaf_says = Backend::with(move |request| by_middle.to_request(request));
    let leaf = named(&middle, "client", leaf_says.port());
    let client = Identity {
        certificate: format!("{}{}", leaf.certificate, middle.certificate),
        key: leaf.key,
        issuer: leaf.issuer,
    };
    let server = Server::start(asking("ssl_ocsp leaf;", &root));
    assert_eq!(verdict(&server, &client), "SUCCESS");
    let server = Server::start(asking("ssl_ocsp on;", &root));
    assert_eq!(verdict(&server, &client), "bad FAILED:certificate revoked");
    assert_eq!((leaf_says.request_count(), bad.request_count()), (2, 1));
    assert_eq!(good.request_count(), 0);
}
