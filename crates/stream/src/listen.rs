//! The `listen` directive of `stream`.

use config::{Args, Invalid};
use session::listen::{Place, socket_option};
use system::socket::{Address, Keepalive, ListenOptions, Transport};

/// One `listen`.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where to listen.
    pub(crate) place: Place,
    /// As written, for messages.
    pub(crate) text: String,
    /// How to open the socket.
    pub(crate) options: ListenOptions,
    /// An option of the socket was given: only one `listen` per address may do so.
    pub(crate) has_options: bool,
    /// Sessions that no name claims go to this server.
    pub(crate) default_server: bool,
    /// Connections begin with a header of the PROXY protocol.
    pub(crate) proxy_protocol: bool,
    /// Connections speak TLS.
    pub(crate) ssl: bool,
}

/// Reads the arguments of `listen`.
pub(crate) fn read_listen(args: &Args<'_>) -> Result<Listen, Invalid> {
    let text = args.str(0).into_owned();
    let place = Place::parse(&text, None).map_err(|reason| Invalid::new(reason).at(0))?;
    let mut listen = Listen {
        place,
        text,
        options: ListenOptions::default(),
        has_options: false,
        default_server: false,
        proxy_protocol: false,
        ssl: false,
    };
    let mut backlog = false;
    for (i, word) in args.words().iter().enumerate().skip(1) {
        let word = word.str();
        backlog |= word.starts_with("backlog=");
        parameter(&mut listen, &word).map_err(|invalid| invalid.at(i))?;
    }
    match incompatible(&listen, backlog) {
        Some(what) => {
            let reason = format!("\"{what}\" parameter is incompatible with \"udp\"");
            Err(Invalid::new(format!("\"listen\" directive {reason}")))
        }
        None => Ok(listen),
    }
}

impl Listen {
    /// The addresses of each port of the range.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.place.each()
    }
}

fn parameter(listen: &mut Listen, word: &str) -> Result<(), Invalid> {
    let address = &listen.place.address;
    match word {
        "default_server" => listen.default_server = true,
        "udp" => listen.options.transport = Transport::Datagram,
        "proxy_protocol" => listen.proxy_protocol = true,
        "ssl" => listen.ssl = true,
        "transparent" if !address.is_unix() => {
            listen.options.transparent = true;
            listen.options.bind = true;
            listen.has_options = true;
        }
        _ if socket_option(&mut listen.options, address, &listen.text, word)? => {
            listen.has_options = true;
        }
        _ => return Err(Invalid::new(format!("invalid parameter \"{word}\""))),
    }
    Ok(())
}

/// A parameter that makes no sense for packets.
fn incompatible(listen: &Listen, backlog: bool) -> Option<&'static str> {
    let options = &listen.options;
    if options.transport == Transport::Stream {
        return None;
    }
    [
        ("fastopen", options.fastopen.is_some()),
        ("backlog", backlog),
        ("deferred", options.deferred),
        ("ssl", listen.ssl),
        ("so_keepalive", options.keepalive != Keepalive::System),
        ("proxy_protocol", listen.proxy_protocol),
    ]
    .into_iter()
    .find_map(|(name, given)| given.then_some(name))
}

#[cfg(test)]
mod tests {
    use crate::directives::LISTEN;

    #[test]
    fn lines() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = LISTEN.read_text(text).map(|listen| {
                let addresses = listen.addresses();
                addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
            });
            let found = found.map_err(|invalid| invalid.message);
            assert_eq!(found.as_deref().map_err(|e| &**e), expected, "{text}");
        };
        check("53 udp", Ok("0.0.0.0:53"));
        check("[::1]:80-82 bind", Ok("[::1]:80 [::1]:81 [::1]:82"));
        check("unix:/x udp", Ok("unix:/x"));
        check("127.0.0.1", Err("no port in \"127.0.0.1\" of the \"listen\" directive"));
        check("80 quic", Err("invalid parameter \"quic\""));
        check("unix:/x transparent", Err("invalid parameter \"transparent\""));
        for word in
            ["backlog=5", "fastopen=5", "deferred", "so_keepalive=on", "proxy_protocol", "ssl"]
        {
            let name = word.split('=').next().unwrap_or_default();
            let reason =
                format!("\"listen\" directive \"{name}\" parameter is incompatible with \"udp\"");
            check(&format!("80 udp {word}"), Err(&reason));
            check(&format!("80 {word}"), Ok("0.0.0.0:80"));
        }
    }
}
