//! Responses as a hostile server sends them: judged whole, byte by byte and in every split.

use proptest::prelude::*;
use wire::http1::{
    BadResponse, BadResponseKind, Field, ParsedResponse, ResponseFraming, ResponseParser,
    StatusLine, Version, response_framing,
};

/// What was read: the head's length, its line, its framing and its fields.
type Outcome = (Result<Option<(usize, StatusLine, ResponseFraming)>, BadResponse>, Vec<Field>);

fn read(input: &[u8], cuts: &[usize]) -> Outcome {
    let mut parser = ResponseParser::new(100);
    let mut fields = Vec::new();
    for end in cuts.iter().copied().chain([input.len()]) {
        let arrived = input[..end].to_vec();
        match parser.parse(&arrived, &mut fields) {
            Ok(ParsedResponse::Partial) => {}
            Ok(ParsedResponse::Complete { len, line }) => {
                let framing = response_framing(line.status, false, false, &input[..len], &fields);
                return (framing.map(|framing| Some((len, line, framing))), fields);
            }
            Err(fault) => return (Err(fault), fields),
        }
    }
    (Ok(None), fields)
}

fn outcome(input: &[u8]) -> Outcome {
    let whole = read(input, &[]);
    let every: Vec<usize> = (0..input.len()).collect();
    assert_eq!(read(input, &every), whole, "byte by byte: {}", input.escape_ascii());
    for cut in 0..input.len() {
        assert_eq!(read(input, &[cut]), whole, "cut at {cut}: {}", input.escape_ascii());
    }
    whole
}

#[track_caller]
fn refused(input: &str, kind: BadResponseKind, at: usize) {
    let found = outcome(input.as_bytes()).0.map_err(|fault| (fault.kind, fault.at));
    assert_eq!(found.map(|_| ()), Err((kind, at)), "{input:?}");
}

#[test]
fn status_lines() {
    let check = |line: &str, status, text: &str, reason: &str, version| {
        let input = format!("{line}\r\n\r\n");
        let found =
            outcome(input.as_bytes()).0.unwrap_or_else(|fault| panic!("{fault:?} {line:?}"));
        let (len, found, _) = found.unwrap();
        assert_eq!((len, found.status, found.version), (input.len(), status, version), "{line:?}");
        assert_eq!(found.text.of(input.as_bytes()), text.as_bytes());
        assert_eq!(found.reason.of(input.as_bytes()), reason.as_bytes());
    };
    let (old, new) = (Version::HTTP_10, Version::HTTP_11);
    check("HTTP/1.1 200 OK", 200, "200 OK", "OK", new);
    check("HTTP/1.0 200 OK", 200, "200 OK", "OK", old);
    check("HTTP/1.1 200", 200, "200", "", new);
    check("HTTP/1.1 200 ", 200, "200 ", "", new);
    check("HTTP/1.1  200 OK", 200, "200 OK", "OK", new);
    check("HTTP/1.1 403.1 No", 403, "403.1 No", ".1 No", new);
    check("HTTP/1.1 404 Not  Found ", 404, "404 Not  Found ", "Not  Found ", new);
    check("HTTP/1.2 999 x", 999, "999 x", "x", new);
    check("HTTP/2.0 200 OK", 200, "200 OK", "OK", new);
    check("HTTP/10.01 200 OK", 200, "200 OK", "OK", new);
    check("HTTP/1.1 100 Continue", 100, "100 Continue", "Continue", new);
}

#[test]
fn status_lines_that_are_none() {
    use BadResponseKind::*;
    refused("SSH-2.0-x\r\n", NotHttp, 0);
    refused("\r\nHTTP/1.1 200 OK\r\n", NotHttp, 0);
    refused("http/1.1 200 OK\r\n", NotHttp, 0);
    refused("HTTX", NotHttp, 3);
    refused("HTTP 200", NotHttp, 4);
    refused("HTTP/x", InvalidStatusLine, 5);
    refused("HTTP/0.9 200 OK\r\n", InvalidStatusLine, 5);
    refused("HTTP/1 200 OK\r\n", InvalidStatusLine, 6);
    refused("HTTP/1.x", InvalidStatusLine, 7);
    refused("HTTP/1.1\r\n", InvalidStatusLine, 8);
    refused("HTTP/1111.1 200", InvalidStatusLine, 8);
    refused("HTTP/1.1 x", InvalidStatusLine, 9);
    refused("HTTP/1.1 20\r\n", InvalidStatusLine, 11);
    refused("HTTP/1.1 20 OK\r\n", InvalidStatusLine, 11);
    refused("HTTP/1.1 2000 OK\r\n", InvalidStatusLine, 12);
    refused("HTTP/1.1 -20 OK\r\n", InvalidStatusLine, 9);
    refused("HTTP/1.1 200\tOK\r\n", InvalidStatusLine, 12);
    refused("HTTP/1.1 000 OK\r\n", HostileStatusLine, 9);
    refused("HTTP/1.1 099 OK\r\n", HostileStatusLine, 9);
    refused("HTTP/1.1 200 O\0K\r\n", HostileStatusLine, 14);
    refused("HTTP/1.1 200 O\rK\r\n", HostileStatusLine, 14);
    refused("HTTP/1.1 200\r\r\n", HostileStatusLine, 12);
}

#[test]
fn fields() {
    use BadResponseKind::*;
    let names = |lines: &str| {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        let (found, fields) = outcome(input.as_bytes());
        assert!(matches!(found, Ok(Some(_))), "{found:?}");
        let text = |field: &Field| {
            let (name, value) = (field.name.of(input.as_bytes()), field.value.of(input.as_bytes()));
            format!("{}={}", name.escape_ascii(), value.escape_ascii())
        };
        fields.iter().map(text).collect::<Vec<_>>().join("|")
    };
    assert_eq!(names("A: b\r\nc_d:e \nf.g: h"), "A=b|c_d=e|f.g=h");
    assert_eq!(names("A: b\r\nA: b\r\nDate: x\r\nDate: y"), "A=b|A=b|Date=x|Date=y");
    // nginx's tolerances: a line without colon, and a status line among the fields.
    assert_eq!(names("A\r\nB: c"), "A=|B=c");
    assert_eq!(names("HTTP/1.1 200 OK\r\nB: c"), "B=c");
    assert_eq!(names("HTTP: x\r\nHTTPS/1: y"), "HTTP=x|HTTPS/1=y");

    let bad = |line: &str, at: usize| {
        refused(&format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n"), InvalidHeader, 17 + at);
    };
    bad(": x", 0);
    bad(" A: x", 0);
    bad("A: b\r\n c", 6);
    bad("A : x", 1);
    bad("A\0: x", 1);
    bad("A: x\0", 4);
    bad("A: x\ry", 4);
    bad("A\rB: c", 1);
    bad("HTTP/1.1 \0", 9);
    refused(&format!("HTTP/1.1 200 OK\r\n{}", "A: b\r\n".repeat(101)), HeadTooLarge, 17 + 600);
}

#[test]
fn framing() {
    use BadResponseKind::*;
    let good = |lines: &str, expected| {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}X: y\r\n\r\n");
        let found = outcome(input.as_bytes()).0.map(|found| found.map(|(_, _, framing)| framing));
        assert_eq!(found, Ok(Some(expected)), "{lines:?}");
    };
    good("", ResponseFraming::UntilClose);
    good("Content-Length: 0\r\n", ResponseFraming::Length(0));
    good("content-length:5 \r\n", ResponseFraming::Length(5));
    good("Transfer-Encoding: Chunked\r\n", ResponseFraming::Chunked);

    let bad = |lines: &str, kind| {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
        let found = outcome(input.as_bytes()).0.map_err(|fault| fault.kind);
        assert_eq!(found, Err(kind), "{lines:?}");
        // The same fields are refused where the response can have no body.
        for status in ["204 No Content", "304 Not Modified"] {
            let input = input.replace("200 OK", status);
            assert_eq!(outcome(input.as_bytes()).0.map_err(|fault| fault.kind), Err(kind));
        }
    };
    bad("Content-Length: 5\r\nContent-Length: 5\r\n", DuplicateField);
    bad("Content-Length: 5\r\nContent-Length: 6\r\n", DuplicateField);
    bad("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", DuplicateField);
    bad("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndTransferEncoding);
    bad("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", LengthAndTransferEncoding);
    for value in ["", "-1", "+1", "0x1", "1,1", "1 1", "99999999999999999999"] {
        bad(&format!("Content-Length: {value}\r\n"), InvalidContentLength);
    }
    for value in ["", "identity", "gzip", "gzip, chunked", "chunked, chunked", "chunked\u{b}"] {
        bad(&format!("Transfer-Encoding: {value}\r\n"), UnknownTransferEncoding);
    }
}

#[test]
fn messages_are_those_of_nginx() {
    let check = |lines: &str, expected: &str| {
        let input = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        let (found, fields) = outcome(input.as_bytes());
        let mut text = Vec::new();
        found.unwrap_err().describe(input.as_bytes(), &fields, &mut text);
        assert_eq!(String::from_utf8_lossy(&text), expected);
    };
    check("A\u{1}: b", "upstream sent invalid header: \"A\\x01...\"");
    check(
        "Content-Length: 1\r\nContent-length: 2",
        "upstream sent duplicate header line: \"Content-length: 2\", \
         previous value: \"Content-Length: 1\"",
    );
    check(
        "Content-Length: x",
        "upstream sent invalid \"Content-Length\" header: \"Content-Length: x\"",
    );
    check("Transfer-Encoding: x", "upstream sent unknown \"Transfer-Encoding\": \"x\"");
    check(
        "Content-Length: 1\r\nTransfer-Encoding: chunked",
        "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_head_panics_and_no_cut_matters(
        good in any::<bool>(),
        pieces in prop::collection::vec(
            prop_oneof![
                8 => prop::sample::select(vec![
                    &b"HTTP/1.1 200 OK\r\n"[..], b"HTTP/", b"1.1", b" ", b"200", b"\r\n", b"\n",
                    b"\r", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"X",
                    b": ", b":", b"\0", b"y", b"\t", b"\r\n\r\n",
                    b"Set-Cookie: a=b; Path=/; HttpOnly; SameSite=Lax\r\n",
                ]).prop_map(<[u8]>::to_vec),
                1 => prop::collection::vec(any::<u8>(), 1..4),
            ],
            0..20,
        ),
    ) {
        let mut input = if good { b"HTTP/1.1 200 OK\r\n".to_vec() } else { Vec::new() };
        input.extend(pieces.concat());
        let (found, fields) = outcome(&input);
        if let Err(fault) = found {
            let mut text = Vec::new();
            fault.describe(&input, &fields, &mut text);
            prop_assert!(fault.line <= fault.at && fault.at <= input.len());
        }
    }
}
