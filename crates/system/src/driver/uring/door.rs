//! The one call that a ring needs while it works: `io_uring_enter(2)`, by a number that the
//! kernel finds the ring with at once, where it gives one.

use std::io;
use std::os::fd::RawFd;
use std::ptr;

use io_uring::EnterFlags;
use io_uring::types::{SubmitArgs, Timespec};

/// `IORING_REGISTER_RING_FDS`, since Linux 5.18: one `io_uring_rsrc_update` for each ring.
const REGISTER_RING: libc::c_uint = 20;
const UNREGISTER_RING: libc::c_uint = 21;
/// `IORING_ENTER_REGISTERED_RING`.
const BY_NUMBER: u32 = 1 << 4;

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct Update {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// How this thread names its ring to the kernel.
pub(super) struct Door {
    ring: RawFd,
    /// The number that stands for the descriptor, if there is one.
    number: Option<u32>,
}

impl Door {
    /// The door of a ring that belongs to this thread.
    pub(super) fn new(ring: RawFd) -> Door {
        let mut update = Update { offset: u32::MAX, reserved: 0, data: ring as u64 };
        let registered = register(ring, REGISTER_RING, &mut update);
        Door { ring, number: registered.ok().map(|_| update.offset) }
    }

    /// Submits, and waits for `wanted` completions, for so many milliseconds at most.
    ///
    /// # Errors
    /// As `io_uring_enter(2)`: interrupted, timed out, too many completions unseen.
    #[inline]
    pub(super) fn enter(
        &self,
        submit: u32,
        wanted: u32,
        flags: EnterFlags,
        timeout_ms: Option<u64>,
    ) -> io::Result<()> {
        let limit = timeout_ms
            .map(|ms| Timespec::new().sec(ms / 1_000).nsec((ms % 1_000) as u32 * 1_000_000));
        let arguments = limit.as_ref().map(|limit| SubmitArgs::new().timespec(limit));
        let (pointer, flags) = match &arguments {
            Some(arguments) => (ptr::from_ref(arguments), flags | EnterFlags::EXT_ARG),
            None => (ptr::null(), flags),
        };
        let (ring, flags) = match self.number {
            Some(number) => (number, flags.bits() | BY_NUMBER),
            None => (self.ring as u32, flags.bits()),
        };
        let size = if pointer.is_null() { 0 } else { size_of::<SubmitArgs<'_, '_>>() };
        // SAFETY: the argument is what EXT_ARG announces, and outlives the call. What the entries
        // point to is kept by their makers.
        let n = unsafe {
            libc::syscall(libc::SYS_io_uring_enter, ring, submit, wanted, flags, pointer, size)
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Gives the number back, which would keep the ring alive after its descriptor is closed.
    pub(super) fn close(&mut self) {
        if let Some(number) = self.number.take() {
            let mut update = Update { offset: number, reserved: 0, data: 0 };
            let _ = register(self.ring, UNREGISTER_RING, &mut update);
        }
    }
}

fn register(ring: RawFd, what: libc::c_uint, update: &mut Update) -> io::Result<()> {
    // SAFETY: both calls take one update, which the kernel reads and writes before it returns.
    let done =
        unsafe { libc::syscall(libc::SYS_io_uring_register, ring, what, ptr::from_mut(update), 1) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
