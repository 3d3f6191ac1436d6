//! Whether a ring does what the driver needs, asked once when it is made: kernels, limits and
//! sandboxes differ, and a ring that can be made may still not work.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::types::Fd;
use io_uring::{EnterFlags, cqueue, opcode};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{
    CLIENTS, Completion, NEWS, OTHERS, POLL_FIRST, READ, RECEIVE, SEND, Uring, key, receive_entry,
};

/// What travels.
const WORDS: &[u8] = b"heng";
/// How long an answer may take, in milliseconds; they need no time.
const PATIENCE_MS: u64 = 500;

/// Receives into a buffer of the ring what it sends, polls, closes, cancels a receive and waits
/// for nothing, on sockets of its own.
///
/// # Errors
/// What the first step that went wrong answered.
pub(super) fn round_trip(uring: &mut Uring) -> io::Result<()> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    transfer(uring, &near, &far)?;
    poll_and_close(uring, &near, &far)?;
    cancel(uring, &near)?;
    hear_clients(uring, &near, &far)?;
    wait_for_nothing(uring)
}

fn transfer(uring: &mut Uring, near: &OwnedFd, far: &OwnedFd) -> io::Result<()> {
    uring.start(OTHERS, receive_entry(near.as_raw_fd(), POLL_FIRST), key(RECEIVE, 0, 0));
    let entry = opcode::Send::new(Fd(far.as_raw_fd()), WORDS.as_ptr(), WORDS.len() as u32);
    uring.start(OTHERS, entry.flags(libc::MSG_NOSIGNAL).build(), key(SEND, 0, 0));
    let answers = [answer(uring)?, answer(uring)?];
    for completion in answers {
        if completion.result != WORDS.len() as i32 {
            return Err(refused("send or receive", completion.result));
        }
        if completion.user_data == key(RECEIVE, 0, 0) {
            let Some(buffer) = cqueue::buffer_select(completion.flags) else {
                return Err(refused("choose a buffer", 0));
            };
            let mut words = [0; WORDS.len()];
            uring.rings[OTHERS].buffers.copy(buffer as u8, 0, &mut words);
            uring.rings[OTHERS].buffers.give(buffer as u8);
            if words != WORDS {
                return Err(refused("fill a buffer", 0));
            }
        }
    }
    Ok(())
}

/// What is to be read is reported, and a descriptor closed.
fn poll_and_close(uring: &mut Uring, near: &OwnedFd, far: &OwnedFd) -> io::Result<()> {
    uring.poll_write(near.as_raw_fd(), 0, 0);
    match answer(uring)?.result {
        events if events & i32::from(libc::POLLOUT) != 0 => {}
        result => return Err(refused("poll", result)),
    }
    let spare = far.try_clone()?;
    uring.start(OTHERS, opcode::Close::new(Fd(spare.as_raw_fd())).build(), key(SEND, 0, 0));
    // The kernel closes it, also if it says that something went wrong.
    std::mem::forget(spare);
    match answer(uring)?.result {
        0 => Ok(()),
        result => Err(refused("close", result)),
    }
}

fn cancel(uring: &mut Uring, near: &OwnedFd) -> io::Result<()> {
    if !uring.receive_lasting(near.as_raw_fd(), 0, 0, true) {
        uring.receive(near.as_raw_fd(), 0, 0, true);
    }
    uring.end_receive(0, 0);
    match answer(uring)?.result {
        result if result == -libc::ECANCELED => Ok(()),
        result => Err(refused("cancel", result)),
    }
}

/// One ring tells of what has become possible in the other.
fn hear_clients(uring: &mut Uring, near: &OwnedFd, far: &OwnedFd) -> io::Result<()> {
    uring.poll(CLIENTS, near.as_raw_fd(), libc::POLLIN as u32, key(READ, 0, 0));
    if uring.look_at_clients(true) {
        return Err(refused("wait for clients", 0));
    }
    uring.rings[OTHERS].enter(0, EnterFlags::empty(), None);
    rustix::io::write(far, WORDS)?;
    let heard = answer(uring)?;
    uring.bell.heard();
    let clients = &mut uring.rings[CLIENTS];
    clients.be_heard(false);
    clients.work();
    clients.flying -= 1;
    match clients.next() {
        Some(seen) if heard.user_data == key(NEWS, 0, 0) && seen.result > 0 => Ok(()),
        _ => Err(refused("tell of news", heard.result)),
    }
}

/// A wait that ended at once would have the loop spin.
fn wait_for_nothing(uring: &mut Uring) -> io::Result<()> {
    match uring.rings[OTHERS].try_enter(1, EnterFlags::GETEVENTS, Some(1)) {
        Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(refused("wait", 0)),
    }
}

/// The next completion that somebody waits for.
fn answer(uring: &mut Uring) -> io::Result<Completion> {
    for _ in 0..8 {
        if let Some(completion) = uring.rings[OTHERS].next() {
            if completion.user_data >> 56 != super::IGNORED {
                uring.rings[OTHERS].flying -= 1;
                return Ok(completion);
            }
            continue;
        }
        match uring.rings[OTHERS].try_enter(1, EnterFlags::GETEVENTS, Some(PATIENCE_MS)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

fn refused(step: &str, result: i32) -> io::Error {
    match result {
        ..0 => io::Error::from_raw_os_error(-result),
        _ => io::Error::other(format!("this io_uring does not {step} as it should")),
    }
}
