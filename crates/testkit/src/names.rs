//! A scripted DNS server, over UDP and TCP on one port of the loopback.
//!
//! A test sets what names have, and may change it while the server runs; what nobody set has no
//! records. Every question is kept.

use crate::ports::Port;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A scripted DNS server; it is gone when dropped.
pub struct NameServer {
    port: Port,
    book: Arc<Mutex<Book>>,
    threads: Vec<JoinHandle<()>>,
}

/// What the server knows and saw.
#[derive(Default)]
struct Book {
    records: BTreeMap<(String, u16), Vec<Vec<u8>>>,
    codes: BTreeMap<String, u8>,
    ttl_s: u32,
    silent: bool,
    truncates: bool,
    questions: Vec<String>,
    closing: bool,
}

const KINDS: &[(&str, u16)] = &[("A", 1), ("CNAME", 5), ("PTR", 12), ("AAAA", 28), ("SRV", 33)];

impl Default for NameServer {
    fn default() -> Self {
        NameServer::new()
    }
}

impl NameServer {
    /// A server that knows no name yet; its records live for an hour.
    pub fn new() -> NameServer {
        let (port, udp) = loop {
            let port = Port::reserve();
            if let Ok(udp) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port.number())) {
                break (port, udp);
            }
        };
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))
            .unwrap_or_else(|error| panic!("cannot listen on {port}: {error}"));
        let book = Arc::new(Mutex::new(Book { ttl_s: 3600, ..Book::default() }));
        let (one, other) = (book.clone(), book.clone());
        let threads = vec![
            std::thread::spawn(move || serve_udp(&udp, &one)),
            std::thread::spawn(move || serve_tcp(&tcp, &other)),
        ];
        NameServer { port, book, threads }
    }

    /// The port's number, the same for UDP and TCP.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    /// Gives a name all its records of a kind: `A`, `AAAA`, `CNAME`, `PTR`, or `SRV` as
    /// `PRIORITY WEIGHT PORT HOST`. A name that failed answers again.
    #[track_caller]
    pub fn set(&self, name: &str, kind: &str, values: &[&str]) {
        let number = KINDS.iter().find(|(known, _)| *known == kind).expect("a kind of record").1;
        let records = values.iter().map(|value| data(number, value)).collect();
        let mut book = self.book();
        book.codes.remove(name);
        book.records.insert((name.to_owned(), number), records);
    }

    /// Answers every question about a name with a response code: 2 server failure, 3 no such name.
    pub fn fail(&self, name: &str, code: u8) {
        self.book().codes.insert(name.to_owned(), code);
    }

    /// For how long records live from now on.
    pub fn set_ttl(&self, seconds: u32) {
        self.book().ttl_s = seconds;
    }

    /// Whether questions are read but not answered.
    pub fn set_silent(&self, silent: bool) {
        self.book().silent = silent;
    }

    /// Whether answers over UDP are cut short, so that clients ask over TCP.
    pub fn set_truncating(&self, truncates: bool) {
        self.book().truncates = truncates;
    }

    /// The questions so far, as `A www.example`; those over TCP end with ` tcp`.
    pub fn questions(&self) -> Vec<String> {
        self.book().questions.clone()
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.book().closing = true;
        let address = (Ipv4Addr::LOCALHOST, self.port.number());
        // Wakes both threads; one that ended by itself needs no waking.
        if let Ok(socket) = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
            let _ = socket.send_to(&[], address);
        }
        let _ = TcpStream::connect(address);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve_udp(socket: &UdpSocket, book: &Mutex<Book>) {
    let mut buffer = [0; 1024];
    loop {
        let received: std::io::Result<(usize, SocketAddr)> = socket.recv_from(&mut buffer);
        if lock(book).closing {
            return;
        }
        // A client that closed its port is told of by an error of the next call.
        let Ok((length, client)) = received else { continue };
        if let Some(answer) = lock(book).answer(&buffer[..length], false) {
            let _ = socket.send_to(&answer, client);
        }
    }
}

fn serve_tcp(listener: &TcpListener, book: &Mutex<Book>) {
    loop {
        let accepted = listener.accept();
        if lock(book).closing {
            return;
        }
        let Ok((mut stream, _)) = accepted else { continue };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut question).is_err() {
            continue;
        }
        let answer = lock(book).answer(&question, true);
        if let Some(answer) = answer {
            let mut message = (answer.len() as u16).to_be_bytes().to_vec();
            message.extend(answer);
            // A client that does not want it has closed.
            let _ = stream.write_all(&message);
        }
    }
}

impl Book {
    fn answer(&mut self, question: &[u8], tcp: bool) -> Option<Vec<u8>> {
        let (name, end) = name_of(question)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        let shown = KINDS.iter().find(|(_, number)| *number == kind).map_or("?", |kind| kind.0);
        let over = if tcp { " tcp" } else { "" };
        self.questions.push(format!("{shown} {name}{over}"));
        if self.silent {
            return None;
        }
        let mut out = question.get(..end + 4)?.to_vec();
        let code = self.codes.get(&name).copied().unwrap_or(0);
        // An answer, with recursion wanted and available.
        out[2] = 0x81;
        out[3] = 0x80 | code;
        out[6..12].fill(0);
        if self.truncates && !tcp {
            out[2] |= 0x02;
            return Some(out);
        }
        if code == 0 {
            self.append(&mut out, &name, kind);
        }
        Some(out)
    }

    /// The records of a name, which stand for the name of the question.
    fn append(&self, out: &mut Vec<u8>, name: &str, kind: u16) {
        const ALIAS: u16 = 5;
        let of = |kind| self.records.get(&(name.to_owned(), kind)).map(|data| (kind, data));
        let Some((kind, records)) = of(kind).or_else(|| of(ALIAS)) else { return };
        out[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        for data in records {
            out.extend([0xc0, 12]);
            out.extend(kind.to_be_bytes());
            out.extend([0, 1]);
            out.extend(self.ttl_s.to_be_bytes());
            out.extend((data.len() as u16).to_be_bytes());
            out.extend(data);
        }
    }
}

/// The name of a question, and where its type stands.
fn name_of(question: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(question.get(at..at + length)?).into_owned());
        at += length;
    }
}

#[track_caller]
fn data(kind: u16, value: &str) -> Vec<u8> {
    match kind {
        1 | 28 => match value.parse().expect("an address") {
            IpAddr::V4(v4) => v4.octets().to_vec(),
            IpAddr::V6(v6) => v6.octets().to_vec(),
        },
        33 => {
            let words: Vec<&str> = value.split(' ').collect();
            let numbers = words[..3].iter().map(|word| word.parse::<u16>().expect("a number"));
            let mut out: Vec<u8> = numbers.flat_map(u16::to_be_bytes).collect();
            out.extend(labels(words[3]));
            out
        }
        _ => labels(value),
    }
}

fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend(label.as_bytes());
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_what_was_set() {
        let server = NameServer::new();
        server.set("a.b", "A", &["10.0.0.1", "10.0.0.2"]);
        let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\0\0\x01\0\x01";
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(("127.0.0.1", server.port())).expect("loopback");
        socket.send(question).expect("loopback");
        let mut buffer = [0; 200];
        let length = socket.recv(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..2], buffer[7], length), (&b"\x12\x34"[..], 2, 21 + 32));
        assert!(buffer[..length].ends_with(&[10, 0, 0, 2]));
        assert_eq!(server.questions(), ["A a.b"]);
    }
}
