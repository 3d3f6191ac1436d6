//! Entries of a folder as HTML, JSON and XML, byte for byte as nginx writes them, since programs
//! parse all three.

use super::folder::{Entry, Kind};
use std::io::Write;
use wire::http1::date::{civil, format};
use wire::http1::escape::{Escape, escape_html, escape_uri};

/// How many characters of a name are shown in HTML; of a longer one three fewer, and `..>`.
const WIDTH: usize = 50;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// What a page shows besides the entries.
pub(super) struct Page<'a> {
    /// The path of the request.
    pub(super) uri: &'a [u8],
    /// The page is in UTF-8: a name is as wide as it has characters, not bytes.
    pub(super) utf8: bool,
    /// How far the shown times are ahead of UTC, in seconds.
    pub(super) ahead_s: i64,
    /// Sizes to the byte.
    pub(super) exact_size: bool,
}

/// Appends formatted text.
fn put(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory cannot fail.
    let _ = out.write_fmt(text);
}

/// Appends a page with the entries.
pub(super) fn html(entries: &[Entry], page: &Page<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"<html>\r\n<head><title>Index of ");
    escape_html(page.uri, out);
    out.extend_from_slice(b"</title></head>\r\n<body>\r\n<h1>Index of ");
    escape_html(page.uri, out);
    out.extend_from_slice(b"</h1><hr><pre><a href=\"../\">../</a>\r\n");
    for entry in entries {
        let is_folder = entry.kind == Kind::Folder;
        out.extend_from_slice(b"<a href=\"");
        escape_uri(&entry.name, Escape::UriComponent, out);
        out.extend_from_slice(if is_folder { b"/\">" } else { b"\">" });
        name(entry, page.utf8, out);
        let at = civil(entry.changed.saturating_add(page.ahead_s));
        let month = MONTHS[at.month as usize - 1];
        let (day, year, hour, minute) = (at.day, at.year, at.hour, at.minute);
        put(out, format_args!(" {day:02}-{month}-{year} {hour:02}:{minute:02} "));
        match (page.exact_size, is_folder) {
            (true, true) => put(out, format_args!("{:>19}", "-")),
            (true, false) => put(out, format_args!("{:>19}", entry.size)),
            (false, true) => put(out, format_args!("{:>7}", "-")),
            (false, false) => match rounded(entry.size) {
                (size, None) => put(out, format_args!("{size:>7}")),
                (size, Some(unit)) => put(out, format_args!("{size:>6}{unit}")),
            },
        }
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"</pre><hr></body>\r\n</html>\r\n");
}

/// The name as it is shown, the end of its link, and blanks up to the full width.
fn name(entry: &Entry, utf8: bool, out: &mut Vec<u8>) {
    let bytes = entry.name.as_slice();
    let text = if utf8 { std::str::from_utf8(bytes).ok() } else { None };
    let mut width = text.map_or(bytes.len(), |text| text.chars().count());
    if width > WIDTH {
        let shown = match text {
            Some(text) => text.char_indices().nth(WIDTH - 3).map_or(bytes.len(), |(at, _)| at),
            None => WIDTH - 3,
        };
        escape_html(&bytes[..shown], out);
        out.extend_from_slice(b"..&gt;</a>");
        return;
    }
    escape_html(bytes, out);
    if entry.kind == Kind::Folder && width < WIDTH {
        out.push(b'/');
        width += 1;
    }
    out.extend_from_slice(b"</a>");
    out.resize(out.len() + WIDTH - width, b' ');
}

/// A size in the unit that suits it, rounded to the nearest whole number of units.
fn rounded(size: u64) -> (u64, Option<char>) {
    let in_units = |unit: u64| size / unit + u64::from(size % unit > unit / 2 - 1);
    match size {
        0..=9999 => (size, None),
        10_000..0x10_0000 => (in_units(1 << 10), Some('K')),
        0x10_0000..0x4000_0000 => (in_units(1 << 20), Some('M')),
        _ => (in_units(1 << 30), Some('G')),
    }
}

/// What an entry is, in words.
fn kind(entry: &Entry) -> &'static str {
    match entry.kind {
        Kind::Folder => "directory",
        Kind::File => "file",
        Kind::Other => "other",
    }
}

/// Appends an array with the entries, as the argument of a call when `callback` is given.
pub(super) fn json(entries: &[Entry], callback: Option<&[u8]>, out: &mut Vec<u8>) {
    if let Some(name) = callback {
        out.extend_from_slice(b"/* callback */\r\n");
        out.extend_from_slice(name);
        out.push(b'(');
    }
    out.push(b'[');
    for (i, entry) in entries.iter().enumerate() {
        out.extend_from_slice(if i == 0 { b"" } else { b"," });
        out.extend_from_slice(b"\r\n{ \"name\":\"");
        escape_json(&entry.name, out);
        put(out, format_args!("\", \"type\":\"{}\", \"mtime\":\"", kind(entry)));
        out.extend_from_slice(&format(entry.changed));
        out.push(b'"');
        if entry.kind == Kind::File {
            put(out, format_args!(", \"size\":{}", entry.size));
        }
        out.extend_from_slice(b" }");
    }
    out.extend_from_slice(b"\r\n]");
    if callback.is_some() {
        out.extend_from_slice(b");");
    }
}

/// Appends `text` as the inside of a JSON string (RFC 8259 section 7).
fn escape_json(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => put(out, format_args!("\\u{byte:04X}")),
            _ => out.push(byte),
        }
    }
}

/// Appends a document with the entries.
pub(super) fn xml(entries: &[Entry], out: &mut Vec<u8>) {
    out.extend_from_slice(b"<?xml version=\"1.0\"?>\r\n<list>\r\n");
    for entry in entries {
        let (kind, at) = (kind(entry), civil(entry.changed));
        let (year, month, day) = (at.year, at.month, at.day);
        put(out, format_args!("<{kind} mtime=\"{year:4}-{month:02}-{day:02}T"));
        put(out, format_args!("{:02}:{:02}:{:02}Z\"", at.hour, at.minute, at.second));
        if entry.kind == Kind::File {
            put(out, format_args!(" size=\"{}\"", entry.size));
        }
        out.push(b'>');
        escape_html(&entry.name, out);
        put(out, format_args!("</{kind}>\r\n"));
    }
    out.extend_from_slice(b"</list>\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, kind: Kind, utf8: bool) -> String {
        let entry = Entry { name: text.as_bytes().to_vec(), kind, changed: 0, size: 0 };
        let mut out = Vec::new();
        name(&entry, utf8, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn names() {
        let check = |text: &str, kind: Kind, utf8: bool, expected: &str| {
            assert_eq!(shown(text, kind, utf8), expected, "{text}");
        };
        let of = |text: &str, count: usize| text.repeat(count);
        check("a", Kind::File, false, &format!("a</a>{}", of(" ", 49)));
        check("a", Kind::Folder, false, &format!("a/</a>{}", of(" ", 48)));
        check(&of("a", 49), Kind::Folder, false, &format!("{}/</a>", of("a", 49)));
        check(&of("a", 50), Kind::Folder, false, &format!("{}</a>", of("a", 50)));
        check(&of("a", 51), Kind::File, false, &format!("{}..&gt;</a>", of("a", 47)));
        check(&of("<", 51), Kind::File, false, &format!("{}..&gt;</a>", of("&lt;", 47)));
        check(&of("ф", 50), Kind::File, true, &format!("{}</a>", of("ф", 50)));
        check(&of("ф", 51), Kind::File, true, &format!("{}..&gt;</a>", of("ф", 47)));
        check("ф", Kind::File, false, &format!("ф</a>{}", of(" ", 48)));
    }

    #[test]
    fn sizes() {
        let check = |size: u64, expected: (u64, Option<char>)| {
            assert_eq!(rounded(size), expected, "{size}");
        };
        check(0, (0, None));
        check(9999, (9999, None));
        check(10_000, (10, Some('K')));
        check(10_751, (10, Some('K')));
        check(10_752, (11, Some('K')));
        check((1 << 20) - 1, (1024, Some('K')));
        check(1 << 20, (1, Some('M')));
        check(3 << 19, (2, Some('M')));
        check((1 << 30) - 1, (1024, Some('M')));
        check(1 << 30, (1, Some('G')));
        check(u64::MAX, (1 << 34, Some('G')));
    }

    #[test]
    fn json_strings() {
        let check = |text: &[u8], expected: &str| {
            let mut out = Vec::new();
            escape_json(text, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected);
        };
        check(b"a'<>&", "a'<>&");
        check(b"\\\"/", "\\\\\\\"/");
        check(b"\n\r\t\x08\x0c\x01\x1f\x7f", "\\n\\r\\t\\b\\f\\u0001\\u001F\x7f");
    }
}
