//! Nanoseconds per parsed head, on one thread against a monotonic clock, the fastest of many
//! rounds: `cargo run --release -p wire --example head_bench`. With a name and a number it only
//! does that work so often, for those who count instructions.

use std::hint::black_box;
use std::time::Instant;

use wire::http1::{
    Field, Parsed, ParsedResponse, RequestParser, ResponseParser, request_framing, request_host,
    response_framing, target,
};

/// What a desktop browser sends for a page, 12 fields.
const BROWSER: &[u8] =
    b"GET /articles/2026/11/balancing-without-regret?ref=home&page=2 HTTP/1.1\r\n\
Host: www.example.com\r\n\
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
Accept-Language: en-US,en;q=0.5\r\n\
Accept-Encoding: gzip, deflate, br, zstd\r\n\
Referer: https://www.example.com/articles/\r\n\
Connection: keep-alive\r\n\
Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\
Upgrade-Insecure-Requests: 1\r\n\
Sec-Fetch-Dest: document\r\n\
Sec-Fetch-Mode: navigate\r\n\
Priority: u=0, i\r\n\r\n";

/// What an application server answers.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
Server: backend/1.0\r\n\
Date: Fri, 20 Nov 2026 12:00:00 GMT\r\n\
Content-Type: text/html; charset=utf-8\r\n\
Content-Length: 128\r\n\
Connection: keep-alive\r\n\
ETag: \"65a1b2c3-80\"\r\n\
Cache-Control: max-age=60\r\n\
Vary: Accept-Encoding\r\n\r\n";

const TARGET: &[u8] = b"/articles/2026/11/balancing-without-regret?ref=home&page=2";

/// What is kept between calls, as a worker keeps it.
struct Room {
    fields: Vec<Field>,
    path: Vec<u8>,
}

/// A name for the command line, what it is, how many bytes it takes, and the work itself.
type Work = (&'static str, &'static str, usize, fn(&mut Room) -> usize);

const WORKS: [Work; 4] = [
    ("request", "request head", BROWSER.len(), |room| {
        let mut parser = RequestParser::default();
        let parsed = parser.parse(black_box(BROWSER), &mut room.fields);
        assert!(matches!(parsed, Ok(Parsed::Complete { .. })));
        room.fields.len()
    }),
    ("request-all", "request head, framing, host and target", BROWSER.len(), |room| {
        let mut parser = RequestParser::default();
        let head = black_box(BROWSER);
        let parsed = parser.parse(head, &mut room.fields);
        let Ok(Parsed::Complete { line, .. }) = parsed else { return 0 };
        let framing = request_framing(&line, head, &room.fields);
        let host = request_host(&line, head, &room.fields);
        let target = target::parse(line.path.of(head), true, &mut room.path);
        assert!(framing.is_ok() && host.is_ok() && target.is_ok());
        room.fields.len()
    }),
    ("response", "response head and framing", ANSWER.len(), |room| {
        let mut parser = ResponseParser::default();
        let head = black_box(ANSWER);
        let parsed = parser.parse(head, &mut room.fields);
        let Ok(ParsedResponse::Complete { line, .. }) = parsed else { return 0 };
        assert!(response_framing(line.status, false, false, head, &room.fields).is_ok());
        room.fields.len()
    }),
    ("target", "target", TARGET.len(), |room| {
        let parsed = target::parse(black_box(TARGET), true, &mut room.path);
        parsed.map_or(0, |target| target.raw_path.end())
    }),
];

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut room = Room { fields: Vec::with_capacity(64), path: Vec::with_capacity(256) };
    match words.as_slice() {
        [] => {
            for (_, what, bytes, work) in WORKS {
                report(what, bytes, || work(&mut room));
            }
        }
        [name, count] => {
            let work = WORKS.iter().find(|work| work.0 == name).expect("a name of a work");
            for _ in 0..count.parse().expect("a number") {
                black_box(work.3(&mut room));
            }
        }
        _ => panic!("usage: head_bench [NAME COUNT]"),
    }
}

/// Runs `work` in rounds of 20,000 and prints the fastest round's time per call.
fn report(what: &str, bytes: usize, mut work: impl FnMut() -> usize) {
    const CALLS: u32 = 20_000;
    let mut best = f64::INFINITY;
    for _ in 0..60 {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(work());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CALLS));
    }
    println!("{what}: {best:.0} ns ({bytes} bytes, {:.2} GB/s)", bytes as f64 / best);
}
