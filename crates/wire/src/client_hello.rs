//! The first message of a TLS client, as far as it can be read by somebody who only listens: the
//! name of the server, the protocols, the version (RFC 8446 section 4.1.2, RFC 5246 section
//! 7.4.1.2, RFC 6066 section 3, RFC 7301 section 3.1).

/// What was found at the beginning of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The message goes on.
    Partial,
    /// It is something else, or not well formed.
    Other,
    /// All that can be known.
    Hello(ClientHello),
}

/// What a client says first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The highest version that it offers, as two bytes: 3.1 is TLS 1.0, 3.4 is TLS 1.3.
    pub version: [u8; 2],
    /// The host that it wants; empty when it does not say.
    pub server_name: Vec<u8>,
    /// The protocols that it speaks, separated by commas; empty when it does not say.
    pub protocols: Vec<u8>,
}

impl ClientHello {
    /// The version as OpenSSL names it; empty for one that has no name.
    pub fn version_name(&self) -> &'static str {
        match self.version {
            [0, 2] => "SSLv2",
            [3, 0] => "SSLv3",
            [3, 1] => "TLSv1",
            [3, 2] => "TLSv1.1",
            [3, 3] => "TLSv1.2",
            [3, 4] => "TLSv1.3",
            _ => "",
        }
    }
}

/// The header of a record: its type, a version and a length.
const RECORD: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const PROTOCOLS: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// Looks at the first bytes of a connection; it is called again with more of them while the
/// answer is [`Seen::Partial`].
pub fn parse(bytes: &[u8]) -> Seen {
    let mut message = Vec::new();
    let mut rest = bytes;
    while let Some((record, after)) = rest.split_first_chunk::<RECORD>() {
        if message.is_empty()
            && record[0] & 0x80 != 0
            && record[2] == 1
            && matches!(record[3], 0 | 3)
        {
            // A hello in the form of SSL 2 has no extensions.
            let version = [record[3], record[4]];
            return Seen::Hello(ClientHello { version, ..ClientHello::default() });
        }
        if record[0] != HANDSHAKE || record[1] != 3 {
            return Seen::Other;
        }
        let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
        let Some((fragment, after)) = after.split_at_checked(length) else { break };
        message.extend_from_slice(fragment);
        rest = after;
        match hello(&message) {
            Ok(hello) => return Seen::Hello(hello),
            Err(Stop::Bad) => return Seen::Other,
            Err(Stop::More) => {}
        }
    }
    Seen::Partial
}

/// Why reading ends.
enum Stop {
    /// The bytes that came so far end here.
    More,
    /// It is no hello.
    Bad,
}

/// Bytes of a message, and how many it will have.
struct Reader<'a> {
    came: &'a [u8],
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Stop> {
        if count > self.left {
            return Err(Stop::Bad);
        }
        let (taken, came) = self.came.split_at_checked(count).ok_or(Stop::More)?;
        self.came = came;
        self.left -= count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        // `take` gives so many bytes or none.
        self.take(N)?.try_into().map_err(|_| Stop::Bad)
    }

    fn byte(&mut self) -> Result<usize, Stop> {
        Ok(usize::from(self.array::<1>()?[0]))
    }

    fn short(&mut self) -> Result<usize, Stop> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    /// The next `count` bytes as a message of their own.
    fn part(&mut self, count: usize) -> Result<Reader<'a>, Stop> {
        let came = self.take(count)?;
        Ok(Reader { came, left: count })
    }
}

fn hello(message: &[u8]) -> Result<ClientHello, Stop> {
    let mut head = Reader { came: message, left: 4 };
    let [kind, length @ ..] = head.array::<4>()?;
    if kind != CLIENT_HELLO {
        return Err(Stop::Bad);
    }
    let [a, b, c] = length;
    let left = u32::from_be_bytes([0, a, b, c]) as usize;
    let mut body = Reader { came: head.came, left };
    let mut hello = ClientHello { version: body.array()?, ..ClientHello::default() };
    // Random bytes, session, cipher suites, compression methods.
    body.take(32)?;
    let session = body.byte()?;
    body.take(session)?;
    let suites = body.short()?;
    body.take(suites)?;
    let methods = body.byte()?;
    body.take(methods)?;
    if body.left == 0 {
        return Ok(hello);
    }
    let total = body.short()?;
    let mut extensions = Reader { came: body.came, left: total.min(body.left) };
    while extensions.left > 0 {
        let kind = extensions.short()? as u16;
        let length = extensions.short()?;
        let mut value = extensions.part(length)?;
        let outcome = extension(kind, &mut value, &mut hello);
        // Inside an extension that is all there, nothing more will come.
        outcome.map_err(|_| Stop::Bad)?;
    }
    Ok(hello)
}

fn extension(kind: u16, value: &mut Reader<'_>, hello: &mut ClientHello) -> Result<(), Stop> {
    match kind {
        SERVER_NAME if hello.server_name.is_empty() => {
            let length = value.short()?;
            let mut list = value.part(length)?;
            // The only type of name that there is.
            if list.byte()? != 0 {
                return Err(Stop::Bad);
            }
            let length = list.short()?;
            hello.server_name = list.take(length)?.to_vec();
        }
        PROTOCOLS if hello.protocols.is_empty() => {
            let length = value.short()?;
            let mut list = value.part(length)?;
            while list.left > 0 {
                let length = list.byte()?;
                let name = list.take(length)?;
                if name.is_empty() {
                    return Err(Stop::Bad);
                }
                if !hello.protocols.is_empty() {
                    hello.protocols.push(b',');
                }
                hello.protocols.extend_from_slice(name);
            }
        }
        // Who sends it offers TLS 1.3, whatever else is in it.
        SUPPORTED_VERSIONS => hello.version = [3, 4],
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut out = kind.to_be_bytes().to_vec();
        out.extend((value.len() as u16).to_be_bytes());
        out.extend(value);
        out
    }

    fn with_length(value: &[u8]) -> Vec<u8> {
        [&(value.len() as u16).to_be_bytes()[..], value].concat()
    }

    fn name(host: &[u8]) -> Vec<u8> {
        extension(SERVER_NAME, &with_length(&[&[0][..], &with_length(host)].concat()))
    }

    /// A hello in records of at most `size` bytes.
    fn records(extensions: &[Vec<u8>], size: usize) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        if !extensions.is_empty() {
            body.extend(with_length(&extensions.concat()));
        }
        let mut message = vec![CLIENT_HELLO, 0];
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(body);
        message
            .chunks(size)
            .flat_map(|part| [&[HANDSHAKE, 3, 1][..], &with_length(part)].concat())
            .collect()
    }

    fn shown(bytes: &[u8]) -> String {
        match parse(bytes) {
            Seen::Hello(hello) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (host, protocols) = (text(&hello.server_name), text(&hello.protocols));
                format!("{} {host} {protocols}", hello.version_name())
            }
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn hellos_are_understood_however_they_are_cut() {
        let protocols = extension(PROTOCOLS, &with_length(b"\x02h2\x08http/1.1"));
        let versions = extension(SUPPORTED_VERSIONS, &[2, 3, 4]);
        for (extensions, expected) in [
            (vec![], "TLSv1.2  "),
            (vec![name(b"a.example")], "TLSv1.2 a.example "),
            (vec![extension(99, b"xyz"), name(b"a"), protocols.clone()], "TLSv1.2 a h2,http/1.1"),
            (vec![versions, protocols], "TLSv1.3  h2,http/1.1"),
            (vec![extension(SERVER_NAME, &with_length(&[1, 0, 1, b'a']))], "Other"),
            (vec![extension(PROTOCOLS, &with_length(&[0]))], "Other"),
            (vec![extension(SERVER_NAME, &[0, 9])], "Other"),
        ] {
            for size in [1, 5, 1000] {
                let bytes = records(&extensions, size);
                assert_eq!(shown(&bytes), expected, "records of {size}");
                for end in 0..bytes.len() - 1 {
                    let partial = parse(&bytes[..end]);
                    assert!(partial == Seen::Partial || expected == "Other", "{end}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_hello_is_noticed() {
        assert_eq!(shown(b"GET / HTTP/1.1\r\n"), "Other");
        assert_eq!(shown(&[HANDSHAKE, 2, 1, 0, 5]), "Other");
        assert_eq!(shown(&[HANDSHAKE, 3, 1, 0, 4, 2, 0, 0, 0]), "Other");
        assert_eq!(shown(&[0x80, 46, 1, 3, 1]), "TLSv1  ");
        assert_eq!(shown(&[0x80, 46, 1, 0, 2]), "SSLv2  ");
        assert_eq!(shown(b"\x16\x03"), "Partial");
        assert_eq!(shown(b""), "Partial");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&bytes);
            let record = [&[HANDSHAKE, 3, 1][..], &with_length(&bytes)].concat();
            parse(&record);
            let mut hello = records(&[name(b"a.example")], 1000);
            for (at, byte) in bytes.iter().enumerate().take(hello.len()) {
                hello[at] ^= byte & 1;
            }
            parse(&hello);
        }
    }
}
