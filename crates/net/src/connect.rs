//! Making connections.

use std::future::poll_fn;
use std::os::fd::{AsFd, BorrowedFd};

use system::driver::reports_errors;
use system::errno::Errno;
use system::socket::{self, Address, Keepalive, SocketError};

use crate::stream::Stream;

/// How to connect. The default sets nothing but `TCP_NODELAY`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectOptions {
    /// The local address to come from (`proxy_bind`).
    pub local: Option<Address>,
    /// The local address may be foreign (`proxy_bind ... transparent`).
    pub transparent: bool,
    /// Probes on an idle connection (`proxy_socket_keepalive`).
    pub keepalive: Keepalive,
    /// Small writes go out at once (`tcp_nodelay`).
    pub nodelay: bool,
    /// `SO_RCVBUF`, `SO_SNDBUF` in bytes.
    pub receive_buffer: Option<u32>,
    pub send_buffer: Option<u32>,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            local: None,
            transparent: false,
            keepalive: Keepalive::System,
            nodelay: true,
            receive_buffer: None,
            send_buffer: None,
        }
    }
}

/// Connects, without a limit of time: see [`timeout`](crate::timeout).
///
/// # Errors
/// The call that failed and the kernel's reason. A full queue of a unix listener is `EAGAIN` of
/// `connect`, and no later event would tell: it counts as refused.
pub async fn connect(address: &Address, options: &ConnectOptions) -> Result<Stream, SocketError> {
    let (stream, established) = begin(address, options)?;
    if established {
        return Ok(stream);
    }
    poll_fn(|cx| stream.poll_writable(cx)).await;
    // Where the driver reports errors, none reported means none there: the usual case is spared
    // a system call.
    if stream.hung_up() || !reports_errors() {
        let pending = socket::take_error(stream.as_fd());
        match pending {
            Ok(None) => {}
            Ok(Some(errno)) => return Err(SocketError { call: "connect", errno }),
            Err(error) => return Err(failed("getsockopt(SO_ERROR)", &error)),
        }
    }
    Ok(stream)
}

fn begin(address: &Address, options: &ConnectOptions) -> Result<(Stream, bool), SocketError> {
    let prepare = |fd: BorrowedFd<'_>| {
        if !address.is_unix() {
            if options.nodelay {
                socket::set_nodelay(fd, true)?;
            }
            socket::set_keepalive(fd, options.keepalive)?;
        }
        if let Some(bytes) = options.receive_buffer {
            socket::set_receive_buffer(fd, bytes)?;
        }
        if let Some(bytes) = options.send_buffer {
            socket::set_send_buffer(fd, bytes)?;
        }
        Ok(())
    };
    let (local, transparent) = (options.local.as_ref(), options.transparent);
    let (fd, established) = socket::connect_start(address, local, transparent, prepare)?;
    let stream = Stream::new(fd, established).map_err(|error| failed("epoll_ctl", &error))?;
    Ok((stream, established))
}

fn failed(call: &'static str, error: &std::io::Error) -> SocketError {
    SocketError {
        call,
        errno: Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listener::Taking;
    use crate::testing::{listener, on_each};

    #[test]
    fn a_refused_connection_names_the_call() {
        on_each(|| async {
            let (gone, address) = listener(Taking::One);
            drop(gone);
            let error = connect(&address, &ConnectOptions::default()).await.map(drop).unwrap_err();
            assert_eq!(error.to_string(), "connect() failed (111: Connection refused)");
        });
    }

    #[test]
    fn a_missing_unix_socket_is_an_error_at_once() {
        on_each(|| async {
            let address = Address::Unix("/nonexistent/socket".into());
            let error = connect(&address, &ConnectOptions::default()).await.map(drop).unwrap_err();
            assert_eq!(error.to_string(), "connect() failed (2: No such file or directory)");
        });
    }

    #[test]
    fn options_reach_the_socket() {
        on_each(|| async {
            let (listener, address) = listener(Taking::All);
            let options = ConnectOptions {
                local: Address::parse("127.0.0.9:0"),
                keepalive: Keepalive::On { idle_s: Some(5), interval_s: None, count: None },
                receive_buffer: Some(20_000),
                send_buffer: Some(30_000),
                ..ConnectOptions::default()
            };
            let client = connect(&address, &options).await.unwrap();
            let (_server, peer) = listener.accept().await.unwrap();
            assert_eq!(peer.ip().unwrap().to_string(), "127.0.0.9");
            use rustix::net::sockopt;
            assert!(sockopt::tcp_nodelay(&client).unwrap());
            assert!(sockopt::socket_keepalive(&client).unwrap());
            assert_eq!(sockopt::tcp_keepidle(&client).unwrap().as_secs(), 5);
            assert_eq!(sockopt::socket_recv_buffer_size(&client).unwrap(), 40_000);
            assert_eq!(sockopt::socket_send_buffer_size(&client).unwrap(), 60_000);
        });
    }
}
