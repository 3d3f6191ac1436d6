//! The driver under each kernel interface. Waits are waits of the loop itself, bounded by a
//! watchdog timer, so nothing sleeps and nothing hangs.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker, ready};

use super::*;

const KINDS: [Kind; 4] = [Kind::Epoll, Kind::Poll, Kind::Select, Kind::IoUring];

/// Runs `main` under epoll, for what only that driver does.
pub(super) fn on_epoll<F: Future<Output = ()>>(main: impl FnOnce() -> F) {
    start(Settings { kind: Kind::Epoll, events: 16 }).unwrap();
    block_on(main());
    stop().unwrap();
}

/// Two connected sockets that do not block, and the source that `made` makes for the first one.
pub(super) fn pair(
    made: impl FnOnce(BorrowedFd<'_>) -> io::Result<Source>,
) -> (Source, UnixStream, UnixStream) {
    let (socket, peer) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    peer.set_nonblocking(true).unwrap();
    (made(socket.as_fd()).unwrap(), socket, peer)
}

/// Runs `main` under every kernel interface; each must finish within 30 seconds of the loop.
fn on_each<F: Future<Output = ()>>(main: impl Fn(Kind) -> F) {
    for kind in KINDS {
        // Under a test runner that reuses threads the driver of a former test may be left.
        start(Settings { kind, events: 8 }).unwrap();
        let watchdog = Timer::new();
        watchdog.set(now() + 30_000);
        let done = block_on(async {
            let mut main = pin!(main(kind));
            poll_fn(|cx| {
                if main.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                watchdog.poll_expired(cx).map(|()| false)
            })
            .await
        });
        assert!(done, "{kind:?}: nothing happened for 30 s");
        assert_eq!(live_tasks(), 0, "{kind:?}");
        drop(watchdog);
        stop().unwrap();
    }
}

struct Pipe {
    source: Source,
    socket: UnixStream,
}

impl Pipe {
    fn new(socket: UnixStream) -> Rc<Pipe> {
        socket.set_nonblocking(true).unwrap();
        let source = Source::new(socket.as_fd(), Interest::BOTH.closing()).unwrap();
        Rc::new(Pipe { source, socket })
    }

    fn pair() -> (Rc<Pipe>, Rc<Pipe>) {
        let (a, b) = UnixStream::pair().unwrap();
        (Pipe::new(a), Pipe::new(b))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.source.poll_readable(cx));
            match (&self.socket).read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_readable();
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> usize {
        poll_fn(|cx| self.poll_read(cx, buffer)).await.unwrap()
    }

    async fn write(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            poll_fn(|cx| self.source.poll_writable(cx)).await;
            match (&self.socket).write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear_writable();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

async fn echo(pipe: Rc<Pipe>) {
    let mut buffer = [0; 1024];
    loop {
        let n = pipe.read(&mut buffer).await;
        if n == 0 {
            return;
        }
        pipe.write(&buffer[..n]).await;
    }
}

#[test]
fn many_tasks_echo() {
    on_each(|_| async {
        let finished = Rc::new(Cell::new(0));
        for seed in 0..100_u8 {
            let (client, server) = Pipe::pair();
            spawn(echo(server));
            let finished = finished.clone();
            spawn(async move {
                for round in 0..20 {
                    client.write(&[seed, round]).await;
                    let mut answer = [0; 2];
                    let n = client.read(&mut answer).await;
                    assert_eq!((n, answer), (2, [seed, round]));
                }
                finished.set(finished.get() + 1);
            });
        }
        assert_eq!(live_tasks(), 200);
        assert!(memory() > 200 * 24);
        while live_tasks() > 0 {
            yield_now().await;
        }
        assert_eq!(finished.get(), 100);
    });
}

#[test]
fn a_full_socket_waits_for_its_reader() {
    on_each(|_| async {
        let (client, server) = Pipe::pair();
        let bytes = 4 << 20;
        spawn(async move {
            client.write(&vec![7; bytes]).await;
        });
        let mut buffer = vec![0; 100_000];
        let mut total = 0;
        loop {
            let n = server.read(&mut buffer).await;
            if n == 0 {
                break;
            }
            total += n;
        }
        assert_eq!(total, bytes);
    });
}

#[test]
fn hanging_up_wakes_who_waits_for_it_and_keeps_the_data() {
    on_each(|kind| async move {
        let (client, server) = Pipe::pair();
        if kind != Kind::Select {
            // select(2) cannot tell while data is unread.
            client.write(b"last words").await;
        }
        spawn(async move {
            yield_now().await;
            drop(client);
        });
        poll_fn(|cx| server.source.poll_hung_up(cx)).await;
        assert!(server.source.hung_up());
        let mut buffer = [0; 64];
        // A read shorter than its buffer must not hide the end that is already known.
        let n = server.read(&mut buffer).await;
        server.source.note_short_read(n);
        if n != 0 {
            assert_eq!(&buffer[..n], b"last words");
            assert_eq!(server.read(&mut buffer).await, 0);
        }
    });
}

#[test]
fn timers_fire_in_order_and_not_early() {
    on_each(|_| async {
        let order = Rc::new(RefCell::new(Vec::new()));
        for ms in [9_u64, 1, 5, 3, 7] {
            let order = order.clone();
            spawn(async move {
                let timer = Timer::new();
                let deadline = now() + ms;
                timer.set(deadline);
                assert_eq!(timer.deadline(), Some(deadline));
                poll_fn(|cx| timer.poll_expired(cx)).await;
                assert!(now() >= deadline);
                order.borrow_mut().push(ms);
            });
        }
        while live_tasks() > 0 {
            yield_now().await;
        }
        assert_eq!(*order.borrow(), [1, 3, 5, 7, 9]);
    });
}

#[test]
fn a_deadline_moves_both_ways_without_another_poll() {
    on_each(|_| async {
        for (first, then) in [(2_u64, 12_u64), (10_000, 4)] {
            let timer = Rc::new(Timer::new());
            let begin = now();
            timer.set(begin + first);
            let mover = timer.clone();
            spawn(async move { mover.set(begin + then) });
            poll_fn(|cx| timer.poll_expired(cx)).await;
            assert!(now() >= begin + then && now() < begin + 5_000, "{first} to {then}");
        }
        // A cleared one never fires.
        let cleared = Rc::new(Timer::new());
        cleared.set(now() + 1);
        let waiting = cleared.clone();
        spawn(async move { poll_fn(|cx| waiting.poll_expired(cx)).await });
        cleared.clear();
        assert_eq!(cleared.deadline(), None);
        let other = Timer::new();
        other.set(now() + 6);
        poll_fn(|cx| other.poll_expired(cx)).await;
        assert_eq!(live_tasks(), 1);
    });
}

#[test]
fn timers_of_short_lives_leave_no_heap_behind() {
    start(Settings::default()).unwrap();
    block_on(async {
        let before = memory();
        for _ in 0..100_000 {
            let timer = Timer::new();
            timer.set(now() + 60_000);
            timer.set(now() + 70_000);
            timer.set(now() + 1_000);
        }
        assert!(memory() - before < 16 << 10, "{} bytes", memory() - before);
    });
    stop().unwrap();
}

#[test]
fn a_busy_task_lets_others_in() {
    on_each(|_| async {
        // One source that is always ready, polled in a loop that never waits by itself.
        let (busy, _peer) = Pipe::pair();
        busy.source.assume_ready();
        let polls = Rc::new(Cell::new(0_u32));
        let counter = polls.clone();
        spawn(poll_fn(move |cx| {
            loop {
                ready!(busy.source.poll_writable(cx));
                counter.set(counter.get() + 1);
            }
        }));
        let (client, server) = Pipe::pair();
        spawn(echo(server));
        for _ in 0..50 {
            client.write(b"x").await;
            assert_eq!(client.read(&mut [0; 8]).await, 1);
        }
        let timer = Timer::new();
        timer.set(now() + 2);
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(polls.get() >= super::task::BUDGET);
    });
}

#[test]
fn late_wakes_touch_nobody_else() {
    on_each(|_| async {
        let stale: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = stale.clone();
        spawn(poll_fn(move |cx| {
            *keep.borrow_mut() = Some(cx.waker().clone());
            Poll::Ready(())
        }));
        while live_tasks() > 0 {
            yield_now().await;
        }
        let stale = stale.take().unwrap();
        stale.wake_by_ref();
        // The next tenant of the slot is polled once, for its start, and not by the old waker.
        let polls = Rc::new(Cell::new(0));
        let counter = polls.clone();
        spawn(poll_fn(move |_| {
            counter.set(counter.get() + 1);
            Poll::<()>::Pending
        }));
        for _ in 0..3 {
            yield_now().await;
            stale.wake_by_ref();
        }
        stale.wake();
        yield_now().await;
        assert_eq!(polls.get(), 1);
    });
}

/// A waker that is not the driver's, as combinators make them.
struct Counting {
    inner: Waker,
    woken: std::sync::atomic::AtomicUsize,
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.inner.wake_by_ref();
    }
}

#[test]
fn foreign_wakers_work() {
    on_each(|_| async {
        let (client, server) = Pipe::pair();
        let timer = Timer::new();
        timer.set(now() + 60_000);
        let mut counting: Option<Arc<Counting>> = None;
        let mut polls = 0;
        spawn(async move {
            yield_now().await;
            client.write(b"y").await;
            // Stay connected until the reader has seen it.
            pending::<()>().await;
        });
        let mut buffer = [0; 8];
        let n = poll_fn(|cx| {
            let inner = counting.get_or_insert_with(|| {
                Arc::new(Counting { inner: cx.waker().clone(), woken: 0.into() })
            });
            let waker = Waker::from(inner.clone());
            let mut cx = Context::from_waker(&waker);
            polls += 1;
            assert!(timer.poll_expired(&mut cx).is_pending());
            server.poll_read(&mut cx, &mut buffer)
        })
        .await;
        assert_eq!(n.unwrap(), 1);
        let counting = counting.unwrap();
        assert_eq!(counting.woken.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert_eq!(polls, 2);
        // Only the timer still holds a clone.
        assert_eq!(Arc::strong_count(&counting), 2);
        drop(timer);
        assert_eq!(Arc::strong_count(&counting), 1);
    });
}

#[test]
fn slots_are_reused() {
    on_each(|_| async {
        let mut settled = 0;
        for round in 0..50 {
            for _ in 0..64 {
                let (client, server) = Pipe::pair();
                spawn(echo(server));
                spawn(async move {
                    client.write(b"z").await;
                    client.read(&mut [0; 4]).await;
                    Timer::new().set(now() + 60_000);
                });
            }
            while live_tasks() > 0 {
                yield_now().await;
            }
            match round {
                10 => settled = memory(),
                11.. => assert!(memory() <= settled + 4096, "{} after {settled}", memory()),
                _ => {}
            }
        }
    });
}

#[test]
fn the_end_of_the_loop_drops_every_task() {
    struct Dropped(Rc<Cell<u32>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            if self.0.get() < 3 {
                let next = Dropped(self.0.clone());
                spawn(async move {
                    pending::<()>().await;
                    drop(next);
                });
            }
        }
    }
    start(Settings::default()).unwrap();
    let count = Rc::new(Cell::new(0));
    let first = Dropped(count.clone());
    spawn(async move {
        pending::<()>().await;
        drop(first);
    });
    block_on(yield_now());
    assert_eq!((count.get(), live_tasks()), (3, 0));
    // A second run starts clean.
    assert_eq!(block_on(async { 5 }), 5);
    stop().unwrap();
}

#[test]
fn a_panic_passes_through_and_leaves_a_working_driver() {
    start(Settings::default()).unwrap();
    let caught = std::panic::catch_unwind(|| {
        block_on(async {
            let (_client, server) = Pipe::pair();
            spawn(echo(server));
            spawn(async { panic!("a task's own fault") });
            pending::<()>().await;
        });
    });
    assert!(caught.is_err());
    assert_eq!(live_tasks(), 0);
    block_on(async {
        let (client, server) = Pipe::pair();
        spawn(echo(server));
        client.write(b"again").await;
        assert_eq!(client.read(&mut [0; 8]).await, 5);
    });
    stop().unwrap();
}

#[test]
fn a_driver_in_use_is_not_replaced() {
    start(Settings::default()).unwrap();
    let timer = Timer::new();
    assert_eq!(start(Settings::default()).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(stop().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    drop(timer);
    start(Settings::default()).unwrap();
    stop().unwrap();
}

#[test]
fn descriptors_that_cannot_be_watched_are_refused() {
    let file = std::fs::File::open("/proc/self/exe").unwrap();
    start(Settings::default()).unwrap();
    let error = Source::new(file.as_fd(), Interest::READ).map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    start(Settings { kind: Kind::Select, events: 0 }).unwrap();
    let (low, _peer) = UnixStream::pair().unwrap();
    let limit = libc::FD_SETSIZE as i32;
    let high = rustix::io::fcntl_dupfd_cloexec(&low, limit).unwrap();
    let error = Source::new(high.as_fd(), Interest::BOTH).map(drop).unwrap_err();
    assert!(error.to_string().contains("it holds only those below 1024"), "{error}");
    stop().unwrap();
}

fn listener() -> (TcpListener, Source) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let source = Source::new(listener.as_fd(), Interest::ACCEPT).unwrap();
    (listener, source)
}

#[test]
fn a_listener_reports_again_while_connections_wait() {
    on_each(|_| async {
        let (listener, source) = listener();
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        // The loop turns with nobody waiting: the listener must be there afterwards all the same.
        yield_now().await;
        yield_now().await;
        for taken in 0..5 {
            poll_fn(|cx| source.poll_readable(cx)).await;
            listener.accept().unwrap();
            source.clear_readable();
            if taken == 2 {
                source.requeue().unwrap();
            }
        }
        assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn a_paused_listener_is_silent() {
    on_each(|_| async {
        let (listener, source) = listener();
        source.pause();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let timer = Timer::new();
        timer.set(now() + 3);
        poll_fn(|cx| {
            assert!(source.poll_readable(cx).is_pending());
            timer.poll_expired(cx)
        })
        .await;
        source.resume().unwrap();
        poll_fn(|cx| source.poll_readable(cx)).await;
        listener.accept().unwrap();
    });
}

#[test]
fn events_of_a_closed_descriptor_do_not_reach_its_successor() {
    on_each(|_| async {
        for _ in 0..10 {
            let (old, peer) = Pipe::pair();
            peer.write(b"pending").await;
            drop(old);
            // The successor takes the same descriptor and the same slot, and has nothing to read.
            let (new, _peer) = Pipe::pair();
            yield_now().await;
            let readable = poll_fn(|cx| Poll::Ready(new.source.poll_readable(cx).is_ready())).await;
            assert!(!readable && !new.source.hung_up());
        }
    });
}

#[test]
fn clocks_advance() {
    on_each(|_| async {
        let (begin, wall_begin, us) = (now(), wall(), precise_now_us());
        let timer = Timer::new();
        timer.set(begin + 3);
        poll_fn(|cx| timer.poll_expired(cx)).await;
        assert!(now() >= begin + 3 && precise_now_us() >= us + 2_000);
        assert!(wall() >= wall_begin && wall().0 > 1_700_000_000 && wall().1 < 1_000);
    });
}

#[test]
fn a_child_of_a_running_parent_starts_afresh() {
    for kind in [Kind::Epoll, Kind::IoUring] {
        child_of_a_running_parent(Settings { kind, events: 8 });
    }
}

fn child_of_a_running_parent(settings: Settings) {
    start(settings).unwrap();
    let (client, server) = Pipe::pair();
    spawn(echo(server));
    // SAFETY: the child only uses this thread's driver and leaves by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let outcome = std::panic::catch_unwind(|| {
            start(settings).unwrap();
            assert_eq!(live_tasks(), 0);
            block_on(async {
                let (client, server) = Pipe::pair();
                spawn(echo(server));
                client.write(b"child").await;
                assert_eq!(client.read(&mut [0; 8]).await, 5);
            });
        });
        // SAFETY: ends the child without running the parent's destructors.
        unsafe { libc::_exit(i32::from(outcome.is_err())) };
    }
    let mut status = -1;
    // SAFETY: the child is ours and `status` outlives the call.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!((waited, status), (child, 0));
    block_on(async {
        client.write(b"parent").await;
        assert_eq!(client.read(&mut [0; 8]).await, 6);
        drop(client);
    });
    stop().unwrap();
}
