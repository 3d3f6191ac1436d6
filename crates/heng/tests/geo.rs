//! `geo`: values by address.

use testkit::{Client, Config, Peer, Server};

#[test]
fn the_client_s_network_decides() {
    let server = Server::start(
        Config::http(
            "geo $place { default far; 127.0.0.0/8 near; 127.0.0.1 here; 192.0.2.0/24 test; }
             geo $arg_ip $named {
                 default far;
                 include %%DIR%%/networks.conf;
                 10.1.0.0/16 lost; delete 10.1.0.0/16;
                 2001:db8::/32 six; 255.255.255.255 none;
             }
             geo $arg_ip $ranged { ranges; default far; 10.0.0.0-10.2.255.255 ten; }
             geo $behind { proxy 127.0.0.1; default far; 192.0.2.0/24 test; 127.0.0.1 here; }
             geo $origin {
                 proxy_recursive; proxy 127.0.0.0/8;
                 default far; 192.0.2.0/24 test; 127.0.0.0/8 here;
             }
             server {
                 listen 127.0.0.1:%%PORT_0%%; listen unix:%%DIR%%/socket;
                 location / { return 200 $place; }
                 location /named { return 200 $named; }
                 location /ranged { return 200 $ranged; }
                 location /behind { return 200 $behind; }
                 location /origin { return 200 $origin; }
             }",
        )
        .file("networks.conf", "10.0.0.0/8 ten; 10.1.2.3 one;"),
    );
    let mut client = server.connect();
    for (path, expected) in [
        ("/", "here"),
        ("/named?ip=10.1.2.3", "one"),
        ("/named?ip=10.1.2.4", "ten"),
        ("/named?ip=11.1.2.4", "far"),
        ("/named?ip=2001:db8::1", "six"),
        ("/named?ip=::ffff:10.1.2.3", "one"),
        ("/named?ip=nonsense", "none"),
        ("/named", "none"),
        ("/ranged?ip=10.2.255.255", "ten"),
        ("/ranged?ip=10.3.0.0", "far"),
    ] {
        assert_eq!(client.get(path).text(), expected, "{path}");
    }
    for (path, forwarded, expected) in [
        ("/behind", "192.0.2.1", "test"),
        ("/behind", "192.0.2.1, 127.0.0.1", "here"),
        ("/behind", "10.0.0.1", "far"),
        ("/origin", "192.0.2.1, 127.0.0.1", "test"),
        ("/origin", "10.0.0.1, 192.0.2.1, 127.0.0.1", "test"),
    ] {
        let headers = [("Host", "a"), ("X-Forwarded-For", forwarded)];
        assert_eq!(client.request("GET", path, &headers, b"").text(), expected, "{forwarded}");
    }
    let mut unix = Client::connect(Peer::from(server.path("socket")));
    assert_eq!(unix.get("/").text(), "far");
}

#[test]
fn a_volatile_value_is_looked_up_at_each_use() {
    let server = Server::start(Config::http(
        "geo $arg_ip $kept { default 0; 10.0.0.1 1; 10.0.0.2 2; }
         geo $arg_ip $fresh { volatile; default 0; 10.0.0.1 1; 10.0.0.2 2; }
         server {
             listen 127.0.0.1:%%PORT_0%%;
             error_page 404 = /page?ip=10.0.0.2;
             location / { root %%DIR%%/none$kept$fresh; }
             location /page { return 200 $kept|$fresh; }
         }",
    ));
    assert_eq!(server.get("/first?ip=10.0.0.1").text(), "1|2");
}
