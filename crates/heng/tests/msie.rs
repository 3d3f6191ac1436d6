//! What old browsers of one maker get.

use testkit::{Config, Response, Server};

const MSIE: &str = "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.0)";

fn ask(server: &Server, path: &str, agent: &str) -> Response {
    let fields = [("Host", "a"), ("User-Agent", agent)];
    server.connect().request("GET", path, &fields, b"")
}

#[test]
fn a_page_can_stand_for_a_redirect() {
    let server = Server::start(
        Config::server(
            "root %%DIR%%/html; msie_refresh on;
             location /else { return 302 http://b/?q=<a>; }
             location /307 { return 307 /else; }
             location /page { error_page 404 http://c/; return 404; }",
        )
        .file("html/folder/a", "text"),
    );
    let response = ask(&server, "/else", MSIE).expect(200);
    let expected = "<html><head><meta http-equiv=\"Refresh\" content=\"0; \
                    URL=http://b/?q=%3Ca%3E\"></head><body></body></html>\r\n";
    assert_eq!(response.text(), expected);
    assert_eq!(response.header("Location"), None);
    assert_eq!(response.header("Content-Type"), Some("text/html"));
    assert!(ask(&server, "/folder", MSIE).expect(200).text().contains("URL=/folder/\""));
    assert!(ask(&server, "/page", MSIE).expect(200).text().contains("URL=http://c/\""));
    ask(&server, "/307", MSIE).expect(307);
    ask(&server, "/else", "Mozilla/5.0").expect(302);
    ask(&server, "/else", &format!("{MSIE} Opera")).expect(302);
}
