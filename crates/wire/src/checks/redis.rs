//! Redis: `PING`, in the protocol's own form (RESP).

use super::{Dialogue, Turn, shown};

pub(super) const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
const QUIT: &[u8] = b"*1\r\n$4\r\nQUIT\r\n";

/// Errors of a server that works but wants to know who asks.
const REFUSALS: [&[u8]; 2] = [b"-NOAUTH ", b"-NOPERM "];

pub(super) fn turn(dialogue: &mut Dialogue) -> Turn {
    let Some(line) = dialogue.line() else { return Turn::MORE };
    if line == b"+PONG" || REFUSALS.iter().any(|refusal| line.starts_with(refusal)) {
        return Turn::passed(QUIT);
    }
    Turn::failed(format!("the server says \"{}\"", shown(&line)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Progress, Protocol};

    #[test]
    fn answers() {
        for (said, passes) in [
            (&b"+PONG\r\n"[..], true),
            (b"-NOAUTH Authentication required.\r\n", true),
            (b"-LOADING Redis is loading the dataset in memory\r\n", false),
            (b"+OK\r\n", false),
        ] {
            let mut dialogue = Dialogue::new(Protocol::Redis, None);
            assert_eq!(dialogue.begin(&[0; 64]), PING);
            assert_eq!(dialogue.receive(&said[..3]), Progress::More);
            let verdict = dialogue.receive(&said[3..]);
            assert_eq!(matches!(verdict, Progress::Passed(_)), passes, "{verdict:?}");
        }
    }
}
