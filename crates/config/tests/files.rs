//! Includes: from the disk and from memory, by name and by pattern, and how they go wrong.

mod toy;

use std::path::{Path, PathBuf};

use config::{DiskFiles, MemoryFiles, Tree, dump};
use toy::lines;

fn names(tree: &Tree) -> Vec<String> {
    tree.root.nodes.iter().map(|node| node.name.str().into_owned()).collect()
}

#[test]
fn includes_are_spliced_in_where_they_stand() {
    let files = MemoryFiles::new()
        .with("/etc/x/nginx.conf", "a; include sub/*.conf; include /abs; http { include one; } z;")
        .with("/etc/x/sub/2.conf", "two;")
        .with("/etc/x/sub/1.conf", "one; include one;")
        .with("/etc/x/sub/.no.conf", "no;")
        .with("/etc/x/sub/deep/3.conf", "no;")
        .with("/etc/x/one", "uno;")
        .with("/abs", "abs { in; }");
    let (tree, found) =
        config::parse(&files, "/etc/x/nginx.conf".as_ref(), "/p".as_ref(), &["g 1;".to_owned()]);
    assert_eq!(found, []);
    assert_eq!(names(&tree), ["g", "a", "one", "uno", "two", "abs", "http", "z"]);
    let http = tree.root.nodes[6].block.as_ref().unwrap();
    assert_eq!(http.nodes[0].name.str(), "uno");
    assert_eq!(tree.place(http.nodes[0].span), "/etc/x/one:1");
    assert_eq!(tree.place(tree.root.nodes[0].span), "command line");
    let text = String::from_utf8(dump(&tree)).unwrap();
    let expected = "# configuration file /etc/x/nginx.conf:\n\
        a; include sub/*.conf; include /abs; http { include one; } z;\n\
        # configuration file /etc/x/sub/1.conf:\none; include one;\n\
        # configuration file /etc/x/one:\nuno;\n\
        # configuration file /etc/x/sub/2.conf:\ntwo;\n\
        # configuration file /abs:\nabs { in; }\n";
    assert_eq!(text, expected);
}

#[test]
fn a_file_cannot_close_the_block_of_another() {
    let check = |text: &str, beside: &[(&str, &str)], expected: &[&str]| {
        assert_eq!(lines(text.as_bytes(), beside, &[]), expected, "{text}");
    };
    check(
        "http { include a; }",
        &[("a", "root x; }")],
        &["[emerg] unexpected \"}\" in /etc/x/a:1"],
    );
    check(
        "http { include a; }\nfoo;",
        &[("a", "\nserver {")],
        &[
            "[emerg] unexpected end of file, expecting \"}\" in /etc/x/a:2",
            "[emerg] unknown directive \"foo\" in /etc/x/nginx.conf:2",
        ],
    );
    check(
        "http {\n include a;\n include a;\n bar; }",
        &[("a", "foo;")],
        &[
            "[emerg] unknown directive \"foo\" in /etc/x/a:1",
            "[emerg] unknown directive \"bar\" in /etc/x/nginx.conf:4",
        ],
    );
    check(
        "include a;",
        &[("a", "include b;"), ("b", "\ninclude a;")],
        &["[emerg] \"/etc/x/a\" includes itself in /etc/x/b:2"],
    );
    check(
        "include nginx.conf;",
        &[],
        &["[emerg] \"/etc/x/nginx.conf\" includes itself in /etc/x/nginx.conf:1"],
    );
    check(
        "types x;\ninclude \"\";",
        &[],
        &[
            "[emerg] \"types\" directive is not allowed here in /etc/x/nginx.conf:1",
            "[emerg] open() \"/etc/x/\" failed (2: No such file or directory) in \
             /etc/x/nginx.conf:2",
        ],
    );
}

#[test]
fn a_missing_main_file_is_named_without_a_place() {
    let (tree, found) = config::parse(&MemoryFiles::new(), "n.conf".as_ref(), "/etc".as_ref(), &[]);
    assert_eq!(found.len(), 1);
    let line = found[0].first_line(&tree);
    assert_eq!(line, "open() \"/etc/n.conf\" failed (2: No such file or directory)");
}

#[test]
fn files_that_double_themselves_are_stopped() {
    let mut files = MemoryFiles::new();
    for level in 0..40 {
        let text = format!("include {0}; include {0};", level + 1);
        files.insert(format!("/{level}"), text);
    }
    files.insert("/40", "x;");
    let (tree, found) = config::parse(&files, "/0".as_ref(), "/".as_ref(), &[]);
    assert_eq!(found.len(), 1, "{:?}", found.first());
    assert!(found[0].first_line(&tree).starts_with("more than 100000 files are included in"));
}

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_disk_is_read_as_nginx_reads_it() {
    let path = std::env::temp_dir().join(format!("config-files-{}", std::process::id()));
    let directory = Directory(path.clone());
    std::fs::create_dir_all(path.join("d/e")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
    write("nginx.conf", "include ./d/*.c?nf; include d/[x-z]*; include no/*; include d/e;");
    write("d/b.conf", "b;");
    write("d/a.cxnf", "a;");
    write("d/.c.conf", "c;");
    write("d/y", "y;");
    let (tree, found) = config::parse(&DiskFiles, Path::new("nginx.conf"), &directory.0, &[]);
    assert_eq!(names(&tree), ["a", "b", "y"]);
    let lines: Vec<_> = found.iter().map(|one| one.first_line(&tree)).collect();
    let expected = format!("pread() \"{}/d/e\" failed (21: Is a directory)", path.display());
    assert_eq!(lines, [expected]);
    assert!(found[0].fatal);
    assert_eq!(tree.files[1].path.as_os_str(), path.join("./d/a.cxnf").as_os_str());
}
