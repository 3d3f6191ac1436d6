//! Programs behind FastCGI, SCGI and uwsgi, played by the test.

use std::collections::HashMap;
use testkit::{Backend, Conversation, ReadError};

/// The protocols, as names of directives begin.
pub(crate) const FAMILIES: [&str; 3] = ["fastcgi", "scgi", "uwsgi"];

/// A request as a program sees it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// Parameters in order.
    pub(crate) list: Vec<(String, String)>,
    /// The body.
    pub(crate) body: Vec<u8>,
    /// The first bytes of a uwsgi packet and of a FastCGI request: modifiers and flags.
    pub(crate) marks: (u8, u8),
    /// Which connection it came on, from 1.
    pub(crate) connection: usize,
}

impl Asked {
    /// The parameter of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A program that answers each request with a text in the manner of CGI.
pub(crate) fn program(
    family: &'static str,
    answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
) -> Backend {
    Backend::script(move |conversation| {
        while let Ok(asked) = read(family, conversation) {
            let text = answer(&asked);
            match family {
                "fastcgi" => {
                    for part in text.chunks(60_000) {
                        conversation.send(record(6, part));
                    }
                    conversation.send([record(6, b""), record(3, &[0; 8])].concat());
                    if asked.marks.0 == 0 {
                        return;
                    }
                }
                _ => {
                    conversation.send(text);
                    return;
                }
            }
        }
    })
}

/// A record of FastCGI.
pub(crate) fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    [&[1, kind, 0, 1, high, low, 0, 0][..], content].concat()
}

/// Reads one request.
pub(crate) fn read(family: &str, conversation: &mut Conversation) -> Result<Asked, ReadError> {
    let mut asked = Asked { connection: conversation.number, ..Asked::default() };
    match family {
        "fastcgi" => read_fastcgi(conversation, &mut asked)?,
        "scgi" => {
            let mut length = 0;
            loop {
                match conversation.read_exactly(1)?[0] {
                    b':' => break,
                    digit => length = length * 10 + usize::from(digit - b'0'),
                }
            }
            let text = conversation.read_exactly(length + 1)?;
            let words: Vec<String> = text[..length]
                .split(|byte| *byte == 0)
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect();
            asked.list = words.chunks_exact(2).map(|p| (p[0].clone(), p[1].clone())).collect();
            read_body(conversation, &mut asked)?;
        }
        _ => {
            let head = conversation.read_exactly(4)?;
            asked.marks = (head[0], head[3]);
            let length = usize::from(u16::from_le_bytes([head[1], head[2]]));
            let text = conversation.read_exactly(length)?;
            let (mut words, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let length = usize::from(u16::from_le_bytes([text[at], text[at + 1]]));
                words.push(String::from_utf8_lossy(&text[at + 2..at + 2 + length]).into_owned());
                at += 2 + length;
            }
            asked.list = words.chunks_exact(2).map(|p| (p[0].clone(), p[1].clone())).collect();
            read_body(conversation, &mut asked)?;
        }
    }
    Ok(asked)
}

fn read_body(conversation: &mut Conversation, asked: &mut Asked) -> Result<(), ReadError> {
    let names: HashMap<_, _> = asked.list.iter().cloned().collect();
    let length = names.get("CONTENT_LENGTH").and_then(|text| text.parse().ok()).unwrap_or(0);
    if length > 0 {
        asked.body = conversation.read_exactly(length)?;
    }
    Ok(())
}

fn read_fastcgi(conversation: &mut Conversation, asked: &mut Asked) -> Result<(), ReadError> {
    let mut parameters = Vec::new();
    loop {
        let head = conversation.read_exactly(8)?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let content = match length {
            0 => Vec::new(),
            _ => conversation.read_exactly(length)?,
        };
        match head[1] {
            1 => asked.marks = (content[2], content[1]),
            4 => parameters.extend(content),
            5 if content.is_empty() => break,
            5 => asked.body.extend(content),
            other => panic!("record of type {other}"),
        }
    }
    let mut rest = parameters.as_slice();
    while !rest.is_empty() {
        let mut lengths = [0; 2];
        for length in &mut lengths {
            *length = match rest[0] {
                short @ 0..=127 => {
                    rest = &rest[1..];
                    usize::from(short)
                }
                _ => {
                    let long = u32::from_be_bytes([rest[0] & 0x7f, rest[1], rest[2], rest[3]]);
                    rest = &rest[4..];
                    long as usize
                }
            };
        }
        let (name, tail) = rest.split_at(lengths[0]);
        let (value, tail) = tail.split_at(lengths[1]);
        rest = tail;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        asked.list.push((text(name), text(value)));
    }
    Ok(())
}
