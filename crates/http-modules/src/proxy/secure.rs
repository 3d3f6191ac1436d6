//! TLS to the peer (`proxy_pass https://`): the handshake on a fresh connection. Its directives
//! are those of `session::tls::outgoing`.

use super::attempt::{Cause, Context};
use http::Exchange;
use session::log::Level;
use session::tls::Insecure;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use system::errno::Errno;
use upstream::Lease;

const DOING: &str = "while SSL handshaking to upstream";

/// How a handshake ended.
enum End {
    Secure,
    Insecure(Insecure),
    TimedOut,
    ClientGone,
}

/// Makes a fresh connection secure within `proxy_connect_timeout`, unless the client leaves
/// meanwhile. A fault is logged.
pub(super) async fn secure(
    context: &Context<'_>,
    x: &mut Exchange,
    lease: &Lease,
) -> Result<(), Cause> {
    // Compiled for every URL that may begin with `https://`.
    let Some(outgoing) = &context.settings.secure else { return Err(Cause::Ours) };
    let host = x.upstream_log().place.map(|(host, _)| host).unwrap_or_default();
    let host = String::from_utf8_lossy(x.text(host)).into_owned();
    let peer = String::from_utf8_lossy(x.text(context.name)).into_owned();
    let watched = !context.settings.ignore_client_abort && !x.background;
    let side = x.side();
    let end = {
        let shaking = outgoing.secure(x, lease.stream(), &host, &peer);
        let mut shaking = pin!(net::timeout(context.settings.connecting.timeout_ms, shaking));
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = shaking.as_mut().poll(cx) {
                return Poll::Ready(match outcome {
                    Some(Ok(())) => End::Secure,
                    Some(Err(insecure)) => End::Insecure(insecure),
                    None => End::TimedOut,
                });
            }
            match watched && side.poll_gone(cx).is_ready() {
                true => Poll::Ready(End::ClientGone),
                false => Poll::Pending,
            }
        })
        .await
    };
    match end {
        End::Secure => Ok(()),
        End::Insecure(insecure) => {
            context.log(x, Level::Error, format_args!("{insecure} {DOING}"));
            Err(if matches!(insecure, Insecure::Ours(_)) { Cause::Ours } else { Cause::Failed })
        }
        End::TimedOut => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            context.log(x, Level::Error, format_args!("upstream timed out ({errno}) {DOING}"));
            Err(Cause::Timeout)
        }
        End::ClientGone => {
            let message = "client prematurely closed connection, so upstream connection is closed \
                           too";
            context.log(x, Level::Info, format_args!("{message} {DOING}"));
            Err(Cause::ClientGone)
        }
    }
}
