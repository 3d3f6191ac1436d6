//! The textual form of certificates, keys and revocation lists (RFC 7468): sections of base64
//! between two lines that name what they are.

/// One section.
pub(crate) struct Section<'a> {
    /// What it is: `CERTIFICATE`, `PRIVATE KEY`.
    pub(crate) label: &'a str,
    /// Lines such as `DEK-Info: AES-256-CBC,...` (RFC 1421), as name and value.
    pub(crate) headers: Vec<(&'a str, &'a str)>,
    pub(crate) bytes: Vec<u8>,
}

/// All sections of a text in order. One that is broken ends them with an error.
pub(crate) fn sections(text: &[u8]) -> impl Iterator<Item = Result<Section<'_>, ()>> {
    let mut lines = text.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        let label = lines.find_map(|line| boundary(line, "-----BEGIN "))?;
        let section = section(label, &mut lines);
        over = section.is_err();
        Some(section)
    })
}

fn boundary<'a>(line: &'a [u8], begin: &str) -> Option<&'a str> {
    let name = line.strip_prefix(begin.as_bytes())?.strip_suffix(b"-----")?;
    std::str::from_utf8(name).ok()
}

fn section<'a>(
    label: &'a str,
    lines: &mut impl Iterator<Item = &'a [u8]>,
) -> Result<Section<'a>, ()> {
    let mut headers = Vec::new();
    let mut base64 = Vec::new();
    for line in lines {
        if let Some(end) = boundary(line, "-----END ") {
            let bytes = if end == label { decode(&base64) } else { None };
            return bytes.map(|bytes| Section { label, headers, bytes }).ok_or(());
        }
        match line.iter().position(|byte| *byte == b':') {
            Some(at) => {
                let text = std::str::from_utf8(line).map_err(drop)?;
                headers.push((text[..at].trim(), text[at + 1..].trim()));
            }
            None => base64.extend_from_slice(line),
        }
    }
    Err(())
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes of base64 (RFC 4648 section 4); `None` when it is none.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let ([text @ .., b'=', b'='] | [text @ .., b'='] | text) = text;
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0_u32, 0);
    for &letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    (count != 6).then_some(bytes)
}

/// Base64 with the letters of RFC 4648 section 4, in one line.
pub fn base64(bytes: &[u8]) -> String {
    let mut base64 = String::with_capacity(bytes.len() * 4 / 3 + 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let bits = bits << (8 * (3 - three.len()));
        for i in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * i) & 63) as usize];
            base64.push(if i > three.len() { '=' } else { char::from(letter) });
        }
    }
    base64
}

/// A certificate's section, with lines of 64 letters as OpenSSL writes them.
pub(crate) fn write_certificate(der: &[u8]) -> String {
    let base64 = base64(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 2, 3, 47, 48, 49, 200] {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let text = format!("words\n{}more words", write_certificate(&bytes));
            let read: Vec<_> = sections(text.as_bytes()).map(|s| s.unwrap().bytes).collect();
            assert_eq!(read, [bytes]);
        }
    }

    #[test]
    fn headers_and_faults() {
        let text = b"-----BEGIN KEY-----\nDEK-Info: AES,01\n\nAAEC\n-----END KEY-----\n";
        let section = sections(text).next().unwrap().unwrap();
        assert_eq!((section.label, &section.headers[..]), ("KEY", &[("DEK-Info", "AES,01")][..]));
        assert_eq!(section.bytes, [0, 1, 2]);
        for bad in ["A\n-----END KEY-----", "A*==\n-----END KEY-----"] {
            let text = format!("-----BEGIN KEY-----\n{bad}");
            assert!(sections(text.as_bytes()).next().unwrap().is_err(), "{bad}");
        }
        assert!(sections(b"nothing").next().is_none());
    }
}
