//! uwsgi requests: a packet of names and values, then the body
//! (uwsgi-docs.readthedocs.io/en/latest/Protocol.html).

/// Most bytes of parameters.
pub const MOST: usize = 65_535;

/// Writes the head of a request; `None` when there are more than [`MOST`] bytes of parameters.
/// `list` has them as [`push_parameter`] writes them.
pub fn head(modifiers: (u8, u8), list: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let [low, high] = u16::try_from(list.len()).ok()?.to_le_bytes();
    out.extend_from_slice(&[modifiers.0, low, high, modifiers.1]);
    out.extend_from_slice(list);
    Some(())
}

/// Appends a name and its value to a list of parameters, each cut to 65535 bytes.
pub fn push_parameter(name: &[u8], value: &[u8], list: &mut Vec<u8>) {
    for text in [name, value] {
        let text = &text[..text.len().min(MOST)];
        list.extend_from_slice(&(text.len() as u16).to_le_bytes());
        list.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_have_their_form() {
        let (mut list, mut out) = (Vec::new(), Vec::new());
        push_parameter(b"A", b"bc", &mut list);
        assert_eq!(head((5, 6), &list, &mut out), Some(()));
        assert_eq!(out, b"\x05\x07\x00\x06\x01\x00A\x02\x00bc");
        assert_eq!(head((0, 0), &vec![0; MOST + 1], &mut out), None);
    }
}
