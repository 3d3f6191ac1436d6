//! `health_check type=grpc`: servers of gRPC calls are asked by a call of their health service.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use testkit::frames::{END_STREAM, block, kind};
use testkit::tls::Identity;
use testkit::{Backend, Config, Conversation, Frame, Server};

const END_HEADERS: u8 = 4;

/// What a server says of its health: the message and `grpc-status`.
type Says = (&'static [u8], &'static str);

const SERVING: Says = (&[0, 0, 0, 0, 2, 8, 1], "0");
const NOT_SERVING: Says = (&[0, 0, 0, 0, 2, 8, 2], "0");
const UNIMPLEMENTED: Says = (&[], "12");
const BROKEN: Says = (&[0, 0, 0, 0, 9, 8], "0");

/// A server of calls: those with a body are checks and are answered with what is chosen of `says`,
/// others are told its name.
struct Callee {
    backend: Backend,
    choice: Arc<AtomicUsize>,
    /// The bodies of checks.
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Callee {
    fn new(name: &'static str, says: &'static [Says]) -> Callee {
        let (choice, asked) = (Arc::new(AtomicUsize::new(0)), Arc::default());
        let (shown, seen) = (choice.clone(), Arc::clone(&asked));
        let backend = Backend::script(move |talk| {
            answer_calls(talk, name, || says[shown.load(Ordering::SeqCst)], &seen);
        });
        Callee { backend, choice, asked }
    }

    fn say(&self, choice: usize) {
        self.choice.store(choice, Ordering::SeqCst);
    }
}

fn answer_calls(
    talk: &mut Conversation,
    name: &str,
    says: impl Fn() -> Says,
    seen: &Mutex<Vec<Vec<u8>>>,
) {
    if talk.read_exactly(24).is_err() {
        return;
    }
    talk.send(Frame::new(kind::SETTINGS, 0, 0, []).bytes());
    while let Some(frame) = read(talk) {
        let mut send = |kind, flags, payload: Vec<u8>| {
            talk.send(Frame::new(kind, flags, frame.stream, payload).bytes());
        };
        let ended = frame.flags & END_STREAM != 0;
        match frame.kind {
            kind::HEADERS if ended => {
                send(kind::HEADERS, END_HEADERS, block(&[(":status", "200")]));
                send(kind::DATA, END_STREAM, name.as_bytes().to_vec());
            }
            kind::DATA if ended => {
                seen.lock().unwrap().push(frame.payload.clone());
                let (message, status) = says();
                let fields = [(":status", "200"), ("content-type", "application/grpc")];
                if message.is_empty() {
                    let fields = [&fields[..], &[("grpc-status", status)]].concat();
                    send(kind::HEADERS, END_HEADERS | END_STREAM, block(&fields));
                    continue;
                }
                send(kind::HEADERS, END_HEADERS, block(&fields));
                send(kind::DATA, 0, message.to_vec());
                let trailers = block(&[("grpc-status", status)]);
                send(kind::HEADERS, END_HEADERS | END_STREAM, trailers);
            }
            _ => {}
        }
    }
}

/// The next frame, until the peer leaves.
fn read(talk: &mut Conversation) -> Option<Frame> {
    let head = talk.read_exactly(9).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = if length == 0 { Vec::new() } else { talk.read_exactly(length).ok()? };
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], flags: head[4], stream, payload })
}

/// A group of the two, checked as `line` says.
fn checked(line: &str, a: &Callee, b: &Callee) -> Server {
    let config = Config::http(&format!(
        "upstream u {{ zone u 64k; server 127.0.0.1:%%A%%; server 127.0.0.1:%%B%%; }}
         server {{ listen 127.0.0.1:%%PORT_0%%;
             location / {{ grpc_pass u; health_check interval=30ms type=grpc {line}; }} }}"
    ));
    let config = config.with("A", a.backend.port()).with("B", b.backend.port());
    Server::start(config.main("error_log %%DIR%%/error.log notice;"))
}

fn wait_for(server: &Server, expected: &str) {
    server.wait_until(&format!("answers of {expected:?} only"), || {
        let mut seen: Vec<String> = (0..6).map(|_| server.get("/").text()).collect();
        seen.sort();
        seen.dedup();
        seen.concat() == expected
    });
}

#[test]
fn who_does_not_serve_gets_no_calls() {
    let a = Callee::new("a", &[SERVING, NOT_SERVING, UNIMPLEMENTED, BROKEN]);
    let b = Callee::new("b", &[SERVING]);
    let server = checked("", &a, &b);
    wait_for(&server, "ab");
    for (choice, message) in [
        (1, "peer is unhealthy while checking gRPC health: health 2"),
        (2, "peer is unhealthy while checking gRPC status: status 12"),
        (3, "peer is unhealthy while calling gRPC health: invalid message"),
    ] {
        a.say(choice);
        wait_for(&server, "b");
        server.wait_for_log(message);
        a.say(0);
        wait_for(&server, "ab");
    }
    assert_eq!(a.asked.lock().unwrap()[0], [0, 0, 0, 0, 0]);
}

#[test]
fn services_are_named() {
    let (a, b) = (Callee::new("a", &[SERVING]), Callee::new("b", &[NOT_SERVING]));
    let server = checked("grpc_service=own.Service", &a, &b);
    wait_for(&server, "a");
    assert_eq!(a.asked.lock().unwrap()[0], b"\0\0\0\0\x0d\x0a\x0bown.Service");
}

#[test]
fn another_status_can_be_good() {
    let (a, b) = (Callee::new("a", &[UNIMPLEMENTED]), Callee::new("b", &[SERVING]));
    let server = checked("grpc_status=12 mandatory", &a, &b);
    wait_for(&server, "a");
}

/// The check goes where calls go: over TLS, to the path of the service, with the fields set.
#[test]
fn checks_are_calls_over_tls() {
    let own = Identity::own("b");
    let server = Server::start(
        Config::http(
            "upstream u { zone u 64k; server 127.0.0.1:%%PORT_1%%; }
             log_format told '$request_method $scheme $uri $host $http_x $content_type $http_te';
             server { listen 127.0.0.1:%%PORT_1%% ssl; http2 on; access_log %%DIR%%/told told;
                 ssl_certificate %%DIR%%/b.crt; ssl_certificate_key %%DIR%%/b.key;
                 location / { add_header grpc-status 12; return 200; } }
             server { listen 127.0.0.1:%%PORT_0%%; location / { grpc_pass grpcs://u;
                 grpc_set_header X set; grpc_set_header Host h.example;
                 health_check interval=30ms type=grpc grpc_status=12 mandatory; } }",
        )
        .main("error_log %%DIR%%/error.log notice;")
        .file("b.crt", &own.certificate)
        .file("b.key", &own.key),
    );
    let line = "POST https /grpc.health.v1.Health/Check h.example set application/grpc trailers";
    server.wait_for_line("told", line);
    server.wait_until("the check passed", || server.get("/").status == 200);
}

#[test]
fn faults_of_lines() {
    let check = |pass: &str, line: &str, message: &str| {
        let text = format!(
            "upstream u {{ zone u 64k; server 127.0.0.1:1; }}
             match m {{ status 200; }}
             server {{ listen 127.0.0.1:%%PORT_0%%;
                 location / {{ {pass}; health_check {line}; }} }}"
        );
        Server::check(Config::http(&text)).expect(1).says(message);
    };
    check("proxy_pass http://u", "type=grpc", "\"type=grpc\" requires \"grpc_pass\"");
    check("grpc_pass u", "", "\"health_check\" of \"grpc_pass\" requires \"type=grpc\"");
    check("grpc_pass u", "type=tcp grpc_status=1", "require \"type=grpc\"");
    check("grpc_pass u", "type=grpc uri=/a", "\"uri\" has no meaning for \"type=grpc\"");
    check("grpc_pass u", "type=grpc match=m", "\"match\" has no meaning for this \"type\"");
    check("grpc_pass u", "type=grpc grpc_status=x", "invalid parameter \"grpc_status=x\"");
    check("grpc_pass $host", "type=grpc", "requires a \"grpc_pass\" without variables");
    check("return 200", "type=grpc", "requires \"proxy_pass\" or \"grpc_pass\"");
}
