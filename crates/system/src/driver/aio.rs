//! Sends of many sockets with one call (Linux's asynchronous I/O, `io_submit(2)`).
//!
//! Whoever sends wakes whoever reads, and where both share a processor the kernel goes over to
//! the reader when the call returns: a batch of sends becomes a batch of switches there and back,
//! and caches are cold each time. Within one call there is no switch. To a socket that does not
//! block everything is written while it is submitted, so nothing is asynchronous about it: all
//! results are there when the call returns.
//!
//! Kernels and sandboxes without it, and systems that have given away all of their contexts
//! (`fs.aio-max-nr`), are served by single calls.

use std::io;
use std::os::fd::RawFd;

/// Sends in one call.
pub(super) const MOST: usize = 32;
/// Fewer than these are cheaper by single calls.
pub(super) const WORTHWHILE: usize = 3;

const PWRITE: u16 = 1;

/// `struct iocb` of `linux/aio_abi.h`, for the little-endian order of key and flags; both are 0.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Request {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    bytes: u64,
    length: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Completion {
    data: u64,
    request: u64,
    result: i64,
    result2: i64,
}

const _: () = assert!(size_of::<Request>() == 64 && size_of::<Completion>() == 32);

/// A context of the kernel, and what is handed to it.
pub(super) struct Context {
    id: libc::c_ulong,
    requests: [Request; MOST],
    completions: [Completion; MOST],
}

/// What sends many at once, if it may.
#[derive(Default)]
pub(super) enum Aio {
    #[default]
    Untried,
    Refused,
    Ready(Box<Context>),
}

/// What became of a send: bytes, or an error number. `None`: it was not tried.
pub(super) type Outcome = Option<Result<usize, i32>>;

impl Aio {
    pub(super) fn memory(&self) -> usize {
        match self {
            Aio::Ready(_) => size_of::<Context>(),
            _ => 0,
        }
    }

    /// Sends the bytes of each of `parts` to its descriptor, which must not block, and writes what
    /// became of it to the place in `outcomes` that it names, below [`MOST`]. What was not tried
    /// is left to the caller: all beyond [`MOST`], and whatever the kernel did not accept.
    pub(super) fn send<'a>(
        &mut self,
        parts: impl Iterator<Item = (usize, RawFd, &'a [u8])>,
        outcomes: &mut [Outcome; MOST],
    ) {
        let Some(context) = self.context() else { return };
        let mut pointers = [std::ptr::null_mut(); MOST];
        let mut count = 0;
        for (request, (place, fd, bytes)) in context.requests.iter_mut().zip(parts) {
            request.data = place as u64;
            request.key = 0;
            request.opcode = PWRITE;
            request.fd = fd.cast_unsigned();
            request.bytes = bytes.as_ptr() as u64;
            request.length = bytes.len() as u64;
            pointers[count] = &raw mut *request;
            count += 1;
        }
        // SAFETY: `count` pointers lead to requests of this context, which live through the call
        // as the bytes do that they name; the kernel writes to `key` alone, and only reads bytes.
        // Sockets are written to before the call returns, so nothing names them later.
        let accepted = unsafe {
            libc::syscall(libc::SYS_io_submit, context.id, count as i64, pointers.as_mut_ptr())
        };
        let accepted = usize::try_from(accepted).unwrap_or(0).min(count);
        for request in &context.requests[..accepted] {
            // Never sent again, whatever becomes of the results.
            if let Some(outcome) = outcomes.get_mut(request.data as usize) {
                *outcome = Some(Err(libc::EIO));
            }
        }
        if accepted > 0 {
            context.reap(accepted, outcomes);
        }
    }

    fn context(&mut self) -> Option<&mut Context> {
        if let Aio::Untried = self {
            *self = Context::new().map_or(Aio::Refused, |context| Aio::Ready(Box::new(context)));
        }
        match self {
            Aio::Ready(context) => Some(context),
            _ => None,
        }
    }
}

impl Context {
    fn new() -> io::Result<Context> {
        let mut id: libc::c_ulong = 0;
        // SAFETY: the kernel writes the number of the context, which lives through the call.
        let r = unsafe { libc::syscall(libc::SYS_io_setup, MOST as libc::c_ulong, &raw mut id) };
        match r {
            0 => Ok(Context {
                id,
                requests: [Request::default(); MOST],
                completions: [Completion::default(); MOST],
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Takes the results of so many sends, which are over.
    fn reap(&mut self, accepted: usize, outcomes: &mut [Outcome; MOST]) {
        let mut seen = 0;
        while seen < accepted {
            let wanted = (accepted - seen) as i64;
            // SAFETY: there is room for as many completions as are wanted, no more than `MOST`.
            let n = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.id,
                    wanted,
                    wanted,
                    self.completions.as_mut_ptr(),
                    std::ptr::null_mut::<libc::timespec>(),
                )
            };
            let Ok(n) = usize::try_from(n) else {
                if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                return;
            };
            for completion in &self.completions[..n.min(MOST)] {
                if let Some(outcome) = outcomes.get_mut(completion.data as usize) {
                    *outcome = Some(match usize::try_from(completion.result) {
                        Ok(n) => Ok(n),
                        Err(_) => Err(completion.result.unsigned_abs() as i32),
                    });
                }
            }
            seen += n;
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: takes no pointer, and nothing is under way.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.id) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn every_socket_gets_its_own_and_every_fault_is_told() {
        let mut pairs: Vec<_> = (0..5).map(|_| UnixStream::pair().unwrap()).collect();
        pairs.iter().for_each(|(socket, _)| socket.set_nonblocking(true).unwrap());
        while (&pairs[2].0).write_all_of(&[0; 4096]) {}
        let texts: Vec<Vec<u8>> = (0..5).map(|at| vec![at; 100 + usize::from(at)]).collect();
        let gone = UnixStream::pair().unwrap().0;
        gone.set_nonblocking(true).unwrap();
        pairs[3].0 = gone;
        let parts = pairs.iter().zip(&texts).enumerate();
        let parts = parts.map(|(at, (pair, text))| (at, pair.0.as_raw_fd(), &text[..]));
        let (mut aio, mut outcomes) = (Aio::default(), [None; MOST]);
        aio.send(parts, &mut outcomes);
        if let Aio::Refused = aio {
            assert_eq!(outcomes, [None; MOST], "a sandbox without it");
            return;
        }
        let expected =
            [Some(Ok(100)), Some(Ok(101)), Some(Err(libc::EAGAIN)), Some(Err(libc::EPIPE))];
        assert_eq!(outcomes[..4], expected);
        assert_eq!((outcomes[4], outcomes[5]), (Some(Ok(104)), None));
        for at in [0, 1, 4] {
            let mut bytes = [0; 200];
            let n = pairs[at].1.read(&mut bytes).unwrap();
            assert_eq!(bytes[..n], texts[at]);
        }
    }

    #[test]
    fn what_the_kernel_does_not_accept_is_left_to_the_caller() {
        let (socket, _peer) = UnixStream::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        let (mut aio, mut outcomes) = (Aio::default(), [None; MOST]);
        // The second is no descriptor of this process.
        let parts = [(7, socket.as_raw_fd(), &b"one"[..]), (8, -1, b"two"), (9, -1, b"x")];
        aio.send(parts.into_iter(), &mut outcomes);
        if let Aio::Ready(_) = aio {
            assert_eq!(outcomes[7..10], [Some(Ok(3)), None, None]);
        }
        let mut outcomes = [None; MOST];
        Aio::Refused.send(parts.into_iter(), &mut outcomes);
        assert_eq!(outcomes, [None; MOST]);
    }

    trait WriteAllOf {
        fn write_all_of(&mut self, bytes: &[u8]) -> bool;
    }

    impl WriteAllOf for &UnixStream {
        fn write_all_of(&mut self, bytes: &[u8]) -> bool {
            std::io::Write::write(self, bytes).is_ok()
        }
    }
}
