//! SMTP: a greeting of 220, then `EHLO` answered with 250 (RFC 5321 sections 3.1 and 4.1.1.1).

use super::{Dialogue, Turn, shown};

const HELLO: &[u8] = b"EHLO heng.invalid\r\n";
const QUIT: &[u8] = b"QUIT\r\n";

/// Stages.
const GREETING: u8 = 0;

pub(super) fn turn(dialogue: &mut Dialogue) -> Turn {
    let Some(line) = dialogue.line() else { return Turn::MORE };
    let wanted: &[u8] = if dialogue.stage == GREETING { b"220" } else { b"250" };
    if !line.starts_with(wanted) {
        return Turn::failed(format!("the server says \"{}\"", shown(&line)));
    }
    if line.get(3) == Some(&b'-') {
        // More lines of the same reply follow.
        return Turn::Again;
    }
    if dialogue.stage == GREETING {
        dialogue.stage += 1;
        return Turn::send(HELLO.to_vec());
    }
    Turn::passed(QUIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Progress, Protocol};

    #[test]
    fn a_greeting_alone_is_not_enough() {
        let mut dialogue = Dialogue::new(Protocol::Smtp, None);
        assert!(dialogue.begin(&[0; 64]).is_empty());
        assert_eq!(dialogue.receive(b"220-mail\r\n220 here\r"), Progress::More);
        assert_eq!(dialogue.receive(b"\n"), Progress::Send(HELLO.to_vec()));
        assert_eq!(dialogue.receive(b"250-mail\r\n"), Progress::More);
        assert_eq!(dialogue.receive(b"250 SIZE\r\n"), Progress::Passed(QUIT.to_vec()));
        for said in [&b"421 too busy\r\n"[..], b"554 no\r\n", b"hello\r\n"] {
            let mut dialogue = Dialogue::new(Protocol::Smtp, None);
            assert!(matches!(dialogue.receive(said), Progress::Failed(_)));
        }
    }
}
