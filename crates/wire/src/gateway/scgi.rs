//! SCGI requests: a netstring of names and values, then the body (python.ca/scgi/protocol.txt).

/// Writes the head of a request whose body has `body` bytes. `list` has the other parameters as
/// [`push_parameter`] writes them.
pub fn head(body: u64, list: &[u8], out: &mut Vec<u8>) {
    let length = body.to_string();
    let mut first = Vec::with_capacity(24);
    push_parameter(b"CONTENT_LENGTH", length.as_bytes(), &mut first);
    out.extend_from_slice(format!("{}:", first.len() + list.len()).as_bytes());
    out.extend_from_slice(&first);
    out.extend_from_slice(list);
    out.push(b',');
}

/// Appends a name and its value to a list of parameters. A NUL would end them early, so it is
/// left out.
pub fn push_parameter(name: &[u8], value: &[u8], list: &mut Vec<u8>) {
    for text in [name, value] {
        list.extend(text.iter().filter(|byte| **byte != 0));
        list.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_form() {
        let (mut list, mut out) = (Vec::new(), Vec::new());
        push_parameter(b"SCGI", b"1", &mut list);
        push_parameter(b"A\0B", b"", &mut list);
        head(27, &list, &mut out);
        assert_eq!(out, b"29:CONTENT_LENGTH\x0027\0SCGI\x001\0AB\0\0,");
    }
}
