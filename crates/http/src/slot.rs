//! Room for the future of a request, used again and again.
//!
//! A request's future is large: taking it from the allocator and giving it back for each request
//! costs more than everything else that the allocator does for it. A worker keeps the rooms of
//! finished requests; an idle connection holds none.

use crate::connection::{After, Connection};
use crate::http2::{Arrived, Stream};
use crate::journey;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::thread::LocalKey;

/// How many empty rooms of a kind a worker keeps.
const KEPT: usize = 1024;

/// A kind of requests, whose futures have one size.
pub(crate) trait Kind: Sized + 'static {
    /// What a request begins with.
    type Beginning;
    /// What it ends with.
    type End;

    /// Makes another room.
    fn build() -> Box<dyn Room<Self>>;
    /// The empty ones.
    fn rooms() -> &'static LocalKey<Rooms<Self>>;
}

type Rooms<K> = RefCell<Vec<Box<dyn Room<K>>>>;

/// Requests that have a connection for themselves.
pub(crate) struct Whole;

impl Kind for Whole {
    type Beginning = Rc<Connection>;
    type End = After;

    fn build() -> Box<dyn Room<Whole>> {
        RoomFor::build(
            |connection: Rc<Connection>| async move { journey::request(&connection).await },
        )
    }

    fn rooms() -> &'static LocalKey<Rooms<Whole>> {
        thread_local! {
            static ROOMS: Rooms<Whole> = const { RefCell::new(Vec::new()) };
        }
        &ROOMS
    }
}

/// Requests that have a stream of a connection.
pub(crate) struct OfStream;

impl Kind for OfStream {
    type Beginning = (Rc<Connection>, Rc<Stream>, Arrived);
    type End = ();

    fn build() -> Box<dyn Room<OfStream>> {
        RoomFor::build(|(connection, stream, arrived): Self::Beginning| async move {
            journey::stream(&connection, stream, arrived).await;
        })
    }

    fn rooms() -> &'static LocalKey<Rooms<OfStream>> {
        thread_local! {
            static ROOMS: Rooms<OfStream> = const { RefCell::new(Vec::new()) };
        }
        &ROOMS
    }
}

/// A place for one request's future at a time.
pub(crate) trait Room<K: Kind> {
    /// Puts the future of the request that begins so here.
    fn enter(&mut self, beginning: K::Beginning);
    /// Polls it; `None`: nobody is here.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<K::End>>;
    /// Drops it.
    fn leave(&mut self);
}

struct RoomFor<M, F> {
    make: M,
    future: Pin<Box<Option<F>>>,
}

impl<M: 'static, F: 'static> RoomFor<M, F> {
    fn build<K: Kind>(make: M) -> Box<dyn Room<K>>
    where
        M: Fn(K::Beginning) -> F,
        F: Future<Output = K::End>,
    {
        Box::new(RoomFor { make, future: Box::pin(None) })
    }
}

impl<K, M, F> Room<K> for RoomFor<M, F>
where
    K: Kind,
    M: Fn(K::Beginning) -> F,
    F: Future<Output = K::End>,
{
    fn enter(&mut self, beginning: K::Beginning) {
        self.future.set(Some((self.make)(beginning)));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<K::End>> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx).map(Some),
            None => Poll::Ready(None),
        }
    }

    fn leave(&mut self) {
        self.future.set(None);
    }
}

/// A request under way. Its output is `None` only when it is polled after its end.
pub(crate) struct Request<K: Kind>(Option<Box<dyn Room<K>>>);

/// Begins a request.
pub(crate) fn request<K: Kind>(beginning: K::Beginning) -> Request<K> {
    let mut room = K::rooms().with_borrow_mut(Vec::pop).unwrap_or_else(K::build);
    room.enter(beginning);
    Request(Some(room))
}

impl<K: Kind> Future for Request<K> {
    type Output = Option<K::End>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<K::End>> {
        match &mut self.0 {
            Some(room) => room.poll(cx),
            None => Poll::Ready(None),
        }
    }
}

impl<K: Kind> Drop for Request<K> {
    fn drop(&mut self) {
        let Some(mut room) = self.0.take() else { return };
        room.leave();
        // At the end of a thread there is nobody left to keep it for.
        let _ = K::rooms().try_with(|rooms| {
            let mut rooms = rooms.borrow_mut();
            if rooms.len() < KEPT {
                rooms.push(room);
            }
        });
    }
}
