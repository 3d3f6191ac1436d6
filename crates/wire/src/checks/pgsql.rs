//! PostgreSQL: a startup message, and a query when the server lets us in without a password.
//! (PostgreSQL documentation, "Frontend/Backend Protocol".)

use super::{Dialogue, Turn, shown};

/// Protocol 3.0.
const PROTOCOL: i32 = 3 << 16;
/// The account of a check that names none.
const STRANGER: &str = "heng";

const AUTHENTICATION: u8 = b'R';
const ERROR: u8 = b'E';
const READY: u8 = b'Z';
const COMPLETE: u8 = b'C';

/// `Terminate`.
const FAREWELL: [u8; 5] = [b'X', 0, 0, 0, 4];

/// Stages.
const STARTED: u8 = 0;
const LET_IN: u8 = 1;
const ASKED: u8 = 2;

pub(super) fn startup(user: Option<&str>) -> Vec<u8> {
    let mut message = vec![0; 4];
    message.extend_from_slice(&PROTOCOL.to_be_bytes());
    let user: String = user.unwrap_or(STRANGER).chars().filter(|c| *c != '\0').collect();
    for text in ["user", &user, "database", "postgres", "application_name", "heng"] {
        message.extend_from_slice(text.as_bytes());
        message.push(0);
    }
    message.push(0);
    let length = message.len() as u32;
    message[..4].copy_from_slice(&length.to_be_bytes());
    message
}

fn query() -> Vec<u8> {
    let mut message = vec![b'Q'];
    let text = b"SELECT 1\0";
    message.extend_from_slice(&(4 + text.len() as u32).to_be_bytes());
    message.extend_from_slice(text);
    message
}

pub(super) fn turn(dialogue: &mut Dialogue) -> Turn {
    let Some(&[kind, a, b, c, d]) = dialogue.input.first_chunk() else { return Turn::MORE };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length < 4 {
        return Turn::failed("the server sent a broken message");
    }
    if dialogue.input.len() < 1 + length {
        return Turn::MORE;
    }
    let message = dialogue.consume(1 + length);
    let body = &message[5..];
    match (dialogue.stage, kind) {
        // Whether there is such a role is looked up after it was let in.
        (STARTED | LET_IN, ERROR) => refused(dialogue, body),
        (_, ERROR) => Turn::failed(format!("the server says {}", shown(text_of(body)))),
        (STARTED, AUTHENTICATION) => match body.first_chunk::<4>() {
            Some([0, 0, 0, 0]) => {
                dialogue.stage = LET_IN;
                Turn::Again
            }
            // It asks for a password, so a process of the server looked at our login.
            Some(_) => Turn::passed(&FAREWELL),
            None => Turn::failed("the server sent a broken message"),
        },
        (LET_IN, READY) => {
            dialogue.stage = ASKED;
            Turn::send(query())
        }
        (ASKED, COMPLETE) => Turn::passed(&FAREWELL),
        (STARTED, _) => Turn::failed("the server sent an unexpected message"),
        // Parameters, keys, notices, rows.
        _ => Turn::Again,
    }
}

/// An error as the answer to the login. Class 28 refuses the account, 3D its database: a server
/// that works says so to strangers.
fn refused(dialogue: &Dialogue, body: &[u8]) -> Turn {
    let code = field(body, b'C').unwrap_or_default();
    let refuses = code.starts_with(b"28") || code.starts_with(b"3D");
    if dialogue.user.is_none() && refuses {
        return Turn::passed(b"");
    }
    Turn::failed(format!("the server says {}: {}", shown(code), shown(text_of(body))))
}

fn text_of(body: &[u8]) -> &[u8] {
    field(body, b'M').unwrap_or_default()
}

/// A field of an error: a letter and a text that a zero ends.
fn field(body: &[u8], letter: u8) -> Option<&[u8]> {
    let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&letter))?;
    Some(&found[1..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Progress, Protocol};

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind];
        message.extend_from_slice(&(4 + body.len() as u32).to_be_bytes());
        message.extend_from_slice(body);
        message
    }

    fn after(user: Option<&str>, answers: &[(u8, &[u8])]) -> Progress {
        let mut dialogue = Dialogue::new(Protocol::Pgsql, user);
        dialogue.begin(&[0; 64]);
        let all: Vec<u8> = answers.iter().flat_map(|(kind, body)| message(*kind, body)).collect();
        dialogue.receive(&all)
    }

    #[test]
    fn one_that_lets_in_must_answer_a_query() {
        let mut dialogue = Dialogue::new(Protocol::Pgsql, Some("u"));
        let startup = dialogue.begin(&[0; 64]);
        assert_eq!(startup[..8], [0, 0, 0, startup.len() as u8, 0, 3, 0, 0]);
        let mut said = message(b'R', &[0; 4]);
        said.extend(message(b'S', b"server_version\x0015\0"));
        said.extend(message(b'Z', b"I"));
        let (first, second) = said.split_at(11);
        assert_eq!(dialogue.receive(first), Progress::More);
        assert_eq!(dialogue.receive(second), Progress::Send(query()));
        let mut said = message(b'T', b"..");
        said.extend(message(b'C', b"SELECT 1\0"));
        assert_eq!(dialogue.receive(&said), Progress::Passed(FAREWELL.to_vec()));
    }

    #[test]
    fn refusals() {
        let denied: &[u8] = b"SFATAL\0C28000\0Mno such role\0\0";
        let starting: &[u8] = b"SFATAL\0C57P03\0Mstarting up\0\0";
        assert_eq!(after(None, &[(b'R', &[0, 0, 0, 10])]), Progress::Passed(FAREWELL.to_vec()));
        let let_in: (u8, &[u8]) = (b'R', &[0; 4]);
        assert_eq!(after(None, &[(b'E', denied)]), Progress::Passed(Vec::new()));
        assert_eq!(after(None, &[let_in, (b'E', denied)]), Progress::Passed(Vec::new()));
        assert_eq!(
            after(Some("u"), &[(b'E', denied)]),
            Progress::Failed("the server says 28000: no such role".to_owned())
        );
        assert!(matches!(after(None, &[(b'E', starting)]), Progress::Failed(_)));
        assert!(matches!(after(None, &[(b'S', b"")]), Progress::Failed(_)));
    }
}
