//! Answers in other protocols, made HTTP/1 while they are read.
//!
//! What comes out is a head of HTTP/1 and behind it the body as it is: whoever reads answers knows
//! one protocol.

use session::log::Bytes;
use std::rc::Rc;
use wire::gateway::fastcgi::{Decoder, Event};
use wire::gateway::head;
use wire::gateway::memcached::{self, Rewriter};

/// Complaints of a program that are logged of what is read at a time, and their longest length.
const MOST_COMPLAINTS: usize = 32;
const LONGEST_COMPLAINT: usize = 2048;

/// Turns one answer into HTTP/1.
pub(super) struct Translator {
    kind: Kind,
    /// The head as far as it was received; `None` behind it.
    head: Option<Vec<u8>>,
    /// Longest head.
    longest: usize,
    /// Nothing more belongs to the answer.
    is_over: bool,
    /// The connection stays open behind an answer that is over.
    keeps: bool,
    /// What is wrong without making the answer invalid, and not logged yet.
    complaints: Vec<String>,
}

enum Kind {
    FastCgi {
        decoder: Decoder,
        catch: Rc<[Box<[u8]>]>,
    },
    /// SCGI and uwsgi: an answer in the manner of CGI until the connection closes.
    Cgi,
    Memcached(Rewriter),
}

/// An answer that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Why, in nginx's words.
    Invalid(String),
    /// The head is too long.
    TooBig,
}

impl Translator {
    pub(super) fn fastcgi(keeps: bool, catch: Rc<[Box<[u8]>]>, longest: usize) -> Translator {
        Translator::new(Kind::FastCgi { decoder: Decoder::default(), catch }, keeps, longest)
    }

    pub(super) fn cgi(longest: usize) -> Translator {
        Translator::new(Kind::Cgi, false, longest)
    }

    pub(super) fn memcached(key: Vec<u8>, gzip_flag: u32, longest: usize) -> Translator {
        Translator::new(Kind::Memcached(Rewriter::new(key, gzip_flag)), true, longest)
    }

    fn new(kind: Kind, keeps: bool, longest: usize) -> Translator {
        let head = Some(Vec::new());
        Translator { kind, head, longest, is_over: false, keeps, complaints: Vec::new() }
    }

    /// True when nothing more belongs to the answer.
    pub(super) fn is_over(&self) -> bool {
        self.is_over
    }

    /// True when the connection could be used again, once the answer is over.
    pub(super) fn keeps(&self) -> bool {
        self.keeps
    }

    /// What is to be logged since this was asked last.
    pub(super) fn take_complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }

    /// Appends what `input` says.
    ///
    /// # Errors
    /// An answer that is none.
    pub(super) fn translate(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        match &mut self.kind {
            Kind::FastCgi { .. } => self.records(input, out),
            Kind::Cgi => self.text(input, out),
            Kind::Memcached(rewriter) => {
                self.head = None;
                match rewriter.rewrite(input, out) {
                    Ok(()) => self.is_over = rewriter.is_over(),
                    Err(memcached::Bad::Line) => {
                        return Err(Fault::Invalid("memcached sent invalid response".to_owned()));
                    }
                    Err(memcached::Bad::Trailer) => {
                        // The item is good, the connection is not.
                        self.complaints.push("memcached sent invalid trailer".to_owned());
                        self.is_over = true;
                        self.keeps = false;
                    }
                }
                Ok(())
            }
        }
    }

    fn records(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut at = 0;
        loop {
            let Kind::FastCgi { decoder, catch } = &mut self.kind else { return Ok(()) };
            if self.is_over {
                // Behind the end of the request there is nothing.
                self.keeps &= at == input.len();
                return Ok(());
            }
            let event = decoder.next(input, &mut at).map_err(|bad| Fault::Invalid(bad.to_string()));
            match event? {
                Event::Stdout(range) => self.text(&input[range], out)?,
                Event::Stderr(range) => {
                    let text = &input[range];
                    let has = |word: &[u8]| memchr::memmem::find(text, word).is_some();
                    let is_caught = self.head.is_some() && catch.iter().any(|word| has(word));
                    if self.complaints.len() < MOST_COMPLAINTS {
                        self.complaints.push(complaint(text));
                    }
                    if is_caught {
                        return Err(Fault::Invalid(String::new()));
                    }
                }
                Event::StdoutEnd if self.head.is_some() => {
                    let message = "upstream prematurely closed FastCGI stdout";
                    return Err(Fault::Invalid(message.to_owned()));
                }
                Event::StdoutEnd => {}
                Event::End if self.head.is_some() => {
                    let message = "upstream prematurely closed FastCGI request";
                    return Err(Fault::Invalid(message.to_owned()));
                }
                Event::End => self.is_over = true,
                Event::NeedMore => return Ok(()),
            }
        }
    }

    /// A part of an answer in the manner of CGI.
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        let Some(head) = &mut self.head else {
            out.extend_from_slice(text);
            return Ok(());
        };
        head.extend_from_slice(text);
        match head::rewrite(head, out) {
            Ok(Some(length)) if length <= self.longest => {
                out.extend_from_slice(&head[length..]);
                self.head = None;
                Ok(())
            }
            Ok(None) if head.len() < self.longest => Ok(()),
            Ok(_) => Err(Fault::TooBig),
            Err(head::Bad::Status(status)) => {
                let status = String::from_utf8_lossy(&status).into_owned();
                Err(Fault::Invalid(format!("upstream sent invalid status \"{status}\"")))
            }
        }
    }
}

/// What is logged of a complaint: no line end and no full stop behind it.
fn complaint(text: &[u8]) -> String {
    let end = text.iter().rposition(|byte| !b"\r\n. ".contains(byte)).map_or(0, |at| at + 1);
    let text = Bytes(&text[..end.min(LONGEST_COMPLAINT)]);
    format!("FastCGI sent in stderr: \"{text}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_end_in_no_full_stop() {
        assert_eq!(complaint(b"oh no. \r\n"), "FastCGI sent in stderr: \"oh no\"");
        assert_eq!(complaint(b"..."), "FastCGI sent in stderr: \"\"");
    }

    #[test]
    fn heads_are_bounded() {
        let check = |text: &[u8], expected| {
            let mut translator = Translator::cgi(10);
            let mut out = Vec::new();
            assert_eq!(translator.translate(text, &mut out).err(), expected);
        };
        check(b"A: b\n\n", None);
        check(b"A: b\n", None);
        check(b"A: bcdefghijk\n\n", Some(Fault::TooBig));
        check(b"A: bcdefghijk", Some(Fault::TooBig));
        check(b"Status: x", None);
    }
}
