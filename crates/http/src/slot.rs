//! Room for the future of a request, used again and again.
//!
//! A request's future is large: taking it from the allocator and giving it back for each request
//! costs more than everything else that the allocator does for it. A worker keeps the rooms of
//! finished requests; an idle connection holds none.

use crate::connection::{After, Connection};
use crate::journey;
use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

/// How many empty rooms a worker keeps.
const KEPT: usize = 512;

thread_local! {
    static ROOMS: RefCell<Vec<Box<dyn Room>>> = const { RefCell::new(Vec::new()) };
}

/// A place for one request's future at a time.
trait Room {
    /// Puts the future of the connection's next request here.
    fn enter(&mut self, connection: &Rc<Connection>);
    /// Polls it.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<After>;
    /// Drops it.
    fn leave(&mut self);
}

struct RoomFor<M, F> {
    make: M,
    future: Pin<Box<Option<F>>>,
}

impl<M, F> Room for RoomFor<M, F>
where
    M: Fn(Rc<Connection>) -> F,
    F: Future<Output = After>,
{
    fn enter(&mut self, connection: &Rc<Connection>) {
        self.future.set(Some((self.make)(connection.clone())));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<After> {
        match self.future.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Ready(After::Close),
        }
    }

    fn leave(&mut self) {
        self.future.set(None);
    }
}

fn build<M, F>(make: M) -> Box<dyn Room>
where
    M: Fn(Rc<Connection>) -> F + 'static,
    F: Future<Output = After> + 'static,
{
    Box::new(RoomFor { make, future: Box::pin(None) })
}

/// A request under way.
pub(crate) struct Request(Option<Box<dyn Room>>);

/// Begins the connection's next request.
pub(crate) fn request(connection: &Rc<Connection>) -> Request {
    let kept = ROOMS.with_borrow_mut(Vec::pop);
    let mut room = kept
        .unwrap_or_else(|| build(|connection| async move { journey::request(&connection).await }));
    room.enter(connection);
    Request(Some(room))
}

impl Future for Request {
    type Output = After;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<After> {
        match &mut self.0 {
            Some(room) => room.poll(cx),
            None => Poll::Ready(After::Close),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let Some(mut room) = self.0.take() else { return };
        room.leave();
        // At the end of a thread there is nobody left to keep it for.
        let _ = ROOMS.try_with(|rooms| {
            let mut rooms = rooms.borrow_mut();
            if rooms.len() < KEPT {
                rooms.push(room);
            }
        });
    }
}
