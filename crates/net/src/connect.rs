//! Making connections.

use std::future::poll_fn;

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
        let pending = socket::take_error(std::os::fd::AsFd::as_fd(&stream));
        match pending {
            Ok(None) => {}
            Ok(Some(errno)) => return Err(SocketError { call: "connect", errno }),
            Err(error) => return Err(failed("getsockopt(SO_ERROR)", &error)),
        }
    }
    Ok(stream)
}

fn begin(address: &Address, options: &ConnectOptions) -> Result<(Stream, bool), SocketError> {
    let (fd, established) =
        socket::connect_start(address, options.local.as_ref(), options.transparent)?;
    {
        let fd = std::os::fd::AsFd::as_fd(&fd);
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
    }
    let stream = Stream::new(fd, established).map_err(|error| failed("epoll_ctl", &error))?;
    Ok((stream, established))
}

fn failed(call: &'static str, error: &std::io::Error) -> SocketError {
    SocketError {
        call,
        errno: Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::INVAL.raw_os_error())),
    }
}
