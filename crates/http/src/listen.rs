//! The `listen` directive: an address and the options of its socket.

use config::{Args, Invalid};
use session::listen::{Place, socket_option};
use system::socket::{Address, ListenOptions};

/// One `listen`.
#[derive(Clone, Debug)]
pub struct Listen {
    /// Where to listen.
    pub address: Address,
    /// The last port of a range that begins with the address's.
    pub last_port: u16,
    /// As written, for messages.
    pub text: String,
    /// How to open the socket.
    pub options: ListenOptions,
    /// An option of the socket was given: only one `listen` per address may do so.
    pub has_options: bool,
    /// Requests that no name claims go to this server.
    pub default_server: bool,
    /// Connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Connections may speak HTTP/2 (the older way to say it).
    pub http2: bool,
    /// Connections speak TLS.
    pub tls: bool,
}

/// Reads the arguments of `listen`.
///
/// # Errors
/// nginx's words for an address or a parameter that is not one.
pub(crate) fn read_listen(args: &Args<'_>) -> Result<Listen, Invalid> {
    let text = args.str(0).into_owned();
    let place = Place::parse(&text, Some(80)).map_err(|reason| Invalid::new(reason).at(0))?;
    let Place { address, last_port } = place;
    let mut listen = Listen {
        address,
        last_port,
        text,
        options: ListenOptions::default(),
        has_options: false,
        default_server: false,
        proxy_protocol: false,
        http2: false,
        tls: false,
    };
    for (i, word) in args.words().iter().enumerate().skip(1) {
        parameter(&mut listen, &word.str()).map_err(|invalid| invalid.at(i))?;
    }
    Ok(listen)
}

impl Listen {
    /// One of these for each port of the range.
    pub(crate) fn each(&self) -> Vec<Listen> {
        let place = Place { address: self.address.clone(), last_port: self.last_port };
        let of_address = |address: Address| {
            let last_port = address.port().unwrap_or(0);
            Listen { address, last_port, ..self.clone() }
        };
        place.each().into_iter().map(of_address).collect()
    }
}

fn parameter(listen: &mut Listen, word: &str) -> Result<(), Invalid> {
    match word {
        "default_server" | "default" => listen.default_server = true,
        "ssl" => listen.tls = true,
        "http2" => listen.http2 = true,
        "proxy_protocol" => listen.proxy_protocol = true,
        _ if socket_option(&mut listen.options, &listen.address, &listen.text, word)? => {
            listen.has_options = true;
        }
        _ => return Err(Invalid::new(format!("invalid parameter \"{word}\""))),
    }
    Ok(())
}
