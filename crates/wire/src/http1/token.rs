//! Comma-separated lists of tokens (RFC 9110 section 5.6.1), as in `Connection: close, te`.

/// True when the list holds `token`, compared without regard to ASCII case.
///
/// Only whole members count: `closed` and `not-close` are not `close`.
pub fn has_token(value: &[u8], token: &str) -> bool {
    tokens(value).any(|member| member.eq_ignore_ascii_case(token.as_bytes()))
}

/// The members of a list in order, without surrounding whitespace; empty ones are skipped.
pub fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|member| !member.is_empty())
}

/// Removes optional whitespace (space, tab) from both ends.
pub fn trim(value: &[u8]) -> &[u8] {
    let mut rest = value;
    while let [b' ' | b'\t', tail @ ..] = rest {
        rest = tail;
    }
    while let [head @ .., b' ' | b'\t'] = rest {
        rest = head;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_members_count() {
        let check = |value: &str, expected| {
            assert_eq!(has_token(value.as_bytes(), "close"), expected, "{value:?}");
        };
        check("close", true);
        check("Close", true);
        check("keep-alive, CLOSE", true);
        check("keep-alive ,\tclose\t, te", true);
        check(",,close,", true);
        check("closed", false);
        check("not-close", false);
        check("close keep-alive", false);
        check("\"close\"", false);
        check("close\u{b}", false);
        check("", false);
    }
}
