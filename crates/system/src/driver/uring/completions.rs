//! What has ended: completions are counted, and told to who waits for them.

use std::mem;

use io_uring::{EnterFlags, cqueue};

use super::super::io::{
    BULKY, ENDED, Event, HUNG, LASTING, POLLING_HANG, POLLING_READ, POLLING_WRITE, READABLE,
    RECEIVING, SEND_FAILED, SENDING, SHUT, STASHED, WRITABLE, note,
};
use super::super::state::{Backend, State};
use super::super::waiter::{self, NONE};
use super::{
    AT_ONCE, BEHIND, CLIENTS, Completion, IGNORED, MORE, NEWS, OTHERS, READ, RECEIVE, SEND, WRITE,
    shut,
};

/// Submits, waits at most `timeout` milliseconds, and notes what happened.
pub(in crate::driver) fn wait(s: &mut State, timeout: Option<u64>) {
    let now_ms = s.now_ms;
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let timeout = match uring.expire_orphans(now_ms) {
        Some(ms) => Some(timeout.map_or(ms, |timeout| timeout.min(ms))),
        None => timeout,
    };
    let events = EnterFlags::GETEVENTS;
    if uring.look_at_clients(timeout != Some(0)) {
        uring.enter(0, events, None);
    } else {
        uring.enter(1, events, timeout);
        uring.rings[CLIENTS].be_heard(false);
    }
    s.refresh_clock();
    // What has ended beyond that is for the next turn: the memory of many requests at once is more
    // than near caches hold.
    let was_full = reap(s, OTHERS) == AT_ONCE;
    if let Backend::Uring(uring) = &mut s.backend
        && uring.turns.are_clients_next(was_full)
    {
        uring.rings[CLIENTS].work();
        reap(s, CLIENTS);
    }
}

/// Submits what is queued and notes what has ended, without waiting: for the end of the loop.
pub(in crate::driver) fn flush(s: &mut State) {
    if let Backend::Uring(uring) = &mut s.backend {
        uring.rings[CLIENTS].enter(0, EnterFlags::GETEVENTS, None);
        uring.enter(0, EnterFlags::GETEVENTS, None);
        while reap(s, CLIENTS) + reap(s, OTHERS) > 0 {}
    }
}

/// Notes some of what has ended in a ring; how much.
fn reap(s: &mut State, side: usize) -> usize {
    let Backend::Uring(uring) = &mut s.backend else {
        return 0;
    };
    let count = uring.collect(side);
    if count == 0 {
        return 0;
    }
    let mut completions = mem::take(&mut uring.completions);
    for completion in completions.drain(..) {
        complete(s, side, completion);
    }
    if let Backend::Uring(uring) = &mut s.backend {
        uring.completions = completions;
    }
    count
}

fn complete(s: &mut State, side: usize, completion: Completion) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let kind = completion.user_data >> 56;
    if kind == IGNORED {
        return;
    }
    if !cqueue::more(completion.flags) {
        uring.rings[side].flying -= 1;
    }
    let (index, generation) =
        (completion.user_data as u32, (completion.user_data >> 32) as u32 & 0xff_ffff);
    match kind {
        SEND => sent(s, index as u16, completion.result),
        RECEIVE => received(s, side, index, generation, completion),
        NEWS => uring.bell.heard(),
        _ => polled(s, kind, index, generation, completion.result),
    }
}

fn received(s: &mut State, side: usize, index: u32, generation: u32, completion: Completion) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let buffer = cqueue::buffer_select(completion.flags).map(|id| id as u8);
    let Some(slot) = s.ios.current(index, generation) else {
        if let Some(buffer) = buffer {
            uring.rings[side].buffers.give(buffer);
        }
        return;
    };
    let goes_on = cqueue::more(completion.flags);
    if !goes_on {
        slot.flags &= !(RECEIVING | LASTING);
    }
    let hung = match (completion.result, buffer) {
        (n @ 1.., Some(buffer)) => {
            let waiting = uring.keep(index, buffer, n as u16);
            let more = cqueue::sock_nonempty(completion.flags);
            if goes_on && waiting > BEHIND && slot.flags & LASTING != 0 {
                slot.flags &= !LASTING;
                uring.end_receive(index, generation);
            }
            uring.lanes[index as usize].mark(MORE, more && !goes_on);
            slot.flags |= STASHED | READABLE | if more { BULKY } else { 0 };
            waiter_of(s, index, false);
            return;
        }
        (outcome, buffer) => {
            if let Some(buffer) = buffer {
                uring.rings[side].buffers.give(buffer);
            }
            outcome
        }
    };
    match -hung {
        // Told to end: who waits by now asks again.
        libc::ECANCELED => return waiter_of(s, index, false),
        // Interrupted, or no buffer was left: a poll needs none.
        libc::ENOBUFS | libc::EINTR | libc::EAGAIN => {
            slot.flags |= POLLING_READ;
            let (fd, generation) = (slot.fd, slot.generation);
            uring.poll_read(fd, index, generation, false);
            return;
        }
        // A send met the reset first, which leaves the end of the stream to the receive.
        0 if uring.send_errno(index) == libc::ECONNRESET => {
            uring.set_receive_errno(index, libc::ECONNRESET);
        }
        0 => slot.flags |= ENDED,
        errno => uring.set_receive_errno(index, errno),
    }
    slot.flags |= STASHED;
    note(s, index, Event { readable: true, writable: false, hung: true });
}

/// Wakes the reader of a source, and the writer too if `both`.
fn waiter_of(s: &mut State, index: u32, both: bool) {
    let Some(slot) = s.ios.at(index) else { return };
    let reader = mem::replace(&mut slot.reader, NONE);
    let writer = if both { mem::replace(&mut slot.writer, NONE) } else { NONE };
    waiter::wake_slot(s, reader);
    if writer != reader {
        waiter::wake_slot(s, writer);
    }
}

fn polled(s: &mut State, kind: u64, index: u32, generation: u32, result: i32) {
    let Some(slot) = s.ios.current(index, generation) else {
        return;
    };
    if result == -libc::ECANCELED {
        return;
    }
    slot.flags &= !match kind {
        READ => POLLING_READ,
        WRITE => POLLING_WRITE,
        _ => POLLING_HANG,
    };
    // A poll that the kernel refuses leaves the decision to the caller's own call.
    let events = if result < 0 { (libc::POLLIN | libc::POLLOUT) as u32 } else { result as u32 };
    let has = |bits: i16| events & bits as u32 != 0;
    let seen = Event {
        readable: kind == READ && has(libc::POLLIN),
        writable: kind == WRITE && has(libc::POLLOUT),
        hung: has(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR),
    };
    note(s, index, seen);
}

fn sent(s: &mut State, index: u16, result: i32) {
    let Backend::Uring(uring) = &mut s.backend else {
        return;
    };
    let Some(send) = uring.sends.get(index) else {
        return;
    };
    let (source, generation) = (send.source, send.generation);
    let goes_on = send.last && !send.given_up;
    let complete = send.advance(usize::try_from(result).unwrap_or(0));
    let slot = s.ios.current(source, generation & 0xff_ffff);
    if !complete && result >= 0 && (slot.is_some() || goes_on) {
        // Interrupted halfway.
        uring.send_rest(index);
        return;
    }
    uring.end_send(index);
    let Some(slot) = slot else { return };
    slot.flags = slot.flags & !SENDING | WRITABLE;
    if slot.flags & SHUT != 0 {
        slot.flags &= !SHUT;
        shut(slot.fd, libc::SHUT_WR);
    }
    if result < 0 {
        slot.flags |= SEND_FAILED | HUNG;
        uring.failures(source).send = -result;
        waiter_of(s, source, true);
        return;
    }
    let writer = mem::replace(&mut slot.writer, NONE);
    waiter::wake_slot(s, writer);
}
