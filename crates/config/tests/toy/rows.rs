//! Configurations and the first line that nginx 1.22 says about each, word for word.
//!
//! `nginx_wording.rs` holds this crate to them, `peers_nginx.rs` holds them to a real nginx.
//! `DIR` stands for the directory of the configuration. An empty line means that the
//! configuration language has nothing to complain about.

/// `(text of nginx.conf, first line without its program)`.
pub(crate) const ROWS: &[(&str, &str)] = &[
    // Names and places.
    ("events { } foo bar;", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1"),
    ("foo {", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1"),
    ("\n\nfoo\nbar\n;", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:5"),
    ("listen 80;", "[emerg] \"listen\" directive is not allowed here in DIR/nginx.conf:1"),
    (
        "http{server{location / {listen 80;}}}",
        "[emerg] \"listen\" directive is not allowed here in DIR/nginx.conf:1",
    ),
    ("if ($x) {}", "[emerg] \"if\" directive is not allowed here in DIR/nginx.conf:1"),
    ("types {}", "[emerg] \"types\" directive is not allowed here in DIR/nginx.conf:1"),
    (
        "http { server { if ($x = 1) { foo; } } }",
        "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1",
    ),
    ("'worker_processes' 1;events{}", ""),
    ("\"worker_processes\" 1;\"foo\" 1;", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1"),
    ("\"\";", "[emerg] unknown directive \"\" in DIR/nginx.conf:1"),
    ("é;", "[emerg] unknown directive \"é\" in DIR/nginx.conf:1"),
    ("\0a;", "[emerg] unknown directive \"\" in DIR/nginx.conf:1"),
    ("\u{feff}events{}", "[emerg] unknown directive \"\u{feff}events\" in DIR/nginx.conf:1"),
    ("http { foo 1; bar 2; }", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1"),
    // Endings and arguments.
    ("events;", "[emerg] directive \"events\" has no opening \"{\" in DIR/nginx.conf:1"),
    (
        "worker_processes 1 {}",
        "[emerg] directive \"worker_processes\" is not terminated by \";\" in DIR/nginx.conf:1",
    ),
    (
        "worker_processes \"1\"{",
        "[emerg] directive \"worker_processes\" is not terminated by \";\" in DIR/nginx.conf:1",
    ),
    (
        "worker_processes;",
        "[emerg] invalid number of arguments in \"worker_processes\" directive in \
         DIR/nginx.conf:1",
    ),
    (
        "worker_processes\n1\n2\n;",
        "[emerg] invalid number of arguments in \"worker_processes\" directive in \
         DIR/nginx.conf:4",
    ),
    (
        "events x {}",
        "[emerg] invalid number of arguments in \"events\" directive in DIR/nginx.conf:1",
    ),
    (
        "worker_processes 1;\nworker_processes 2;",
        "[emerg] \"worker_processes\" directive is duplicate in DIR/nginx.conf:2",
    ),
    (
        "worker_processes 1;\nworker_processes x;",
        "[emerg] \"worker_processes\" directive is duplicate in DIR/nginx.conf:2",
    ),
    ("events {}\nevents {}", "[emerg] \"events\" directive is duplicate in DIR/nginx.conf:2"),
    // Braces and semicolons.
    ("}", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    ("events {}\n}\n", "[emerg] unexpected \"}\" in DIR/nginx.conf:2"),
    ("events {}}", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    (";", "[emerg] unexpected \";\" in DIR/nginx.conf:1"),
    ("{", "[emerg] unexpected \"{\" in DIR/nginx.conf:1"),
    ("events {};", "[emerg] unexpected \";\" in DIR/nginx.conf:1"),
    ("worker_processes 1\n}", "[emerg] unexpected \"}\" in DIR/nginx.conf:2"),
    ("worker_processes } ;", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    ("events } foo;", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    ("http { server { listen 1 } }", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    (
        "worker_processes a}b;",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "worker_processes a{",
        "[emerg] directive \"worker_processes\" is not terminated by \";\" in DIR/nginx.conf:1",
    ),
    // The end of the file.
    ("foo", "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1"),
    ("events {", "[emerg] unexpected end of file, expecting \"}\" in DIR/nginx.conf:1"),
    ("events {\n\n\n", "[emerg] unexpected end of file, expecting \"}\" in DIR/nginx.conf:4"),
    (
        "events { worker_connections 10",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    (
        "events { worker_connections 10; ",
        "[emerg] unexpected end of file, expecting \"}\" in DIR/nginx.conf:1",
    ),
    (
        "#\n\n  #x\nfoo",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:4",
    ),
    (
        "worker_processes 'abc",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    (
        "worker_processes '1\n;\nfoo {}\n",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:4",
    ),
    (
        "worker_processes 1 # c ;",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    (
        "worker_processes 1\\",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    // Words: comments, escapes, variables, quotes.
    ("# only", ""),
    ("", ""),
    ("events {} # { ; \" '", ""),
    ("worker_processes #b;\n1;", ""),
    (
        "worker_processes a#b;",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "worker_processes ${;",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "worker_processes ${{{ 1;",
        "[emerg] invalid number of arguments in \"worker_processes\" directive in \
         DIR/nginx.conf:1",
    ),
    (
        "worker_processes $x{ 1;",
        "[emerg] directive \"worker_processes\" is not terminated by \";\" in DIR/nginx.conf:1",
    ),
    (
        "worker_processes \\;;",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "worker_processes a\\ b;",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "events { worker_connections a\\\\\\\"\\'\\tb\\x; }",
        "[emerg] invalid number \"a\\\"'\tb\\x\" in DIR/nginx.conf:1",
    ),
    (
        "events { worker_connections \"a\\\"b # { ; \"; }",
        "[emerg] invalid number \"a\"b # { ; \" in DIR/nginx.conf:1",
    ),
    (
        "events { worker_connections 'a\\nb'; }",
        "[emerg] invalid number \"a\nb\" in DIR/nginx.conf:1",
    ),
    (
        "events { worker_connections a\"b'c; }",
        "[emerg] invalid number \"a\"b'c\" in DIR/nginx.conf:1",
    ),
    (
        "pid \"a\")b;",
        "[emerg] invalid number of arguments in \"pid\" directive in DIR/nginx.conf:1",
    ),
    ("worker_processes \"1\"x;", "[emerg] unexpected \"x\" in DIR/nginx.conf:1"),
    ("worker_processes \"1\"#\n;", "[emerg] unexpected \"#\" in DIR/nginx.conf:1"),
    ("worker_processes \"\"\"\";", "[emerg] unexpected \"\"\" in DIR/nginx.conf:1"),
    ("pid '1\n2\n3'4;", "[emerg] unexpected \"4\" in DIR/nginx.conf:3"),
    (
        "worker_processes \"\";",
        "[emerg] \"worker_processes\" directive invalid value in DIR/nginx.conf:1",
    ),
    (
        "worker_processes 1;\r\nevents {}\r\nfoo;\r\n",
        "[emerg] unknown directive \"foo\" in DIR/nginx.conf:3",
    ),
    // Includes.
    (
        "include nope.conf;",
        "[emerg] open() \"DIR/nope.conf\" failed (2: No such file or directory) in \
         DIR/nginx.conf:1",
    ),
    ("include nope*.conf; foo;", "[emerg] unknown directive \"foo\" in DIR/nginx.conf:1"),
    (
        "include ;",
        "[emerg] invalid number of arguments in \"include\" directive in DIR/nginx.conf:1",
    ),
    ("include a {", "[emerg] directive \"include\" is not terminated by \";\" in DIR/nginx.conf:1"),
    (
        "http{types{ include; }}",
        "[emerg] invalid number of arguments in \"include\" directive in DIR/nginx.conf:1",
    ),
    (
        "http { types { include nope; } }",
        "[emerg] open() \"DIR/nope\" failed (2: No such file or directory) in DIR/nginx.conf:1",
    ),
    // Free rows.
    ("http { types { a b { c d; } } }", "[emerg] unexpected \"{\" in DIR/nginx.conf:1"),
    ("http { types { a/b c; listen d; } }", ""),
    ("http { types { a }", "[emerg] unexpected \"}\" in DIR/nginx.conf:1"),
    // Values.
    (
        "http { tcp_nodelay foo; }",
        "[emerg] invalid value \"foo\" in \"tcp_nodelay\" directive, it must be \"on\" or \
         \"off\" in DIR/nginx.conf:1",
    ),
    ("http { tcp_nodelay OFF; }", ""),
    (
        "http { keepalive_requests 1k; }",
        "[emerg] \"keepalive_requests\" directive invalid number in DIR/nginx.conf:1",
    ),
    (
        "http { proxy_buffers 0 4k; }",
        "[emerg] \"proxy_buffers\" directive invalid value in DIR/nginx.conf:1",
    ),
    ("http { gzip_comp_level 33; }", "[emerg] value must be between 1 and 9 in DIR/nginx.conf:1"),
    (
        "http { proxy_next_upstream error foo; }",
        "[emerg] invalid value \"foo\" in DIR/nginx.conf:1",
    ),
    (
        "http { proxy_next_upstream error error; }",
        "[warn] duplicate value \"error\" in DIR/nginx.conf:1",
    ),
    ("http { if_modified_since never; }", "[emerg] invalid value \"never\" in DIR/nginx.conf:1"),
    ("http { if_modified_since EXACT; }", ""),
    ("http { root $; }", "[emerg] invalid variable name in DIR/nginx.conf:1"),
    (
        "http { root ${a; }",
        "[emerg] the closing bracket in \"a\" variable is missing in DIR/nginx.conf:1",
    ),
];

/// `(directive of http, value, whether nginx takes it)`.
pub(crate) const VALUES: &[(&str, &str, bool)] = &[
    ("client_header_timeout", "'1d 2h'", true),
    ("client_header_timeout", "1d2h", true),
    ("client_header_timeout", "2h1d", false),
    ("client_header_timeout", "1h1h", false),
    ("client_header_timeout", "1y", false),
    ("client_header_timeout", "1M", false),
    ("client_header_timeout", "1w", true),
    ("client_header_timeout", "1s500ms", true),
    ("client_header_timeout", "500ms1s", false),
    ("client_header_timeout", "500ms", true),
    ("client_header_timeout", "1m", true),
    ("client_header_timeout", "1ms2", true),
    ("client_header_timeout", "'30 '", true),
    ("client_header_timeout", "'30 5'", true),
    ("client_header_timeout", "'30s '", true),
    ("client_header_timeout", "'1 1 '", false),
    ("client_header_timeout", "'30s  5'", true),
    ("client_header_timeout", "' 30'", true),
    ("client_header_timeout", "s", false),
    ("client_header_timeout", "''", false),
    ("client_header_timeout", "-1", false),
    ("client_header_timeout", "1.5s", false),
    ("client_header_timeout", "9223372036854775", true),
    ("client_header_timeout", "9223372036854776", false),
    ("client_header_timeout", "9223372036854775807", false),
    ("client_header_timeout", "9223372036854775808ms", false),
    ("client_header_timeout", "9223372036854775807ms", true),
    ("client_header_timeout", "15250284452w", true),
    ("client_header_timeout", "15250284453w", false),
    ("client_max_body_size", "1", true),
    ("client_max_body_size", "1g", true),
    ("client_max_body_size", "1G", true),
    ("client_max_body_size", "1t", false),
    ("client_max_body_size", "k", false),
    ("client_max_body_size", "''", false),
    ("client_max_body_size", "8589934591g", true),
    ("client_max_body_size", "8589934592g", false),
    ("client_max_body_size", "9223372036854775807", true),
    ("client_max_body_size", "9223372036854775808", false),
    ("client_body_buffer_size", "1K", true),
    ("client_body_buffer_size", "1M", true),
    ("client_body_buffer_size", "1g", false),
    ("client_body_buffer_size", "1kk", false),
    ("keepalive_requests", "007", true),
    ("keepalive_requests", "+7", false),
    ("keepalive_requests", "9223372036854775807", true),
    ("keepalive_requests", "9223372036854775808", false),
    ("tcp_nodelay", "On", true),
    ("tcp_nodelay", "1", false),
    ("tcp_nodelay", "''", false),
];

/// `(head, length, filling, tail, first line)`: words and comments around the size of nginx's
/// buffer; the filling `x` is repeated.
pub(crate) const LONG: &[(&str, usize, &str, &str)] = &[
    ("pid ", 4096, ";", "[emerg] too long parameter \"xxxxxxxxxx...\" started in DIR/nginx.conf:1"),
    ("pid ", 4095, ";\n", ""),
    (
        "pid ",
        4095,
        "\n;\n",
        "[emerg] too long parameter \"xxxxxxxxxx...\" started in DIR/nginx.conf:1",
    ),
    ("pid ", 4094, "\n;\n", ""),
    (
        "\npid\n '",
        4096,
        "';\n",
        "[emerg] too long parameter, probably missing terminating \"'\" character in \
         DIR/nginx.conf:3",
    ),
    (
        "pid '",
        4095,
        "';\n",
        "[emerg] too long parameter \"xxxxxxxxxx...\" started in DIR/nginx.conf:1",
    ),
    ("pid '", 4094, "';\n", ""),
    (
        "pid '",
        4094,
        "' ;\n",
        "[emerg] too long parameter \"xxxxxxxxxx...\" started in DIR/nginx.conf:1",
    ),
    ("pid '", 4093, "' ;\n", ""),
    ("#", 4094, "\n", ""),
    ("#", 4095, "\n", "[emerg] too long parameter \"#xxxxxxxxx...\" started in DIR/nginx.conf:1"),
    ("#", 4096, "", "[emerg] too long parameter \"#xxxxxxxxx...\" started in DIR/nginx.conf:1"),
    ("#", 4095, "", ""),
    (
        "pid \"",
        5000,
        "",
        "[emerg] too long parameter, probably missing terminating \"\"\" character in \
         DIR/nginx.conf:1",
    ),
    (
        "pid \"",
        4096,
        "",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    (
        "pid ",
        4096,
        "",
        "[emerg] unexpected end of file, expecting \";\" or \"}\" in DIR/nginx.conf:1",
    ),
    ("pid ", 4097, "", "[emerg] too long parameter \"xxxxxxxxxx...\" started in DIR/nginx.conf:1"),
];

/// `(text of -g, text of nginx.conf, first line)`.
pub(crate) const GLOBALS: &[(&str, &str, &str)] = &[
    ("foo", "", "[emerg] unexpected end of parameter, expecting \";\" in command line"),
    ("foo;", "", "[emerg] unknown directive \"foo\" in command line"),
    ("pid a b;", "", "[emerg] invalid number of arguments in \"pid\" directive in command line"),
    ("events {}", "", "[emerg] block directives are not supported in -g option in command line"),
    ("}", "", "[emerg] unexpected \"}\" in command line"),
    (
        "worker_processes 2;",
        "worker_processes 1;",
        "[emerg] \"worker_processes\" directive is duplicate in DIR/nginx.conf:1",
    ),
    ("worker_processes 2;", "pid x;", ""),
    ("pid y; foo;", "bar;", "[emerg] unknown directive \"foo\" in command line"),
];
