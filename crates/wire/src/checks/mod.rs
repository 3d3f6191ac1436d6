//! Short conversations that prove that a server of some protocol is at work: health checks.
//!
//! A greeting proves little, as a listener whose service hangs may still greet. So each
//! conversation goes on until the server has answered something that it was asked.
//!
//! Sans-io: [`Dialogue::begin`] says what to send first, [`Dialogue::receive`] takes what came and
//! says how to go on. How long to wait is the caller's business.
//!
//! | file | protocol | passes when |
//! |---|---|---|
//! | `mysql.rs` | MySQL, MariaDB | a login is answered; with a user also a ping |
//! | `pgsql.rs` | PostgreSQL | a login is answered; when it is let in also a query |
//! | `redis.rs` | Redis, Valkey | `PING` is answered |
//! | `smtp.rs` | SMTP (RFC 5321) | `EHLO` is answered after a greeting |
//! | `ssl_hello.rs` | TLS (RFC 8446) | a ClientHello is answered by a ServerHello |

mod mysql;
mod pgsql;
mod redis;
mod smtp;
mod ssl_hello;

/// The most that a server may say during a check, in bytes.
pub const INPUT_MAX: usize = 16 * 1024;

/// The protocols that can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Mysql,
    Pgsql,
    Redis,
    Smtp,
    SslHello,
}

/// How a conversation goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is complete yet: receive more.
    More,
    /// Send this, then receive.
    Send(Vec<u8>),
    /// The server is at work; send this farewell, if any, and close.
    Passed(Vec<u8>),
    /// The server is not at work, and why.
    Failed(String),
}

/// One conversation.
#[derive(Debug)]
pub struct Dialogue {
    protocol: Protocol,
    /// The account to log in with, where the protocol has accounts.
    user: Option<Box<str>>,
    /// Counts what was sent; its meaning is the protocol's.
    stage: u8,
    input: Vec<u8>,
}

impl Dialogue {
    /// A conversation that did not begin yet. With a `user` a login must succeed; without one it
    /// is enough that the server refuses it in good order.
    pub fn new(protocol: Protocol, user: Option<&str>) -> Dialogue {
        Dialogue { protocol, user: user.map(Into::into), stage: 0, input: Vec::new() }
    }

    /// What to send first; empty where the server speaks first. `random` are 64 unpredictable
    /// bytes for the protocols that want some.
    pub fn begin(&mut self, random: &[u8; 64]) -> Vec<u8> {
        match self.protocol {
            Protocol::Mysql | Protocol::Smtp => Vec::new(),
            Protocol::Pgsql => pgsql::startup(self.user.as_deref()),
            Protocol::Redis => redis::PING.to_vec(),
            Protocol::SslHello => ssl_hello::client_hello(random),
        }
    }

    /// Takes what was received; empty for the end of the stream.
    pub fn receive(&mut self, bytes: &[u8]) -> Progress {
        if bytes.is_empty() {
            return Progress::Failed("the server closed the connection".to_owned());
        }
        if self.input.len() + bytes.len() > INPUT_MAX {
            return Progress::Failed("the server says too much".to_owned());
        }
        self.input.extend_from_slice(bytes);
        loop {
            let turn = match self.protocol {
                Protocol::Mysql => mysql::turn(self),
                Protocol::Pgsql => pgsql::turn(self),
                Protocol::Redis => redis::turn(self),
                Protocol::Smtp => smtp::turn(self),
                Protocol::SslHello => ssl_hello::turn(self),
            };
            match turn {
                Turn::Again => {}
                Turn::Do(progress) => return progress,
            }
        }
    }

    /// Removes the first `length` bytes of the input.
    fn consume(&mut self, length: usize) -> Vec<u8> {
        let rest = self.input.split_off(length.min(self.input.len()));
        std::mem::replace(&mut self.input, rest)
    }

    /// Takes a line without its end, LF or CR LF.
    fn line(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.input)?;
        let mut line = self.consume(end + 1);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        Some(line)
    }
}

/// What looking at one message came to.
enum Turn {
    /// It was taken; look at the next one.
    Again,
    Do(Progress),
}

impl Turn {
    const MORE: Turn = Turn::Do(Progress::More);

    fn send(bytes: Vec<u8>) -> Turn {
        Turn::Do(Progress::Send(bytes))
    }

    fn passed(farewell: &[u8]) -> Turn {
        Turn::Do(Progress::Passed(farewell.to_vec()))
    }

    fn failed(reason: impl Into<String>) -> Turn {
        Turn::Do(Progress::Failed(reason.into()))
    }
}

/// What a server said, as a short and printable text.
fn shown(bytes: &[u8]) -> String {
    let short = &bytes[..bytes.len().min(120)];
    String::from_utf8_lossy(short).chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Protocol; 5] =
        [Protocol::Mysql, Protocol::Pgsql, Protocol::Redis, Protocol::Smtp, Protocol::SslHello];

    proptest! {
        #[test]
        fn nothing_that_a_server_says_panics(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            user in prop::option::of("[a-z]{0,8}"),
        ) {
            for protocol in ALL {
                let mut dialogue = Dialogue::new(protocol, user.as_deref());
                dialogue.begin(&[7; 64]);
                for piece in &pieces {
                    let progress = dialogue.receive(piece);
                    if matches!(progress, Progress::Failed(_) | Progress::Passed(_)) {
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn an_endless_speaker_fails() {
        for protocol in ALL {
            let mut dialogue = Dialogue::new(protocol, None);
            dialogue.begin(&[0; 64]);
            let verdict = (0..20)
                .map(|_| dialogue.receive(&[b'2'; 1024]))
                .find(|progress| matches!(progress, Progress::Failed(_)));
            assert!(verdict.is_some(), "{protocol:?}");
            assert!(matches!(Dialogue::new(protocol, None).receive(b""), Progress::Failed(_)));
        }
    }
}
