//! What happened to a peer lately: when, why, and what was seen. In the group's zone, the last
//! [`EVENTS`] of each peer.
//!
//! Whoever changes a peer's state writes here, under the lock of the state.

use std::sync::atomic::Ordering;

use crate::records::{Line, read_text, write_text};

/// So many events of a peer are kept.
pub(crate) const EVENTS: usize = 8;
/// Lines of one event: two numbers, and a text.
const EACH: usize = 2;
/// Lines of one peer's events.
pub(crate) const LINES: usize = EVENTS * EACH;
/// The longest text.
const TEXT: usize = (EACH * 8 - 2) * 8;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It came to the group.
    Added,
    /// It passed its checks.
    Healthy,
    /// It failed its checks.
    Unhealthy,
    /// Failures of requests took it out.
    Unavailable,
    /// A request showed that it works again.
    Recovered,
    /// It did worse than others.
    Ejected,
    /// An operator took it out.
    Down,
    /// An operator leaves it to the clients that are bound to it.
    Draining,
    /// An operator took it back.
    Up,
}

const ALL: [(What, &str); 9] = [
    (What::Added, "added"),
    (What::Healthy, "healthy"),
    (What::Unhealthy, "unhealthy"),
    (What::Unavailable, "unavail"),
    (What::Recovered, "recovered"),
    (What::Ejected, "ejected"),
    (What::Down, "down"),
    (What::Draining, "draining"),
    (What::Up, "up"),
];

impl What {
    /// A word for it.
    pub fn word(self) -> &'static str {
        ALL[self as usize].1
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Milliseconds since 1970.
    pub when_ms: u64,
    /// What happened.
    pub what: What,
    /// Why, and what was seen.
    pub reason: Box<str>,
}

/// Writes an event in place of the oldest one.
pub(crate) fn note(lines: &[Line], when_ms: u64, what: What, reason: &str) {
    let mut cut = reason.len().min(TEXT);
    while !reason.is_char_boundary(cut) {
        cut -= 1;
    }
    let number = |event: &[Line]| event[0].words[1].load(Ordering::Relaxed) >> 16;
    let newest = lines.chunks_exact(EACH).map(number).max().unwrap_or(0);
    let Some(event) = lines.chunks_exact(EACH).nth(newest as usize % EVENTS) else { return };
    let words = || event.iter().flat_map(|line| &line.words);
    write_text(words().skip(2), &reason.as_bytes()[..cut]);
    let mark = (newest + 1) << 16 | (cut as u64) << 8 | what as u64;
    words().zip([when_ms, mark]).for_each(|(cell, word)| cell.store(word, Ordering::Relaxed));
}

/// The events, the oldest first.
pub(crate) fn read(lines: &[Line]) -> Vec<Event> {
    let mut found: Vec<(u64, Event)> = lines.chunks_exact(EACH).filter_map(read_one).collect();
    found.sort_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, event)| event).collect()
}

fn read_one(event: &[Line]) -> Option<(u64, Event)> {
    let words = || event.iter().flat_map(|line| &line.words);
    let word = |i: usize| event[0].words[i].load(Ordering::Relaxed);
    let (when_ms, mark) = (word(0), word(1));
    if mark == 0 {
        return None;
    }
    let (what, _) = *ALL.get((mark & 0xff) as usize)?;
    let text = read_text(words().skip(2), (mark >> 8 & 0xff) as usize);
    let reason = String::from_utf8_lossy(&text).into();
    Some((mark >> 16, Event { when_ms, what, reason }))
}

/// Forgets all of them.
pub(crate) fn clear(lines: &[Line]) {
    let marks = lines.chunks_exact(EACH).map(|event| &event[0].words[1]);
    marks.filter(|mark| mark.load(Ordering::Relaxed) != 0).for_each(|mark| {
        mark.store(0, Ordering::Relaxed);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_kept_in_their_order() {
        let lines: Vec<Line> = (0..LINES).map(|_| Line { words: Default::default() }).collect();
        assert_eq!(read(&lines), []);
        for n in 0..11 {
            let what = if n % 2 == 0 { What::Unhealthy } else { What::Healthy };
            note(&lines, 1_000 + n, what, &format!("reason {n}"));
        }
        let found = read(&lines);
        assert_eq!(found.len(), EVENTS);
        let last = Event { when_ms: 1_010, what: What::Unhealthy, reason: "reason 10".into() };
        assert_eq!((found[0].when_ms, &found[EVENTS - 1]), (1_003, &last));
        note(&lines, 7, What::Up, &"ü".repeat(100));
        assert_eq!(&*read(&lines)[EVENTS - 1].reason, "ü".repeat(TEXT / 2));
        clear(&lines);
        assert_eq!(read(&lines), []);
        for (at, (what, word)) in ALL.into_iter().enumerate() {
            assert_eq!((what as usize, what.word()), (at, word));
        }
    }
}
