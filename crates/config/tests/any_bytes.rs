//! Whatever the bytes, parsing and checking end without a panic and keep their promises.

mod toy;

use config::{Block, MemoryFiles, Scope, Sink, Tree};
use proptest::prelude::*;

/// Parses, checks, walks and renders; every span must point into its file.
fn survive(text: &[u8]) {
    let files = MemoryFiles::new().with("/x.conf", text).with("/one", "foo 'a");
    let registry = toy::registry();
    let (tree, found) = config::load(&files, "/x.conf".as_ref(), "/".as_ref(), &[], &registry);
    for finding in &found {
        let shown = finding.render(&tree, "heng", false);
        assert!(shown.starts_with("heng: ["), "{shown}");
    }
    let (again, found_again) =
        config::load(&files, "/x.conf".as_ref(), "/".as_ref(), &[], &registry);
    assert_eq!((&tree, &found), (&again, &found_again));
    spans_are_inside(&tree, &tree.root);
    let sink = Sink::new();
    walk(&Scope::root(&tree, &registry, &sink));
    let _ = config::dump(&tree);
}

fn spans_are_inside(tree: &Tree, block: &Block) {
    for node in &block.nodes {
        let length = tree.file(node.span.file).unwrap().bytes.len() as u32;
        for span in node.args.iter().map(|word| word.span).chain([node.name.span, node.span]) {
            assert!(span.start <= span.end && span.end <= length, "{span:?} of {length}");
        }
        if let Some(block) = &node.block {
            spans_are_inside(tree, block);
        }
    }
}

fn walk(scope: &Scope<'_>) {
    scope.get(&toy::KEEPALIVE_REQUESTS);
    scope.get(&toy::ROOT);
    scope.all(&toy::ADD_HEADER);
    scope.rows(&toy::TYPES);
    for child in scope.children() {
        if let Some(inner) = child.scope {
            walk(&inner);
        }
    }
}

/// Pieces that mean something to the lexer, in any order.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        ";",
        "{",
        "}",
        "\"",
        "'",
        "\\",
        "$",
        "#",
        "\n",
        " ",
        "\r\n",
        "\t",
        ")",
        "${",
        "a",
        "é",
        "\0",
        "http",
        "server",
        "types",
        "include",
        "one",
        "root",
        "add_header",
        "events",
        "location",
        "upstream",
        "keepalive_requests",
        "1",
        "\u{feff}",
        "x.conf",
    ]);
    prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat().into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_survived(text in prop::collection::vec(any::<u8>(), 0..3000)) {
        survive(&text);
    }

    #[test]
    fn arbitrary_pieces_are_survived(text in pieces()) {
        survive(&text);
    }

    #[test]
    fn long_words_are_survived(
        text in pieces(),
        at in any::<prop::sample::Index>(),
        length in 4000_usize..9000,
    ) {
        let mut text = text;
        let at = at.index(text.len() + 1);
        text.splice(at..at, std::iter::repeat_n(b'x', length));
        survive(&text);
    }

    #[test]
    fn words_come_back_from_their_quotes(words in prop::collection::vec(any::<Vec<u8>>(), 1..5)) {
        let mut text = b"name".to_vec();
        for word in &words {
            text.extend_from_slice(b" \"");
            for &byte in word {
                if matches!(byte, b'"' | b'\\') {
                    text.push(b'\\');
                }
                text.push(byte);
            }
            text.push(b'"');
        }
        text.push(b';');
        let files = MemoryFiles::new().with("/x.conf", text);
        let (tree, found) = config::parse(&files, "/x.conf".as_ref(), "/".as_ref(), &[]);
        prop_assert_eq!(found, vec![]);
        let read: Vec<_> = tree.root.nodes[0].args.iter().map(|word| word.text.clone()).collect();
        prop_assert_eq!(read, words);
    }

    #[test]
    fn raw_parsers_survive(
        word in any::<Vec<u8>>(),
        digits in "[0-9]{0,25}[a-zA-Z ]{0,3}[0-9]{0,25}",
    ) {
        for word in [word.as_slice(), digits.as_bytes()] {
            let _ = config::Template::parse(word);
            let _ = config::read::parse_time_ms(word);
            let _ = config::read::parse_time_s(word);
            let _ = config::read::parse_offset(word);
            let _ = config::read::parse_size(word);
            let _ = config::read::parse_number(word);
        }
    }
}
