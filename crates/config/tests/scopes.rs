//! What a compiler finds in a block: its own value, an outer one, or the default.

mod toy;

use config::{MemoryFiles, Part, Scope, Sink, Tree};

const TEXT: &str = "
worker_processes 4;
events { worker_connections 10; }
http {
    keepalive_requests 5;
    add_header A http;
    add_header B http;
    types { text/html html htm; }
    client_body_buffer_size bad;
    upstream one { server 10.0.0.1; server 10.0.0.2 weight=2; }
    server {
        listen 80;
        listen 81 default_server;
        root /srv/$host;
        keepalive_requests 6;
        location / {
            add_header C location;
            location /in { keepalive_requests 7; types { a/b c; } types { d/e f; } }
        }
        if ($slow) { root /slow; }
    }
    server { listen 82; client_max_body_size 2g; keepalive_requests bad; }
}
";

fn tree() -> Tree {
    let files = MemoryFiles::new().with("/nginx.conf", TEXT);
    config::parse(&files, "nginx.conf".as_ref(), "/".as_ref(), &[]).0
}

#[test]
fn the_nearest_level_wins_and_lists_are_replaced() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    assert_eq!(root.get(&toy::WORKER_PROCESSES), 4);
    assert_eq!(root.get(&toy::PID), "logs/nginx.pid");
    assert_eq!(root.find(&toy::PID), None);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    let servers = http.blocks(&toy::SERVER_BLOCK);
    assert_eq!(servers.len(), 2);
    let server = &servers[0].1;
    assert_eq!(server.get(&toy::KEEPALIVE_REQUESTS), 6);
    assert_eq!(server.all(&toy::LISTEN), [vec!["80"], vec!["81", "default_server"]]);
    let headers = |scope: &Scope<'_>| -> Vec<String> {
        scope.all(&toy::ADD_HEADER).into_iter().map(|words| words.concat()).collect()
    };
    assert_eq!(headers(server), ["Ahttp", "Bhttp"]);
    assert!(server.all_local(&toy::ADD_HEADER).is_empty());
    let (args, location) = server.blocks(&toy::LOCATION_BLOCK).remove(0);
    assert_eq!(args, ["/"]);
    assert_eq!(headers(&location), ["Clocation"]);
    assert_eq!(location.local(&toy::KEEPALIVE_REQUESTS), None);
    assert_eq!(location.get(&toy::KEEPALIVE_REQUESTS), 6);
    let (_, inner) = location.blocks(&toy::LOCATION_BLOCK).remove(0);
    assert_eq!(inner.get(&toy::KEEPALIVE_REQUESTS), 7);
    assert_eq!(headers(&inner), ["Clocation"]);
    let variable = Part::Variable("host".to_owned());
    assert_eq!(inner.get(&toy::ROOT).parts, [Part::Text(b"/srv/".to_vec()), variable]);
    assert_eq!(inner.context(), toy::LOCATION);
    assert_eq!(inner.parent().unwrap().span(), location.span());
}

#[test]
fn a_refused_value_counts_as_absent_and_is_not_reported_twice() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    assert_eq!(http.get(&toy::CLIENT_BODY_BUFFER_SIZE), 16 * 1024);
    let (_, second) = http.blocks(&toy::SERVER_BLOCK).remove(1);
    assert_eq!(second.get(&toy::KEEPALIVE_REQUESTS), 1000);
    assert_eq!(second.get(&toy::CLIENT_MAX_BODY_SIZE), 2 << 30);
    assert_eq!(sink.take(), []);
    assert_eq!(config::check(&tree, &registry).len(), 2);
}

#[test]
fn a_name_means_what_its_context_says() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    let (name, group) = http.blocks(&toy::UPSTREAM_BLOCK).remove(0);
    assert_eq!(name, "one");
    assert_eq!(group.all(&toy::UPSTREAM_SERVER), [vec!["10.0.0.1"], vec!["10.0.0.2", "weight=2"]]);
    // The `server` blocks of http are not peers, and the other way round.
    assert!(http.all(&toy::UPSTREAM_SERVER).is_empty());
    assert!(group.blocks(&toy::SERVER_BLOCK).is_empty());
}

#[test]
fn rows_come_from_the_nearest_level() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    let (_, server) = http.blocks(&toy::SERVER_BLOCK).remove(0);
    let (_, location) = server.blocks(&toy::LOCATION_BLOCK).remove(0);
    let (_, inner) = location.blocks(&toy::LOCATION_BLOCK).remove(0);
    let names = |scope: &Scope<'_>| -> Vec<String> {
        scope.rows(&toy::TYPES).iter().map(|row| row.name.str().into_owned()).collect()
    };
    assert_eq!(names(&location), ["text/html"]);
    assert_eq!(names(&inner), ["a/b", "d/e"]);
    assert_eq!(inner.row_blocks(&toy::TYPES).len(), 2);
    assert!(location.row_blocks(&toy::TYPES).is_empty());
}

#[test]
fn children_keep_their_order() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    let (_, server) = http.blocks(&toy::SERVER_BLOCK).remove(0);
    let names: Vec<_> = server.children().map(|child| child.directive.spec().name).collect();
    assert_eq!(names, ["listen", "listen", "root", "keepalive_requests", "location", "if"]);
    let block = server.children().find(|child| child.is(&toy::SERVER_IF_BLOCK)).unwrap();
    assert_eq!(block.read(&toy::SERVER_IF_BLOCK).unwrap(), ["($slow)"]);
    assert_eq!(block.read(&toy::LISTEN), None);
    let inside = block.scope.unwrap();
    assert_eq!(inside.context(), toy::SERVER_IF);
    assert_eq!(inside.get(&toy::ROOT).constant(), Some(&b"/slow"[..]));
    // What does not stand in the inner block comes from the server.
    assert_eq!(inside.get(&toy::KEEPALIVE_REQUESTS), 6);
}

#[test]
fn the_sink_knows_what_nobody_asked_for() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let unread = sink.unread(&registry);
    assert!(unread.contains(&"worker_processes") && unread.contains(&"listen"), "{unread:?}");
    assert!(!unread.contains(&"pid"), "{unread:?}");
    root.get(&toy::WORKER_PROCESSES);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    // Asking where it does not stand is asking, too.
    http.all(&toy::LISTEN);
    let unread = sink.unread(&registry);
    let expected = [
        "add_header",
        "client_body_buffer_size",
        "client_max_body_size",
        "events",
        "if",
        "keepalive_requests",
        "location",
        "root",
        "server",
        "server",
        "types",
        "upstream",
        "worker_connections",
    ];
    assert_eq!(unread, expected);
    let absent = sink.absent(&registry);
    assert!(absent.contains(&"pid") && !absent.contains(&"listen"), "{absent:?}");
}

#[test]
#[should_panic(expected = "\"listen\" has no default")]
fn a_directive_without_default_is_found_not_got() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    Scope::root(&tree, &registry, &sink).get(&toy::LISTEN);
}

#[test]
fn what_a_scope_says_has_a_place() {
    let (tree, registry, sink) = (tree(), toy::registry(), Sink::new());
    let root = Scope::root(&tree, &registry, &sink);
    let (_, http) = root.blocks(&toy::HTTP_BLOCK).remove(0);
    let (_, span) = http.nodes(&toy::ADD_HEADER).remove(1);
    http.warn(span, "twice");
    assert!(!sink.has_errors());
    let (_, server) = http.blocks(&toy::SERVER_BLOCK).remove(1);
    server.error(server.close(), "no good");
    assert!(sink.has_errors());
    let lines: Vec<_> = sink.take().iter().map(|one| one.first_line(&tree)).collect();
    assert_eq!(lines, ["twice in /nginx.conf:7", "no good in /nginx.conf:22"]);
}
