//! Requests as a hostile client sends them: every row is judged whole, byte by byte and in every
//! split in two, and all ways must agree to the byte.
//!
//! The rows cover the shapes by which two HTTP readers are known to disagree (RFC 9112 sections 6,
//! 7.1 and 11.2; RFC 9110 section 5.5), and what nginx accepts and refuses besides.

use proptest::prelude::*;
use wire::http1::{
    BadChunkKind, BadRequest, BadRequestKind, ChunkDecoder, ChunkEvent, Field, Framing, Known,
    Options, Parsed, RequestLine, RequestParser, Trailers, request_framing, request_host,
};

/// What a connection made of its first request.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// Served: the body's bytes, and what is left for the next request.
    Served { framing: Framing, body: Vec<u8>, rest: Vec<u8> },
    /// Refused for the head.
    Refused(BadRequest),
    /// Refused for the body, at this offset of the whole input.
    BadBody(BadChunkKind, usize),
    /// The input ended first.
    Unfinished,
}

/// Reads `input` as it arrives in pieces that end at `cuts`. Each arrival is a buffer of its own,
/// so nothing may be remembered by address.
fn serve(input: &[u8], cuts: &[usize], options: Options) -> (Verdict, Vec<Field>) {
    let mut parser = RequestParser::new(options);
    let mut fields = Vec::new();
    let mut ends = cuts.iter().copied().chain([input.len()]);
    let (end, len, line) = loop {
        let Some(end) = ends.next() else { return (Verdict::Unfinished, fields) };
        let arrived = input[..end].to_vec();
        match parser.parse(&arrived, &mut fields) {
            Ok(Parsed::Partial) => {
                assert!(parser.line_start() <= end);
            }
            Ok(Parsed::Complete { len, line }) => break (end, len, line),
            Err(fault) => return (Verdict::Refused(fault), fields),
        }
    };
    let head = &input[..len];
    let verdict = match judge(&line, head, &fields) {
        Ok(framing) => body(input, len, end, &mut ends, framing),
        Err(fault) => Verdict::Refused(fault),
    };
    (verdict, fields)
}

fn judge(line: &RequestLine, head: &[u8], fields: &[Field]) -> Result<Framing, BadRequest> {
    request_host(line, head, fields)?;
    request_framing(line, head, fields)
}

/// Reads the body that starts at `at`, of which bytes up to `end` have arrived.
fn body(
    input: &[u8],
    at: usize,
    end: usize,
    ends: &mut dyn Iterator<Item = usize>,
    framing: Framing,
) -> Verdict {
    let served = |body: &[u8], rest: usize| Verdict::Served {
        framing,
        body: body.to_vec(),
        rest: input[rest..].to_vec(),
    };
    match framing {
        Framing::None => served(b"", at),
        Framing::Length(length) => {
            let end = at.saturating_add(length as usize);
            if end > input.len() { Verdict::Unfinished } else { served(&input[at..end], end) }
        }
        Framing::Chunked => {
            let mut decoder = ChunkDecoder::for_request(Trailers::Skip);
            let (mut at, mut end, mut data) = (at, end, Vec::new());
            loop {
                let least = decoder.least_remaining();
                match decoder.decode(&input[at..end]) {
                    Ok(ChunkEvent::Data { skip, take }) => {
                        assert!(take > 0);
                        data.extend_from_slice(&input[at + skip..at + skip + take]);
                        at += skip + take;
                    }
                    Ok(ChunkEvent::NeedMore { consumed }) => {
                        assert_eq!(at + consumed, end);
                        at = end;
                        let Some(next) = ends.next() else { return Verdict::Unfinished };
                        end = next;
                    }
                    Ok(ChunkEvent::Done { consumed }) => {
                        assert!(least <= consumed as u64, "{least} > {consumed}");
                        return served(&data, at + consumed);
                    }
                    Err(fault) => return Verdict::BadBody(fault.kind, at + fault.at),
                }
            }
        }
    }
}

/// The verdict on the whole input, after every other way of cutting it gave the same.
fn verdict_with(input: &[u8], options: Options) -> (Verdict, Vec<Field>) {
    let whole = serve(input, &[], options);
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(serve(input, &every, options), whole, "byte by byte: {}", shown(input));
    for cut in 0..input.len() {
        assert_eq!(serve(input, &[cut], options), whole, "cut at {cut}: {}", shown(input));
    }
    whole
}

fn verdict(input: &[u8]) -> Verdict {
    verdict_with(input, Options::default()).0
}

fn shown(input: &[u8]) -> String {
    input.escape_ascii().to_string()
}

#[track_caller]
fn refused(input: &str, kind: BadRequestKind, status: u16) {
    match verdict(input.as_bytes()) {
        Verdict::Refused(fault) => {
            assert_eq!((fault.kind, fault.status()), (kind, status), "{}", shown(input.as_bytes()));
        }
        other => panic!("{other:?} for {}", shown(input.as_bytes())),
    }
}

#[track_caller]
fn served(input: &str, framing: Framing, body: &str, rest: &str) {
    let expected = Verdict::Served { framing, body: body.into(), rest: rest.into() };
    assert_eq!(verdict(input.as_bytes()), expected, "{}", shown(input.as_bytes()));
}

/// A POST with these field lines.
fn post(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n")
}

/// A GET with this line, a field line among good ones.
fn line(text: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{text}\r\nAccept: */*\r\n\r\n")
}

#[test]
fn length_and_coding_together() {
    use BadRequestKind::*;
    for lines in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 0\r\nTransfer-Encoding: chunked",
        "content-length: 6\r\ntransfer-encoding: CHUNKED",
        "Content-Length: 6\r\nTransfer-Encoding: identity",
        "Content-Length: 6\r\nTransfer-Encoding:",
    ] {
        refused(&post(lines), LengthAndTransferEncoding, 400);
    }
}

#[test]
fn content_lengths() {
    use BadRequestKind::*;
    served(&(post("Content-Length: 3") + "abcGET"), Framing::Length(3), "abc", "GET");
    served(&(post("Content-Length:3") + "abc"), Framing::Length(3), "abc", "");
    served(&(post("Content-Length: \t 3 \t") + "abc"), Framing::Length(3), "abc", "");
    served(&(post("Content-Length: 0") + "abc"), Framing::Length(0), "", "abc");
    served(&(post("Content-Length: 0003") + "abc"), Framing::Length(3), "abc", "");
    served(&(post("X: 3") + "abc"), Framing::None, "", "abc");
    for value in [
        "",
        " ",
        "+3",
        "-3",
        "-0",
        "0x3",
        "3,3",
        "3, 3",
        "3,",
        ",3",
        "3 3",
        "3.0",
        "3e0",
        "1_000",
        "three",
        "\"3\"",
        "3;",
        "9223372036854775808",
        "18446744073709551619",
        "\u{b}3",
        "3\u{c}",
        "3\u{1}",
        "\u{ff13}",
    ] {
        refused(&post(&format!("Content-Length: {value}")), InvalidContentLength, 400);
    }
    for lines in [
        "Content-Length: 3\r\nContent-Length: 3",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3\r\ncontent-length: 0",
        "Content-Length: 3\r\nX: y\r\nCONTENT-LENGTH:",
    ] {
        refused(&post(lines), DuplicateField, 400);
    }
}

#[test]
fn transfer_codings() {
    use BadRequestKind::*;
    let chunks = "3\r\nabc\r\n0\r\n\r\nGET";
    for value in ["chunked", "Chunked", "CHUNKED", " \tchunked\t "] {
        let input = post(&format!("Transfer-Encoding:{value}")) + chunks;
        served(&input, Framing::Chunked, "abc", "GET");
    }
    for value in ["identity", "gzip", "x", "gzip, chunked", "gzip ,\tchunked", "deflate, gzip"] {
        refused(&post(&format!("Transfer-Encoding: {value}")), UnknownTransferEncoding, 501);
    }
    for value in [
        "",
        "chunked, identity",
        "chunked, chunked",
        "identity, chunked, identity",
        "xchunked",
        "chunkedx",
        "x chunked",
        "chunked;",
        "chunked;a=b",
        "\"chunked\"",
        "'chunked'",
        ",chunked",
        "chunked,",
        "gzip,,chunked",
        "\u{b}chunked",
        "chunked\u{b}",
        "chunked\u{c}",
        "chunked\u{1}",
        "chunked\u{a0}",
        "chunked\u{7f}",
        "[chunked]",
        "chunked, gzip",
    ] {
        refused(&post(&format!("Transfer-Encoding: {value}")), AmbiguousTransferEncoding, 400);
    }
    for lines in [
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: identity\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-encoding:",
    ] {
        refused(&post(lines), DuplicateField, 400);
    }
    refused(
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        TransferEncodingIn10,
        400,
    );
    // Names that only a careless reader takes for the real one are dropped, not obeyed.
    for name in ["Transfer_Encoding", "Transfer\u{2010}Encoding", "Transfer-Encoding\"", "X@Y"] {
        served(&post(&format!("{name}: chunked")), Framing::None, "", "");
    }
    for name in ["Transfer-Encoding ", "Transfer-Encoding\t"] {
        refused(&post(&format!("{name}: chunked")), SpaceBeforeColon, 400);
    }
    for name in ["Transfer-\0Encoding", "Transfer-Encoding\u{b}", "\u{1}Transfer-Encoding"] {
        refused(&post(&format!("{name}: chunked")), InvalidName, 400);
    }
    refused(&post("Transfer-Encoding\r\n: chunked"), MissingColon, 400);
    refused(&post("Transfer-Encoding:\r\n chunked"), FoldedLine, 400);
    refused(&post("X: y\r\n\tTransfer-Encoding: chunked"), FoldedLine, 400);
    refused(&post("X: y\rTransfer-Encoding: chunked"), BareCr, 400);
    refused(&post("X: y\r\rTransfer-Encoding: chunked"), BareCr, 400);
    refused(&post("X: y\0\r\nTransfer-Encoding: chunked"), NulInValue, 400);
}

#[test]
fn field_lines() {
    use BadRequestKind::*;
    refused(&line(": x"), EmptyName, 400);
    refused(&line(" X: x"), FoldedLine, 400);
    refused(&line("\tX: x"), FoldedLine, 400);
    refused(&line("X : x"), SpaceBeforeColon, 400);
    refused(&line("X Y: x"), SpaceBeforeColon, 400);
    refused(&line("X\u{2}: x"), InvalidName, 400);
    refused(&line("X\u{7f}: x"), InvalidName, 400);
    refused(&line("X\0: x"), InvalidName, 400);
    refused(&line("X"), MissingColon, 400);
    refused(&line("X: a\0b"), NulInValue, 400);
    refused(&line("X:\0"), NulInValue, 400);
    refused(&line("X: a\rb"), BareCr, 400);
    refused(&line("X:\ra"), BareCr, 400);
    refused("GET / HTTP/1.1\r\nHost: a\r\n\rX: y\r\n\r\n", BareCr, 400);
    for good in ["X:", "X: ", "X:a", "X: a\tb", "X: a\u{1}b\u{7f}", "x-y-9: z", "-: a", "X: \u{fc}"]
    {
        served(&line(good), Framing::None, "", "");
    }
    // A line may end in LF alone, as nginx has it.
    served("GET / HTTP/1.1\nHost: a\nX: y\n\nGET", Framing::None, "", "GET");
    served("GET / HTTP/1.1\r\nHost: a\nX: y \r\n\nGET", Framing::None, "", "GET");
    served("POST / HTTP/1.1\nHost: a\nContent-Length: 1\n\r\nxy", Framing::Length(1), "x", "y");
}

#[test]
fn hosts() {
    use BadRequestKind::*;
    let get = |target: &str, lines: &str| format!("GET {target} HTTP/1.1\r\n{lines}\r\n");
    refused(&get("/", ""), MissingHost, 400);
    refused(&get("http://a/", ""), MissingHost, 400);
    refused(&get("/", "Host: a\r\nHost: a\r\n"), DuplicateHost, 400);
    refused(&get("/", "Host: a\r\nhost: b\r\n"), DuplicateHost, 400);
    for host in ["", "a b", "a/b", "a,b c", "a@b", "a:b", "a..b", "[::1", "a:99999", "a\u{b}"] {
        refused(&get("/", &format!("Host: {host}\r\n")), InvalidHost, 400);
        // The target's authority rules, but an invalid Host is refused all the same.
        refused(&get("http://a/", &format!("Host: {host}\r\n")), InvalidHost, 400);
    }
    for target in ["http:///", "http://.", "http://a..b/", "http://:80/", "http://a:70000/"] {
        let target = target.replace("http://.", "http://./");
        refused(&get(&target, "Host: a\r\n"), InvalidHostInRequestLine, 400);
    }
    served("GET / HTTP/1.0\r\n\r\n", Framing::None, "", "");
    served(&get("http://a/", "Host: b\r\n"), Framing::None, "", "");

    let host_of = |input: &str| {
        let mut fields = Vec::new();
        let parsed = RequestParser::default().parse(input.as_bytes(), &mut fields);
        let Ok(Parsed::Complete { line, len }) = parsed else { panic!("{parsed:?}") };
        let host = request_host(&line, &input.as_bytes()[..len], &fields).unwrap();
        host.map(|found| (found.host.of(input.as_bytes()).escape_ascii().to_string(), found.port))
    };
    let found = |host: &str, port| Some((host.to_owned(), port));
    assert_eq!(host_of(&get("/", "Host: a.b:81\r\n")), found("a.b", Some(81)));
    assert_eq!(host_of(&get("http://c/", "Host: a.b:81\r\n")), found("c", None));
    assert_eq!(host_of(&get("http://[::1]:8/", "Host: a\r\n")), found("[::1]", Some(8)));
    assert_eq!(host_of("CONNECT d.:443 HTTP/1.1\r\nHost: a\r\n\r\n"), found("d", Some(443)));
    assert_eq!(host_of("GET / HTTP/1.0\r\n\r\n"), None);
}

#[test]
fn request_lines() {
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for good in [
        "GET / HTTP/1.1",
        "GET  /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        "GET / HTTP/1.0",
        "GET / HTTP/1.9",
        "GET / HTTP/1.001",
        "M-SEARCH_X / HTTP/1.1",
        "GET /\u{fc}\"<>\\^`{|} HTTP/1.1",
        "GET /?a=b#c HTTP/1.1",
        "GET http://a HTTP/1.1",
        "GET HTTP://a:/x HTTP/1.1",
        "GET a+b-c.d://a?x HTTP/1.1",
        "CONNECT a:443 HTTP/1.1",
        "CONNECT  [::1]:443 HTTP/1.1",
        "\r\n\r\nGET / HTTP/1.1",
        "\n\nGET / HTTP/1.1",
    ] {
        served(&with(good), Framing::None, "", "");
    }
    served("GET /\r\nrest", Framing::None, "", "rest");
    served("GET / \nrest", Framing::None, "", "rest");
}

#[test]
fn request_lines_that_are_none() {
    use BadRequestKind::*;
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    for bad in [
        "get / HTTP/1.1",
        "GeT / HTTP/1.1",
        "G\0T / HTTP/1.1",
        " GET / HTTP/1.1",
        "\tGET / HTTP/1.1",
        "GET\t/ HTTP/1.1",
        "GET",
        "\rGET / HTTP/1.1",
        "\r\rGET / HTTP/1.1",
        "\0",
        "\u{16}\u{3}\u{1}",
        "{\"a\":1}",
        "GET:/ HTTP/1.1",
        "G1T / HTTP/1.1",
    ] {
        refused(&with(bad), InvalidMethod, 400);
    }
    for bad in [
        "GET * HTTP/1.1",
        "OPTIONS * HTTP/1.1",
        "GET HTTP/1.1",
        "GET \t/ HTTP/1.1",
        "GET ?a HTTP/1.1",
        "GET /a b HTTP/1.1",
        "GET /a\tb HTTP/1.1",
        "GET /\0 HTTP/1.1",
        "GET /\u{7f} HTTP/1.1",
        "GET /\u{b} HTTP/1.1",
        "GET / http/1.1",
        "GET / HTTP 1.1",
        "GET / HTTP/1,1",
        "GET / HTTP/1.1x",
        "GET / HTTP/1.",
        "GET / HTTP/1",
        "GET / HTTP/.1",
        "GET / HTTP/0.9",
        "GET / HTTP/1.1111",
        "GET / HTTP/1.1\r",
        "GET / HTTP/1.1 x",
        "GET / HTTP/1.1\t",
        "GET / XTTP/1.1",
        "GET /\rX HTTP/1.1",
        "GET http:/a HTTP/1.1",
        "GET http:a HTTP/1.1",
        "GET http//a HTTP/1.1",
        "GET http://a_b/ HTTP/1.1",
        "GET http://u@a/ HTTP/1.1",
        "GET http://a:x/ HTTP/1.1",
        "GET http://a#x HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "GET http://[::1]x/ HTTP/1.1",
        "GET http://a\\b/ HTTP/1.1",
        "CONNECT / HTTP/1.1",
        "CONNECT a HTTP/1.1",
        "CONNECT a: HTTP/1.1",
        "CONNECT a:443",
        "CONNECT a:1/ HTTP/1.1",
        "CONNECT http://a/ HTTP/1.1",
        "GET / HTTP/1.1 \rX",
    ] {
        refused(&with(bad), InvalidRequestLine, 400);
    }
    for bad in ["GET / HTTP/2.0", "GET / HTTP/9", "GET / HTTP/11.1", "GET / HTTP/10"] {
        refused(&with(bad), UnsupportedVersion, 505);
    }
    for bad in ["POST /", "HEAD / ", "CONNECT a:443 "] {
        refused(&with(bad), InvalidMethodIn09, 400);
    }
    assert_eq!(verdict(b""), Verdict::Unfinished);
    assert_eq!(verdict(b"GET / HTTP/1.1\r\nHost: a\r\n"), Verdict::Unfinished);
    assert_eq!(verdict(b"GET / HTTP/1.1\r\nHost: a\r\n\r"), Verdict::Unfinished);
}

#[test]
fn connect_has_no_body() {
    let connect = |lines: &str| format!("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
    served(&connect("Content-Length: 0\r\n"), Framing::Length(0), "", "");
    for lines in ["Content-Length: 1\r\n", "Transfer-Encoding: chunked\r\n"] {
        refused(&connect(lines), BadRequestKind::ConnectWithBody, 400);
    }
}

#[track_caller]
fn bad_chunks(chunks: &str, kind: BadChunkKind, at: usize) {
    let head = post("Transfer-Encoding: chunked");
    let found = verdict((head.clone() + chunks).as_bytes());
    assert_eq!(found, Verdict::BadBody(kind, head.len() + at), "{chunks:?}");
}

#[test]
fn chunked_bodies() {
    use BadChunkKind::*;
    let head = post("Transfer-Encoding: chunked");
    let good = |chunks: &str, body: &str, rest: &str| {
        served(&format!("{head}{chunks}"), Framing::Chunked, body, rest);
    };
    good("0\r\n\r\n", "", "");
    good("0\r\n\r\nGET / HTTP", "", "GET / HTTP");
    good("3\r\nabc\r\n0000\r\n\r\n", "abc", "");
    good("A\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n0", "0123456789x", "0");
    good("00000000000000000003\r\nabc\r\n0\r\n\r\n", "abc", "");
    good("3;a\r\nabc\r\n0;b=\"c\"\r\n\r\n", "abc", "");
    good("3 \t;a=b;c\r\nabc\r\n0\r\n\r\n", "abc", "");
    good("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", "");
    good("0\r\nX-Sum: 1\r\nY:\r\n\r\nGET", "", "GET");
    for (chunks, kind, at) in [
        ("\r\n", InvalidSize, 0),
        ("-1\r\n", InvalidSize, 0),
        ("+1\r\n", InvalidSize, 0),
        (" 1\r\n", InvalidSize, 0),
        ("\t1\r\n", InvalidSize, 0),
        ("0x1\r\n", InvalidSize, 1),
        ("x\r\n", InvalidSize, 0),
        ("1g\r\n", InvalidSize, 1),
        ("1,1\r\n", InvalidSize, 1),
        ("1_0\r\n", InvalidSize, 1),
        (";a\r\n", InvalidSize, 0),
        ("1\nx\r\n", InvalidSize, 1),
        ("0\n\n", InvalidSize, 1),
        ("1 \r\nx\r\n", InvalidSize, 2),
        ("1 x\r\n", InvalidSize, 2),
        ("1\0\r\n", InvalidSize, 1),
        ("1\u{b}\r\n", InvalidSize, 1),
        ("1\rx", MissingCrLf, 2),
        ("1\r\r\n", MissingCrLf, 2),
        ("1;a\nx", InvalidExtension, 3),
        ("1;a\rb\r\n", MissingCrLf, 4),
        ("1;\0\r\n", InvalidExtension, 2),
        ("1;\u{1}\r\n", InvalidExtension, 2),
        ("0;\n\r\n", InvalidExtension, 2),
        ("1\r\nxy\r\n", MissingCrLf, 4),
        ("1\r\nx\n0\r\n", MissingCrLf, 4),
        ("1\r\nx0\r\n", MissingCrLf, 4),
        ("1\r\nx\r0\r\n", MissingCrLf, 5),
        ("8000000000000000\r\n", SizeTooLarge, 15),
        ("7fffffffffffffff\r\n", SizeTooLarge, 15),
        ("10000000000000001\r\n", SizeTooLarge, 16),
        ("fffffffffffffffffffff\r\n", SizeTooLarge, 15),
        ("0\r\n\n", InvalidTrailer, 3),
        ("0\r\n\rx", MissingCrLf, 4),
        ("0\r\nX: y\n\r\n", InvalidTrailer, 7),
        ("0\r\nX: y\rz\r\n", MissingCrLf, 8),
        ("0\r\nX: \0\r\n", InvalidTrailer, 6),
        ("0\r\n: y\r\n", InvalidTrailer, 3),
        ("0\r\n X: y\r\n", InvalidTrailer, 3),
        ("0\r\nX : y\r\n", InvalidTrailer, 4),
        ("0\r\nX\r\n", InvalidTrailer, 4),
        ("0\r\nGET / HTTP/1.1\r\n", InvalidTrailer, 6),
    ] {
        bad_chunks(chunks, kind, at);
    }
}

#[test]
fn invalid_names_are_dropped_or_delivered() {
    let names = |input: &str, options| {
        let (verdict, fields) = verdict_with(input.as_bytes(), options);
        assert!(matches!(verdict, Verdict::Served { .. }), "{verdict:?}");
        let name = |field: &Field| field.name.of(input.as_bytes()).escape_ascii().to_string();
        fields.iter().map(name).collect::<Vec<_>>()
    };
    let input = "GET / HTTP/1.0\r\nx_foo: 1\r\n_foo: 1\r\nx.foo: 1\r\n.foo: 1\r\nX: 1\r\n\r\n";
    let default = Options::default();
    assert_eq!(names(input, default), ["X"]);
    let underscores = Options { underscores_in_headers: true, ..default };
    assert_eq!(names(input, underscores), ["x_foo", "_foo", "X"]);
    let all = Options { ignore_invalid_headers: false, ..default };
    assert_eq!(names(input, all), ["x_foo", "_foo", "x.foo", ".foo", "X"]);

    let mut parser = RequestParser::default();
    assert!(parser.parse(input.as_bytes(), &mut Vec::new()).is_ok());
    let (dropped, first) = parser.dropped();
    assert_eq!((dropped, first.of(input.as_bytes())), (4, b"x_foo: 1".as_slice()));
}

#[test]
fn too_many_fields() {
    let input = |count: usize| {
        format!("GET / HTTP/1.0\nHost: a\n{}\n", "X-Blah: 1\nx_dropped: 2\n".repeat(count - 1))
    };
    let options = Options { max_headers: 5, ..Options::default() };
    let (verdict, fields) = verdict_with(input(5).as_bytes(), options);
    assert!(matches!(verdict, Verdict::Served { .. }));
    assert_eq!(fields.len(), 5);
    match verdict_with(input(6).as_bytes(), options).0 {
        Verdict::Refused(fault) => assert_eq!(fault.status(), 494),
        other => panic!("{other:?}"),
    }
}

#[test]
fn unique_fields() {
    for name in [
        "If-Modified-Since",
        "If-Unmodified-Since",
        "If-Match",
        "If-None-Match",
        "Content-Range",
        "If-Range",
        "Expect",
        "Authorization",
        "Proxy-Authorization",
    ] {
        served(&line(&format!("{name}: 1")), Framing::None, "", "");
        let twice = line(&format!("{name}: 1\r\nX: y\r\n{}: 1", name.to_ascii_lowercase()));
        refused(&twice, BadRequestKind::DuplicateField, 400);
    }
    for name in ["Cookie", "X-Forwarded-For", "Accept", "Connection", "Via", "X-Other"] {
        served(&line(&format!("{name}: 1\r\n{name}: 2")), Framing::None, "", "");
    }
}

#[test]
fn what_a_line_holds() {
    let check = |input: &str, parts: [&str; 6]| {
        let mut fields = Vec::new();
        let parsed = RequestParser::default().parse(input.as_bytes(), &mut fields);
        let Ok(Parsed::Complete { line, .. }) = parsed else { panic!("{parsed:?}: {input:?}") };
        let slices = [line.text, line.method_text, line.target, line.authority, line.path];
        let found = slices.map(|slice| slice.of(input.as_bytes()).escape_ascii().to_string());
        assert_eq!(found.each_ref().map(String::as_str), parts[..5], "{input:?}");
        assert_eq!(line.version_text.of(input.as_bytes()), parts[5].as_bytes());
    };
    check(
        "\r\nGET /a?b HTTP/1.1\r\n\r\n",
        ["GET /a?b HTTP/1.1", "GET", "/a?b", "", "/a?b", "HTTP/1.1"],
    );
    check(
        "PUT  http://h:8/a HTTP/1.0 \n\n",
        ["PUT  http://h:8/a HTTP/1.0 ", "PUT", "http://h:8/a", "h:8", "/a", "HTTP/1.0"],
    );
    check(
        "GET http://h HTTP/1.1\r\n\r\n",
        ["GET http://h HTTP/1.1", "GET", "http://h", "h", "/", "HTTP/1.1"],
    );
    check(
        "GET http://h?q HTTP/1.1\r\n\r\n",
        ["GET http://h?q HTTP/1.1", "GET", "http://h?q", "h", "?q", "HTTP/1.1"],
    );
    check(
        "CONNECT h:1 HTTP/1.1\r\n\r\n",
        ["CONNECT h:1 HTTP/1.1", "CONNECT", "h:1", "h:1", "/", "HTTP/1.1"],
    );
    check("GET /\r\n", ["GET /", "GET", "/", "", "/", ""]);
}

#[test]
fn progress_tells_which_limit_applies() {
    let mut parser = RequestParser::default();
    let mut fields = Vec::new();
    let input = b"\r\nGET /long HTTP/1.1\r\nHost: a\r\nCookie: long";
    let mut at = |end: usize| {
        assert_eq!(parser.parse(&input[..end], &mut fields), Ok(Parsed::Partial));
        (parser.started(), parser.line().is_some(), parser.line_start())
    };
    assert_eq!(at(2), (false, false, 2));
    assert_eq!(at(8), (true, false, 2));
    assert_eq!(at(22), (true, true, 22));
    assert_eq!(at(25), (true, true, 22));
    assert_eq!(at(31), (true, true, 31));
    assert_eq!(at(40), (true, true, 31));
}

#[test]
fn messages_are_those_of_nginx() {
    let check = |input: &str, expected: &str, action: &str| {
        let (verdict, fields) = verdict_with(input.as_bytes(), Options::default());
        let Verdict::Refused(fault) = verdict else { panic!("{verdict:?}") };
        let mut text = Vec::new();
        fault.describe(input.as_bytes(), &fields, &mut text);
        assert_eq!(
            (
                text.escape_ascii().to_string().replace("\\\"", "\"").replace("\\\\", "\\"),
                fault.action()
            ),
            (expected.to_owned(), action)
        );
    };
    let (line_action, head_action) =
        ("reading client request line", "reading client request headers");
    check("get / HTTP/1.1\r\n", "client sent invalid method", line_action);
    check("GET *", "client sent invalid request", line_action);
    check("GET / HTTP/2.0\r\n", "client sent invalid version", line_action);
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nfoo : x\r\n\r\n",
        "client sent invalid header line: \"foo\\x20...\"",
        head_action,
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nhost: b\r\n\r\n",
        "client sent duplicate host header: \"host: b\", previous value: \"Host: a\"",
        head_action,
    );
    check(
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: b\r\nX: y\r\nexpect: c\r\n\r\n",
        "client sent duplicate header line: \"expect: c\", previous value: \"Expect: b\"",
        head_action,
    );
    check(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: foo\r\n\r\n",
        "client sent unknown \"Transfer-Encoding\": \"foo\"",
        head_action,
    );
    check(
        "GET / HTTP/1.1\r\n\r\n",
        "client sent HTTP/1.1 request without \"Host\" header",
        head_action,
    );
}

#[test]
fn a_slow_drip_is_linear() {
    // A megabyte byte by byte: quadratic work would take hours, not the blink that this takes.
    let mut input = b"GET /".to_vec();
    input.resize(400_000, b'a');
    input.extend_from_slice(b" HTTP/1.1\r\nHost: a\r\nX-Long: ");
    input.resize(800_000, b'b');
    input.extend_from_slice(b"\r\n");
    input.resize(1_000_000, b'c');
    let mut parser = RequestParser::default();
    let mut fields = Vec::new();
    for end in 0..input.len() {
        assert_eq!(parser.parse(&input[..end], &mut fields), Ok(Parsed::Partial));
    }
    assert_eq!(fields.len(), 2);
    assert_eq!(fields[0].known, Known::Host);
}

/// Text that is nearly a request: pieces that matter to the parser, in any order, with noise.
fn nearly_a_request() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"GET ",
        b"POST ",
        b"CONNECT ",
        b"/",
        b"/a?b",
        b"http://",
        b"h",
        b":80",
        b" ",
        b"HTTP/1.1",
        b"HTTP/1.0",
        b"HTTP/",
        b"1",
        b".",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"Host: a\r\n",
        b"Content-Length: ",
        b"5",
        b"Transfer-Encoding: chunked\r\n",
        b": ",
        b":",
        b"X",
        b"_",
        b"\0",
        b"\t",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b";",
        b"[::1]",
        b"a-field-name-beyond-a-word: v\r\n",
        b"\x80\xff",
    ];
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES).prop_map(<[u8]>::to_vec),
        1 => prop::collection::vec(any::<u8>(), 1..4),
    ];
    let pieces = prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat());
    // Half of them begin as a good request does, so that the deeper states are reached.
    (any::<bool>(), pieces).prop_map(|(good, rest)| {
        let mut input = Vec::new();
        if good {
            input.extend_from_slice(b"POST /a HTTP/1.1\r\nHost: a\r\n");
        }
        input.extend_from_slice(&rest);
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_input_panics_and_no_cut_matters(input in nearly_a_request(), lax in any::<bool>()) {
        let options = Options {
            ignore_invalid_headers: !lax,
            underscores_in_headers: lax,
            max_headers: 3,
        };
        let (verdict, fields) = verdict_with(&input, options);
        if let Verdict::Refused(fault) = &verdict {
            let mut text = Vec::new();
            fault.describe(&input, &fields, &mut text);
            prop_assert!(fault.at <= input.len() && fault.line <= fault.at);
        }
        for field in &fields {
            prop_assert!(field.value.end() <= input.len());
            prop_assert!(!field.value.of(&input).iter().any(|b| matches!(b, 0 | b'\r' | b'\n')));
            prop_assert!(!field.name.is_empty());
            prop_assert_eq!(Known::of(field.name.of(&input)), field.known);
        }
    }

    #[test]
    fn noise_never_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
        verdict(&input);
    }
}
