//! Status texts as nginx sends them, which are not always those of the registry.

/// The text of a status line after `HTTP/1.1 `, such as `404 Not Found`; `None` for a status that
/// nginx sends as its number and one space.
pub fn status_text(status: u16) -> Option<&'static str> {
    Some(match status {
        100 => "100 Continue",
        101 => "101 Switching Protocols",
        103 => "103 Early Hints",
        200 => "200 OK",
        201 => "201 Created",
        202 => "202 Accepted",
        204 => "204 No Content",
        206 => "206 Partial Content",
        301 => "301 Moved Permanently",
        302 => "302 Moved Temporarily",
        303 => "303 See Other",
        304 => "304 Not Modified",
        307 => "307 Temporary Redirect",
        308 => "308 Permanent Redirect",
        400 => "400 Bad Request",
        401 => "401 Unauthorized",
        402 => "402 Payment Required",
        403 => "403 Forbidden",
        404 => "404 Not Found",
        405 => "405 Not Allowed",
        406 => "406 Not Acceptable",
        407 => "407 Proxy Authentication Required",
        408 => "408 Request Time-out",
        409 => "409 Conflict",
        410 => "410 Gone",
        411 => "411 Length Required",
        412 => "412 Precondition Failed",
        413 => "413 Request Entity Too Large",
        414 => "414 Request-URI Too Large",
        415 => "415 Unsupported Media Type",
        416 => "416 Requested Range Not Satisfiable",
        421 => "421 Misdirected Request",
        429 => "429 Too Many Requests",
        500 => "500 Internal Server Error",
        501 => "501 Not Implemented",
        502 => "502 Bad Gateway",
        503 => "503 Service Temporarily Unavailable",
        504 => "504 Gateway Time-out",
        505 => "505 HTTP Version Not Supported",
        507 => "507 Insufficient Storage",
        _ => return None,
    })
}

/// The reason phrase alone, empty where [`status_text`] has none.
pub fn reason(status: u16) -> &'static str {
    status_text(status).map_or("", |text| &text[4..])
}

/// What nginx's built-in page for a status says: its title, its heading, and a second heading for
/// the inner numbers 494 to 497, all of which are sent as 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// Status of the response that carries the page.
    pub status: u16,
    pub title: &'static str,
    pub heading: &'static str,
    pub detail: Option<&'static str>,
}

/// The built-in page for a status; `None` where nginx sends an empty body.
pub fn error_page(status: u16) -> Option<ErrorPage> {
    let bad_request = |title: &'static str| {
        let detail = Some(&title[4..]);
        Some(ErrorPage { status: 400, title, heading: "400 Bad Request", detail })
    };
    let title = match status {
        302 => "302 Found",
        401 => "401 Authorization Required",
        494 => return bad_request("400 Request Header Or Cookie Too Large"),
        495 => return bad_request("400 The SSL certificate error"),
        496 => return bad_request("400 No required SSL certificate was sent"),
        497 => return bad_request("400 The plain HTTP request was sent to HTTPS port"),
        498 => "404 Not Found",
        301 | 303 | 307 | 308 | 400..=429 | 500..=507 => status_text(status)?,
        _ => return None,
    };
    let status = if status == 498 { 404 } else { status };
    Some(ErrorPage { status, title, heading: title, detail: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_begins_with_its_number() {
        for status in 0..1000 {
            if let Some(text) = status_text(status) {
                assert_eq!(text[..3].parse(), Ok(status));
                assert_eq!(text.as_bytes()[3], b' ');
                assert_eq!(reason(status), &text[4..]);
            } else {
                assert_eq!(reason(status), "");
            }
        }
    }

    #[test]
    fn nginx_has_words_of_its_own() {
        let check = |status, line: &str, title: &str| {
            assert_eq!(status_text(status).unwrap_or(""), line);
            assert_eq!(error_page(status).map_or("", |page| page.title), title);
        };
        check(302, "302 Moved Temporarily", "302 Found");
        check(304, "304 Not Modified", "");
        check(401, "401 Unauthorized", "401 Authorization Required");
        check(405, "405 Not Allowed", "405 Not Allowed");
        check(494, "", "400 Request Header Or Cookie Too Large");
        check(499, "", "");
        check(418, "", "");
        check(504, "504 Gateway Time-out", "504 Gateway Time-out");
        let page = error_page(497).unwrap();
        assert_eq!((page.status, page.heading), (400, "400 Bad Request"));
        assert_eq!(page.detail, Some("The plain HTTP request was sent to HTTPS port"));
    }
}
