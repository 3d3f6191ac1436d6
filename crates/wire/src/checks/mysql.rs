//! MySQL and MariaDB: the handshake of protocol 10, a login, and a ping.
//!
//! ```text
//! server: greeting   client: login   server: OK -> ping -> OK
//!                                            another method -> nothing as password -> OK or ERR
//!                                            ERR
//! ```
//! (MySQL internals manual, "Connection Phase" and "Command Phase".)

use super::{Dialogue, Turn, shown};

/// `CLIENT_PROTOCOL_41 | CLIENT_SECURE_CONNECTION | CLIENT_PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x0000_0200 | 0x0000_8000 | 0x0008_0000;
const MAX_PACKET: u32 = 1 << 24;
/// utf8_general_ci.
const CHARSET: u8 = 33;

const OK: u8 = 0x00;
const MORE_DATA: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERR: u8 = 0xff;
/// The only version of the protocol that is in use.
const VERSION: u8 = 10;

/// `COM_QUIT` and `COM_PING` with their packet headers.
const QUIT: [u8; 5] = [1, 0, 0, 0, 0x01];
const PING: [u8; 5] = [1, 0, 0, 0, 0x0e];

/// Errors by which a server that works refuses a stranger: access denied to a database, to an
/// account, without a password; a method of authentication that the client lacks.
const REFUSALS: [u16; 4] = [1044, 1045, 1698, 1251];

/// Stages.
const GREETING: u8 = 0;
const LOGIN: u8 = 1;
const PINGED: u8 = 2;

pub(super) fn turn(dialogue: &mut Dialogue) -> Turn {
    let Some(&[a, b, c, sequence]) = dialogue.input.first_chunk() else { return Turn::MORE };
    let length = u32::from_le_bytes([a, b, c, 0]) as usize;
    if dialogue.input.len() < 4 + length {
        return Turn::MORE;
    }
    let packet = dialogue.consume(4 + length);
    let payload = &packet[4..];
    let Some(&kind) = payload.first() else { return Turn::failed("the server sent no message") };
    if kind == ERR {
        return refused(dialogue, &payload[1..]);
    }
    match (dialogue.stage, kind) {
        (GREETING, VERSION) => {
            dialogue.stage = LOGIN;
            Turn::send(login(dialogue.user.as_deref().unwrap_or(""), sequence.wrapping_add(1)))
        }
        (LOGIN, OK) => {
            dialogue.stage = PINGED;
            Turn::send(PING.to_vec())
        }
        // The account wants another method: its answer for no password is nothing.
        (LOGIN, SWITCH) => Turn::send(vec![0, 0, 0, sequence.wrapping_add(1)]),
        (LOGIN, MORE_DATA) => Turn::Again,
        (PINGED, OK) => Turn::passed(&QUIT),
        _ => Turn::failed("the server sent an unexpected message"),
    }
}

/// An error packet: its number, perhaps `#` and five characters of state, its text.
fn refused(dialogue: &Dialogue, rest: &[u8]) -> Turn {
    let Some((number, text)) = rest.split_first_chunk::<2>() else {
        return Turn::failed("the server sent a broken error");
    };
    let number = u16::from_le_bytes(*number);
    if dialogue.stage == LOGIN && dialogue.user.is_none() && REFUSALS.contains(&number) {
        return Turn::passed(b"");
    }
    let text = match text {
        [b'#', rest @ ..] if rest.len() >= 5 => &rest[5..],
        text => text,
    };
    Turn::failed(format!("the server says {number}: {}", shown(text)))
}

/// A handshake response for an account without a password.
fn login(user: &str, sequence: u8) -> Vec<u8> {
    let mut packet = vec![0, 0, 0, sequence];
    packet.extend_from_slice(&CAPABILITIES.to_le_bytes());
    packet.extend_from_slice(&MAX_PACKET.to_le_bytes());
    packet.push(CHARSET);
    packet.extend_from_slice(&[0; 23]);
    packet.extend(user.bytes().filter(|byte| *byte != 0));
    // The end of the name, and a password of no length.
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(b"mysql_native_password\0");
    let length = (packet.len() - 4) as u32;
    packet[..3].copy_from_slice(&length.to_le_bytes()[..3]);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Progress, Protocol};

    fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![payload.len() as u8, 0, 0, sequence];
        packet.extend_from_slice(payload);
        packet
    }

    fn error(sequence: u8, number: u16) -> Vec<u8> {
        let mut payload = vec![ERR];
        payload.extend_from_slice(&number.to_le_bytes());
        payload.extend_from_slice(b"#28000Access denied");
        packet(sequence, &payload)
    }

    fn greeted(user: Option<&str>) -> Dialogue {
        let mut dialogue = Dialogue::new(Protocol::Mysql, user);
        assert!(dialogue.begin(&[0; 64]).is_empty());
        assert_eq!(dialogue.receive(&packet(0, b"\x0a5.5.5-10.11\0")[..6]), Progress::More);
        let Progress::Send(login) = dialogue.receive(&packet(0, b"\x0a5.5.5-10.11\0")[6..]) else {
            panic!("no login");
        };
        assert_eq!((login[3], login.len() - 4), (1, usize::from(login[0])));
        dialogue
    }

    #[test]
    fn a_login_and_a_ping_pass() {
        let mut dialogue = greeted(Some("monitor"));
        assert_eq!(
            dialogue.receive(&packet(2, b"\xfemysql_native_password\0x")),
            Progress::Send(vec![0, 0, 0, 3])
        );
        assert_eq!(dialogue.receive(&packet(4, b"\x00\0\0")), Progress::Send(PING.to_vec()));
        assert_eq!(dialogue.receive(&packet(1, b"\x00\0\0")), Progress::Passed(QUIT.to_vec()));
    }

    #[test]
    fn refusals_prove_life_only_for_strangers() {
        assert_eq!(greeted(None).receive(&error(2, 1045)), Progress::Passed(Vec::new()));
        assert_eq!(
            greeted(Some("monitor")).receive(&error(2, 1045)),
            Progress::Failed("the server says 1045: Access denied".to_owned())
        );
        assert!(matches!(greeted(None).receive(&error(2, 1040)), Progress::Failed(_)));
        let mut blocked = Dialogue::new(Protocol::Mysql, None);
        assert!(matches!(blocked.receive(&error(0, 1129)), Progress::Failed(_)));
    }
}
