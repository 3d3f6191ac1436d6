//! Memory that the master and its workers share: zones of plain data.
//!
//! A [`Zone`] is anonymous memory that children inherit over fork. Only types without pointers
//! enter it ([`Plain`], declared with [`plain!`](crate::plain)); they are changed through atomics
//! or under a [`Guarded`] lock. A process that is killed while it holds a lock leaves it to the
//! next one, who is told and may repair what it guards.
//!
//! All memory shared between processes stands in this file; what goes into a zone and how it
//! survives a reload is decided by its users.

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::*;
use std::time::Duration;

use crate::process::{own_pid, stat_field};

/// A type that may lie in a zone.
///
/// # Safety
///
/// The type holds no pointer, reference or descriptor, needs no drop, and all bits zero are a
/// value of it. Its layout is fixed (`repr(C)` or a primitive). It is changed behind a shared
/// reference only by atomics or a lock that works between processes.
pub unsafe trait Plain: Sync + Sized + 'static {
    /// A number that changes when the layout does.
    const LAYOUT: u64;
}

macro_rules! plain_primitives {
    ($($kind:ty),* $(,)?) => {
        $(
            // SAFETY: integers and atomics hold no pointer, and zero is a value of each.
            unsafe impl Plain for $kind {
                const LAYOUT: u64 = layout_of_name(stringify!($kind));
            }
        )*
    };
}

plain_primitives!(
    u8,
    u16,
    u32,
    u64,
    u128,
    usize,
    i8,
    i16,
    i32,
    i64,
    i128,
    isize,
    f32,
    f64,
    AtomicU8,
    AtomicU16,
    AtomicU32,
    AtomicU64,
    AtomicUsize,
    AtomicI8,
    AtomicI16,
    AtomicI32,
    AtomicI64,
    AtomicIsize,
    AtomicBool,
);

// SAFETY: an array of plain values is plain.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {
    const LAYOUT: u64 = mix_layout(mix_layout(layout_of_name("array"), T::LAYOUT), N as u64);
}

/// Begins a layout number with a name (FNV-1a).
pub const fn layout_of_name(name: &str) -> u64 {
    let bytes = name.as_bytes();
    let mut hash = 0xcbf2_9ce4_8422_2325;
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x100_0000_01b3);
        index += 1;
    }
    hash
}

/// Goes on with a number: an offset, a length, a part's own layout number.
pub const fn mix_layout(hash: u64, value: u64) -> u64 {
    let mixed = (hash ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 29)
}

/// Declares structures for a zone: `repr(C)`, each field [`Plain`], which the compiler proves.
///
/// ```
/// system::plain! {
///     /// What all workers know of one peer.
///     pub struct Peer {
///         pub active: std::sync::atomic::AtomicU32,
///         pub weight: u32,
///     }
/// }
/// ```
#[macro_export]
macro_rules! plain {
    ($(
        $(#[$note:meta])*
        $seen:vis struct $name:ident {
            $($(#[$field_note:meta])* $field_seen:vis $field:ident : $kind:ty),* $(,)?
        }
    )*) => {
        $(
            $(#[$note])*
            #[repr(C)]
            $seen struct $name {
                $($(#[$field_note])* $field_seen $field: $kind,)*
            }

            // SAFETY: the structure is repr(C), and naming each field's own `LAYOUT` proves
            // that each is plain; so no field holds a pointer and all zeroes is a value.
            unsafe impl $crate::shared::Plain for $name {
                const LAYOUT: u64 = {
                    let hash = $crate::shared::layout_of_name(stringify!($name));
                    let hash = $crate::shared::mix_layout(hash, size_of::<$name>() as u64);
                    $(
                        let hash = $crate::shared::mix_layout(
                            $crate::shared::mix_layout(
                                hash,
                                ::core::mem::offset_of!($name, $field) as u64,
                            ),
                            <$kind as $crate::shared::Plain>::LAYOUT,
                        );
                    )*
                    hash
                };
            }

            const _: () = assert!(!::core::mem::needs_drop::<$name>());
        )*
    };
}

/// What stands at the start of each zone.
#[repr(C)]
struct ZoneHeader {
    magic: AtomicU64,
    /// Layout number of what lies in the zone; 0 until the first use.
    layout: AtomicU64,
    generation: AtomicU64,
}

const MAGIC: u64 = 0x6865_6e67_7a6f_6e65; // "hengzone"

/// Room for the header; a multiple of every alignment up to a cache line.
const HEADER_BYTES: usize = 64;
const _: () = assert!(size_of::<ZoneHeader>() <= HEADER_BYTES);

/// Shared memory of a fixed size. Unmapped when the last owner in this process lets go.
pub struct Zone {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is valid in the whole process, and is read and written only through
// atomics and `Plain` types, which are Sync.
unsafe impl Send for Zone {}
// SAFETY: as above.
unsafe impl Sync for Zone {}

/// Why a zone cannot be used as asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ZoneError {
    /// The zone holds another kind of data already.
    OtherLayout,
    /// Not even the header and one cell fit.
    TooSmall { needed: usize, length: usize },
    /// Its first bytes were overwritten.
    Corrupt,
}

impl fmt::Display for ZoneError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ZoneError::OtherLayout => out.write_str("zone holds another kind of data"),
            ZoneError::TooSmall { needed, length } => {
                write!(out, "zone of {length} bytes is too small, {needed} are needed")
            }
            ZoneError::Corrupt => out.write_str("zone header was overwritten"),
        }
    }
}

impl std::error::Error for ZoneError {}

impl Zone {
    /// Maps at least `length` bytes of zeroes; memory is taken from the system when it is first
    /// written. Errors as `mmap(2)`: too little memory, or a length of 0.
    pub fn new(length: usize) -> io::Result<Zone> {
        use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let length = length.max(HEADER_BYTES);
        // SAFETY: a null hint lets the kernel choose the place, so nothing of ours is remapped.
        let base =
            unsafe { mmap_anonymous(std::ptr::null_mut(), length, access, MapFlags::SHARED)? };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        let zone = Zone { base, length };
        zone.header().magic.store(MAGIC, Ordering::Relaxed);
        Ok(zone)
    }

    /// Size in bytes, its own header included.
    pub fn length(&self) -> usize {
        self.length
    }

    /// How often [`Zone::begin_generation`] was called.
    pub fn generation(&self) -> u64 {
        self.header().generation.load(Ordering::Acquire)
    }

    /// Starts the next generation and returns its number. The master does so at each reload.
    pub fn begin_generation(&self) -> u64 {
        self.header().generation.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Views the zone as one `H` followed by as many `T` as fit. All zeroes at the first use;
    /// afterwards the same types must be asked for.
    pub fn view<H: Plain, T: Plain>(self: &Arc<Zone>) -> Result<View<H, T>, ZoneError> {
        let cells_at = cells_offset::<H, T>();
        let needed = cells_at + size_of::<T>();
        if self.length < needed {
            return Err(ZoneError::TooSmall { needed, length: self.length });
        }
        let header = self.header();
        if header.magic.load(Ordering::Relaxed) != MAGIC {
            return Err(ZoneError::Corrupt);
        }
        let wanted = mix_layout(mix_layout(H::LAYOUT, T::LAYOUT), 1);
        match header.layout.compare_exchange(0, wanted, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(found) if found == wanted => {}
            Err(_) => return Err(ZoneError::OtherLayout),
        }
        let count = (self.length - cells_at) / size_of::<T>().max(1);
        Ok(View { zone: self.clone(), count, kinds: PhantomData })
    }

    fn header(&self) -> &ZoneHeader {
        // SAFETY: the mapping is page-aligned, longer than the header, and zeroes or atomics.
        unsafe { self.base.cast().as_ref() }
    }
}

/// Where the cells begin: behind the zone's header and the user's, on a cache line of their own.
const fn cells_offset<H, T>() -> usize {
    assert!(align_of::<H>() <= HEADER_BYTES && align_of::<T>() <= HEADER_BYTES);
    (HEADER_BYTES + size_of::<H>()).next_multiple_of(HEADER_BYTES)
}

impl Drop for Zone {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped; views keep the zone alive, so nothing
        // points into it any more.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Zone({} bytes)", self.length)
    }
}

/// A zone seen as one header and cells. Cheap to clone.
pub struct View<H, T> {
    zone: Arc<Zone>,
    count: usize,
    kinds: PhantomData<fn() -> (H, T)>,
}

impl<H: Plain, T: Plain> View<H, T> {
    /// The one header.
    pub fn header(&self) -> &H {
        // SAFETY: `Zone::view` proved that H fits behind the zone's header; the place is aligned
        // to 64 bytes, `cells_offset` refuses stricter types, and all zeroes is a value.
        unsafe { self.zone.base.add(HEADER_BYTES).cast().as_ref() }
    }

    /// All cells that fit; how many are in use is for the header to say.
    pub fn cells(&self) -> &[T] {
        // SAFETY: `Zone::view` counted how many fit between this aligned place and the end.
        unsafe {
            let first = self.zone.base.add(cells_offset::<H, T>()).cast();
            NonNull::slice_from_raw_parts(first, self.count).as_ref()
        }
    }

    /// The zone itself.
    pub fn zone(&self) -> &Arc<Zone> {
        &self.zone
    }
}

impl<H, T> Clone for View<H, T> {
    fn clone(&self) -> Self {
        View { zone: self.zone.clone(), count: self.count, kinds: PhantomData }
    }
}

impl<H, T> fmt::Debug for View<H, T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "View({:?}, {} cells)", self.zone, self.count)
    }
}

/// A value in a zone under a lock that survives the death of its holder.
///
/// The lock word holds the holder's process number (low half, with a flag for waiters) and the
/// low 32 bits of the time it was born at (high half), so that a number that the system gave out
/// again is not taken for the old holder. Zeroes mean free.
#[repr(C)]
pub struct Guarded<T> {
    word: AtomicU64,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached only by the holder of the lock.
unsafe impl<T: Plain> Sync for Guarded<T> {}

// SAFETY: repr(C) of an atomic and a plain value; zeroes are a free lock around a zero value.
unsafe impl<T: Plain> Plain for Guarded<T> {
    const LAYOUT: u64 = mix_layout(layout_of_name("guarded"), T::LAYOUT);
}

const WAITERS: u64 = 1 << 31;

/// How long a waiter sleeps before it looks whether the holder is alive.
const PATIENCE: Duration = Duration::from_millis(10);

/// Turns before a waiter goes to sleep; a holder on another processor is usually done by then.
const SPINS: u32 = 64;

/// The outcome of [`Guarded::lock`].
pub enum Locked<'a, T> {
    /// The last holder left properly.
    Clean(Held<'a, T>),
    /// The last holder died inside; the value may be half changed: repair or reset it.
    Recovered(Held<'a, T>),
}

impl<'a, T> Locked<'a, T> {
    /// The value; `repair` runs first when the last holder died inside.
    pub fn or_repair(self, repair: impl FnOnce(&mut T)) -> Held<'a, T> {
        match self {
            Locked::Clean(held) => held,
            Locked::Recovered(mut held) => {
                repair(&mut held);
                held
            }
        }
    }
}

/// Holds the lock of a [`Guarded`] until it is dropped.
pub struct Held<'a, T> {
    guarded: &'a Guarded<T>,
    // Not Send: the lock belongs to this process and thread.
    local: PhantomData<*const ()>,
}

impl<T: Plain> Guarded<T> {
    /// A free lock around a value, for use outside of a zone.
    pub const fn new(value: T) -> Guarded<T> {
        Guarded { word: AtomicU64::new(0), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock. Not reentrant: asking twice in one process waits for ever.
    pub fn lock(&self) -> Locked<'_, T> {
        let own = own_mark();
        for _ in 0..SPINS {
            if self.word.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Locked::Clean(self.held());
            }
            std::hint::spin_loop();
        }
        self.lock_patiently(own)
    }

    /// The lock, unless somebody holds it (a dead holder counts as nobody).
    pub fn try_lock(&self) -> Option<Locked<'_, T>> {
        let own = own_mark();
        match self.word.compare_exchange(0, own, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Some(Locked::Clean(self.held())),
            Err(found) if is_dead(found) => {
                let taken =
                    self.word.compare_exchange(found, own, Ordering::Acquire, Ordering::Relaxed);
                taken.is_ok().then(|| Locked::Recovered(self.held()))
            }
            Err(_) => None,
        }
    }

    fn lock_patiently(&self, own: u64) -> Locked<'_, T> {
        loop {
            let found = self.word.load(Ordering::Relaxed);
            if found == 0 {
                // With the flag, because others may sleep as well: the next unlock wakes one.
                let marked = own | WAITERS;
                let free =
                    self.word.compare_exchange(0, marked, Ordering::Acquire, Ordering::Relaxed);
                if free.is_ok() {
                    return Locked::Clean(self.held());
                }
                continue;
            }
            let marked = found | WAITERS;
            if found != marked
                && self
                    .word
                    .compare_exchange(found, marked, Ordering::Relaxed, Ordering::Relaxed)
                    .is_err()
            {
                continue;
            }
            self.sleep_while(marked);
            if self.word.load(Ordering::Relaxed) == marked && is_dead(marked) {
                let heir = own | WAITERS;
                let taken =
                    self.word.compare_exchange(marked, heir, Ordering::Acquire, Ordering::Relaxed);
                if taken.is_ok() {
                    return Locked::Recovered(self.held());
                }
            }
        }
    }

    fn held(&self) -> Held<'_, T> {
        Held { guarded: self, local: PhantomData }
    }

    fn sleep_while(&self, word: u64) {
        let limit = libc::timespec { tv_sec: 0, tv_nsec: PATIENCE.subsec_nanos().into() };
        // SAFETY: the address is that of the low half of a living atomic, and the time-out
        // outlives the call. Every outcome (woken, changed, timed out, interrupted) is the same
        // to the caller, which looks at the word again.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.futex_address(),
                libc::FUTEX_WAIT,
                word as u32,
                &raw const limit,
            );
        }
    }
}

impl<T> Guarded<T> {
    fn wake_one(&self) {
        // SAFETY: as in `sleep_while`; waking touches no memory.
        unsafe { libc::syscall(libc::SYS_futex, self.futex_address(), libc::FUTEX_WAKE, 1) };
    }

    /// The half of the word that holds the process number.
    fn futex_address(&self) -> *mut u32 {
        let low = if cfg!(target_endian = "little") { 0 } else { 1 };
        // SAFETY: both halves lie inside the atomic.
        unsafe { self.word.as_ptr().cast::<u32>().add(low) }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: the lock is held, nobody else reaches the value.
        unsafe { &*self.guarded.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and `self` is borrowed alone.
        unsafe { &mut *self.guarded.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        if self.guarded.word.swap(0, Ordering::Release) & WAITERS != 0 {
            self.guarded.wake_one();
        }
    }
}

/// The lock word of this process, computed at the first use after each fork.
static OWN_MARK: AtomicU64 = AtomicU64::new(0);

/// A forked child is another process than the one whose mark was remembered.
pub(crate) fn forget_own_birth() {
    OWN_MARK.store(0, Ordering::Relaxed);
}

/// What tells this process from all others that live or lived: its number and its birth. Never 0.
/// For entries of a zone that belong to a process; see [`is_dead`].
pub fn own_mark() -> u64 {
    let known = OWN_MARK.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    let pid = own_pid().0 as u32;
    let born = match birth_of(pid) {
        Birth::At(ticks) => ticks,
        Birth::Ended | Birth::Hidden => 0,
    };
    let mark = u64::from(born) << 32 | u64::from(pid);
    OWN_MARK.store(mark, Ordering::Relaxed);
    mark
}

/// What /proc tells of a process.
enum Birth {
    /// It lives, born at this many clock ticks after boot (low 32 bits).
    At(u32),
    /// It has ended and waits to be collected.
    Ended,
    /// There is no such process, or /proc is absent or hides it (`hidepid=`).
    Hidden,
}

fn birth_of(pid: u32) -> Birth {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return Birth::Hidden;
    };
    let behind_name = status.rfind(')').map_or("", |at| &status[at + 1..]);
    match (behind_name.trim_start().chars().next(), stat_field(&status, 22)) {
        (Some('Z' | 'X'), _) => Birth::Ended,
        (Some(_), Some(ticks)) => Birth::At(ticks as u32),
        _ => Birth::Hidden,
    }
}

/// Whether the process of a mark is gone: [`own_mark`], or a lock's word. Reads a file of /proc.
pub fn is_dead(word: u64) -> bool {
    let (pid, born) = ((word & !WAITERS) as u32, (word >> 32) as u32);
    match birth_of(pid) {
        Birth::At(found) => born != 0 && found != born,
        Birth::Ended => true,
        Birth::Hidden => !crate::signals::exists(crate::process::Pid(pid as i32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::{Exit, Fork, exit_now, fork, wait_for};

    plain! {
        /// A header for the tests.
        struct Totals {
            sum: AtomicU64,
            account: Guarded<Account>,
        }

        struct Account {
            left: u64,
            right: u64,
        }

        struct Cell {
            hits: AtomicU32,
            history: [u16; 3],
        }
    }

    fn child(work: impl FnOnce()) -> crate::process::Pid {
        match fork().unwrap() {
            Fork::Parent { child } => child,
            Fork::Child => {
                work();
                exit_now(0)
            }
        }
    }

    fn zone() -> Arc<Zone> {
        Arc::new(Zone::new(64 * 1024).unwrap())
    }

    #[test]
    fn children_write_what_the_parent_reads() {
        let view = zone().view::<Totals, Cell>().unwrap();
        assert!(view.cells().len() > 1000);
        let last = view.cells().last().unwrap();
        assert_eq!(last.history, [0; 3]);
        let children: Vec<_> = (0..3)
            .map(|_| {
                child(|| {
                    view.header().sum.fetch_add(5, Ordering::Relaxed);
                    last.hits.fetch_add(1, Ordering::Relaxed);
                })
            })
            .collect();
        for child in children {
            assert_eq!(wait_for(child).unwrap(), Exit::Code(0));
        }
        assert_eq!(view.header().sum.load(Ordering::Relaxed), 15);
        assert_eq!(last.hits.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_zone_keeps_its_kind() {
        let zone = zone();
        drop(zone.view::<Totals, Cell>().unwrap());
        assert!(zone.view::<Totals, Cell>().is_ok());
        assert_eq!(zone.view::<AtomicU64, Cell>().unwrap_err(), ZoneError::OtherLayout);
        assert_eq!(zone.view::<Totals, AtomicU8>().unwrap_err(), ZoneError::OtherLayout);
        let small = Arc::new(Zone::new(1).unwrap());
        let expected = ZoneError::TooSmall { needed: 136, length: 64 };
        assert_eq!(small.view::<AtomicU64, AtomicU64>().unwrap_err(), expected);
        assert_eq!((zone.generation(), zone.begin_generation(), zone.generation()), (0, 1, 1));
    }

    #[test]
    fn layouts_differ_when_fields_do() {
        mod other {
            plain! { pub(super) struct Cell { pub(super) hits: u32, pub(super) history: [u16; 3] } }
        }
        let cell = other::Cell { hits: 0, history: [0; 3] };
        assert_eq!((cell.hits, cell.history.len()), (0, 3));
        assert_ne!(<Cell as Plain>::LAYOUT, <other::Cell as Plain>::LAYOUT);
        assert_ne!(<[u8; 3] as Plain>::LAYOUT, <[u8; 4] as Plain>::LAYOUT);
    }

    #[test]
    fn a_lock_keeps_processes_apart() {
        let view = zone().view::<Totals, Cell>().unwrap();
        let turns = 2000;
        let children: Vec<_> = (0..4)
            .map(|_| {
                child(|| {
                    for _ in 0..turns {
                        let mut account = view.header().account.lock().or_repair(|_| exit_now(3));
                        account.left += 1;
                        std::hint::black_box(&account);
                        account.right += 1;
                    }
                })
            })
            .collect();
        for child in children {
            assert_eq!(wait_for(child).unwrap(), Exit::Code(0));
        }
        let Locked::Clean(account) = view.header().account.lock() else { panic!("nobody died") };
        assert_eq!((account.left, account.right), (4 * turns, 4 * turns));
    }

    #[test]
    fn the_next_holder_repairs_what_a_dead_one_left() {
        let view = zone().view::<Totals, Cell>().unwrap();
        let killed = child(|| {
            let mut account = view.header().account.lock().or_repair(|_| exit_now(3));
            account.left += 1;
            exit_now(9)
        });
        // Not collected yet: a zombie is as dead as a process that is gone.
        let account = view.header().account.lock().or_repair(|account| account.right = 77);
        let seen = (account.left, account.right);
        drop(account);
        assert_eq!(wait_for(killed).unwrap(), Exit::Code(9));
        // The child may be slower than this process, whose lock is clean then.
        if seen == (0, 0) {
            let account = view.header().account.lock().or_repair(|account| account.right = 77);
            assert_eq!((account.left, account.right), (1, 77));
        } else {
            assert_eq!(seen, (1, 77));
        }
        assert!(
            view.header()
                .account
                .try_lock()
                .is_some_and(|locked| { matches!(locked, Locked::Clean(_)) })
        );
    }

    #[test]
    fn a_reused_number_is_not_the_old_holder() {
        let guarded = Guarded::new(5u32);
        let own = own_mark();
        let born = own >> 32;
        guarded.word.store((born ^ 1) << 32 | (own & 0xffff_ffff), Ordering::Relaxed);
        assert!(matches!(guarded.try_lock(), Some(Locked::Recovered(_))));
        let held = guarded.lock().or_repair(|_| panic!("left properly"));
        assert!(guarded.try_lock().is_none());
        assert_eq!(*held, 5);
    }
}
