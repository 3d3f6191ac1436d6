//! Who is next: answers to what clients have asked for, or what they ask for next.
//!
//! What was begun is finished before something new is begun. The kernel tells events in the order
//! in which they came: when thousands of clients have a request waiting, the answer to the first
//! would wait behind the requests of all, each of them would occupy a connection to a backend, and
//! nothing of a request would be in a cache any more when its answer comes. So the events of what
//! clients have made come apart from the others.
//!
//! ```text
//!  turn:  a batch of the others --- full? --- next turn, PATIENCE times
//!                                '- not full: a batch of the clients' too
//! ```

/// Full batches of the others that clients wait for at most, one after another.
pub(super) const PATIENCE: u32 = 3;

/// How long clients have waited.
#[derive(Default)]
pub(super) struct Turns {
    /// Turns in which they had to wait, one after another.
    passed: u32,
}

impl Turns {
    /// Whether clients have their turn after a batch of the others.
    #[inline]
    pub(super) fn are_clients_next(&mut self, was_full: bool) -> bool {
        let wait = was_full && self.passed < PATIENCE;
        self.passed = if wait { self.passed + 1 } else { 0 };
        !wait
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::pair;
    use super::super::{
        Interest, Kind, Settings, Source, block_on, spawn, start, stop, uring, yield_now,
    };
    use super::PATIENCE;
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    /// Runs `main` under the drivers that take turns; it is told how many events are in a batch.
    fn on_both<F: Future<Output = ()>>(main: impl Fn(usize) -> F) {
        for (kind, batch) in [(Kind::Epoll, 4), (Kind::IoUring, uring::AT_ONCE)] {
            start(Settings { kind, events: batch }).unwrap();
            block_on(main(batch));
            stop().unwrap();
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Who {
        Client,
        Other,
    }

    type Order = Rc<RefCell<Vec<Who>>>;

    /// A task that notes whenever it is told that something is there. `again`: there is more as
    /// soon as it has read. Gives back the end that writes.
    fn reader(who: Who, again: bool, order: &Order) -> UnixStream {
        let interest = Interest::BOTH.closing();
        let interest = if who == Who::Client { interest.of_client() } else { interest };
        let (source, socket, mut peer) = pair(|fd| Source::new(fd, interest));
        let order = order.clone();
        let twin = peer.try_clone().unwrap();
        spawn(async move {
            let mut socket = socket;
            loop {
                poll_fn(|cx| source.poll_readable(cx)).await;
                order.borrow_mut().push(who);
                let n = socket.read(&mut [0; 8]).unwrap_or(0);
                source.note_short_read(n);
                if again {
                    peer.write_all(b"x").unwrap();
                }
            }
        });
        twin
    }

    #[test]
    fn answers_come_before_the_requests_that_came_before_them() {
        on_both(|_| async {
            let order = Order::default();
            let make = |who| (0..3).map(|_| reader(who, false, &order)).collect::<Vec<_>>();
            let (mut clients, mut others) = (make(Who::Client), make(Who::Other));
            // Everybody waits, and the news that there is room to write are out of the way.
            for _ in 0..8 {
                yield_now().await;
            }
            assert!(order.borrow().is_empty());
            clients.iter_mut().chain(&mut others).for_each(|end| end.write_all(b"x").unwrap());
            while order.borrow().len() < 6 {
                yield_now().await;
            }
            assert_eq!(order.borrow()[..3], [Who::Other; 3]);
            assert_eq!(order.borrow()[3..], [Who::Client; 3]);
        });
    }

    #[test]
    fn clients_do_not_wait_for_ever() {
        on_both(|batch| async move {
            let order = Order::default();
            let mut others: Vec<_> =
                (0..2 * batch).map(|_| reader(Who::Other, true, &order)).collect();
            let mut clients: Vec<_> =
                (0..2 * batch).map(|_| reader(Who::Client, true, &order)).collect();
            for _ in 0..16 {
                yield_now().await;
            }
            assert!(order.borrow().is_empty());
            others.iter_mut().chain(&mut clients).for_each(|end| end.write_all(b"x").unwrap());
            while order.borrow().len() < 100 * batch {
                yield_now().await;
            }
            let order = order.borrow();
            let clients = order.iter().filter(|&&who| who == Who::Client).count();
            // PATIENCE + 1 batches of the others for one of theirs, up to the ends.
            let share = order.len() / (PATIENCE as usize + 2);
            assert!(
                (share - 2 * batch..=share + 2 * batch).contains(&clients),
                "{clients} of {}",
                order.len()
            );
        });
    }
}
