//! The master's books about its workers: who lives, who is on the way out, whom to start again.
//!
//! Plain state without system calls; time is an argument.

use std::time::{Duration, Instant};

use system::process::{Exit, Pid};

use crate::worker::FATAL;

/// A worker that lived shorter than this died at its start.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// So many deaths at the start are answered at once; further ones are slowed down.
const PATIENCE: u32 = 3;
/// The longest wait before a worker that keeps dying is started again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// One worker process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Child {
    pub pid: Pid,
    /// Counts reloads.
    pub generation: u64,
    /// Its place among the workers of its generation, from 0.
    pub number: usize,
    /// Told to leave: it is not replaced.
    pub leaving: bool,
    born: Instant,
    /// Deaths in a row of this place shortly after birth.
    early_deaths: u32,
}

/// A place that waits for a new worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vacancy {
    pub number: usize,
    pub due: Instant,
    early_deaths: u32,
}

/// What a death means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Death {
    /// It was to leave, or no longer belongs to the serving generation.
    Expected,
    /// Its place, by this number, is to be filled.
    Vacant(usize),
    /// It cannot run at all ([`FATAL`]): starting it again would go on for ever.
    Hopeless,
}

/// All workers that live, and the places that wait for one.
#[derive(Default)]
pub struct Children {
    living: Vec<Child>,
    vacancies: Vec<Vacancy>,
}

impl Children {
    /// Enters a worker that was started for a place.
    pub fn born(&mut self, pid: Pid, generation: u64, number: usize, now: Instant) {
        self.enter(pid, generation, number, now, 0);
    }

    /// Enters the worker that fills a vacancy.
    pub fn filled(&mut self, vacancy: Vacancy, pid: Pid, generation: u64, now: Instant) {
        self.enter(pid, generation, vacancy.number, now, vacancy.early_deaths);
    }

    fn enter(&mut self, pid: Pid, generation: u64, number: usize, born: Instant, early: u32) {
        let early_deaths = early;
        self.living.push(Child { pid, generation, number, leaving: false, born, early_deaths });
    }

    /// Takes out a worker that has died; nothing when the process was none.
    pub fn died(&mut self, pid: Pid, exit: Exit, now: Instant) -> Option<Death> {
        let at = self.living.iter().position(|child| child.pid == pid)?;
        let child = self.living.remove(at);
        if child.leaving {
            return Some(Death::Expected);
        }
        if exit == Exit::Code(FATAL) {
            return Some(Death::Hopeless);
        }
        let short = now.duration_since(child.born) < SHORT_LIFE;
        let early_deaths = if short { child.early_deaths + 1 } else { 0 };
        let due = now + wait_after(early_deaths);
        self.vacancies.push(Vacancy { number: child.number, due, early_deaths });
        Some(Death::Vacant(child.number))
    }

    /// Takes a vacancy whose time has come.
    pub fn due_vacancy(&mut self, now: Instant) -> Option<Vacancy> {
        let at = self.vacancies.iter().position(|vacancy| vacancy.due <= now)?;
        Some(self.vacancies.remove(at))
    }

    /// When the next vacancy is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.vacancies.iter().map(|vacancy| vacancy.due).min()
    }

    /// Puts a vacancy off, because no process could be started.
    pub fn put_off(&mut self, vacancy: Vacancy, now: Instant) {
        let early_deaths = vacancy.early_deaths.max(PATIENCE) + 1;
        let due = now + wait_after(early_deaths);
        self.vacancies.push(Vacancy { due, early_deaths, ..vacancy });
    }

    /// Marks all workers of generations before `generation` as leaving, forgets vacancies, and
    /// returns those that were not leaving yet.
    pub fn leave_before(&mut self, generation: u64) -> Vec<Pid> {
        self.vacancies.clear();
        let told = self.living.iter_mut().filter(|c| c.generation < generation && !c.leaving);
        told.map(|child| {
            child.leaving = true;
            child.pid
        })
        .collect()
    }

    /// All living workers.
    pub fn all(&self) -> impl Iterator<Item = &Child> {
        self.living.iter()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// The generations of leaving workers beyond the newest `most` of them.
    pub fn oldest_leaving(&self, most: usize) -> Vec<u64> {
        let mut generations: Vec<u64> =
            self.living.iter().filter(|child| child.leaving).map(|c| c.generation).collect();
        generations.sort_unstable();
        generations.dedup();
        generations.truncate(generations.len().saturating_sub(most));
        generations
    }
}

fn wait_after(early_deaths: u32) -> Duration {
    match early_deaths.checked_sub(PATIENCE) {
        None | Some(0) => Duration::ZERO,
        Some(more) => (Duration::from_millis(100) * (1 << more.min(10))).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: Exit = Exit::Signal { number: 9, core: false };

    #[test]
    fn a_death_is_answered_by_its_kind() {
        let now = Instant::now();
        for (leaving, exit, expected) in [
            (false, KILLED, Death::Vacant(0)),
            (false, Exit::Code(0), Death::Vacant(0)),
            (false, Exit::Code(FATAL), Death::Hopeless),
            (true, KILLED, Death::Expected),
            (true, Exit::Code(0), Death::Expected),
        ] {
            let mut children = Children::default();
            children.born(Pid(7), 1, 0, now);
            if leaving {
                assert_eq!(children.leave_before(2), [Pid(7)]);
                assert_eq!(children.leave_before(2), []);
            }
            assert_eq!(children.died(Pid(8), exit, now), None);
            assert_eq!(children.died(Pid(7), exit, now), Some(expected));
            assert!(children.is_empty());
            assert_eq!(children.due_vacancy(now).is_some(), expected == Death::Vacant(0));
        }
    }

    #[test]
    fn a_worker_that_keeps_dying_is_slowed_down_and_forgiven() {
        let mut now = Instant::now();
        let mut children = Children::default();
        children.born(Pid(1), 1, 5, now);
        let mut waits = Vec::new();
        for pid in 1..=12 {
            children.died(Pid(pid), KILLED, now);
            let due = children.next_due().unwrap();
            waits.push(due.duration_since(now).as_millis());
            now = due;
            let vacancy = children.due_vacancy(now).unwrap();
            assert_eq!(vacancy.number, 5);
            children.filled(vacancy, Pid(pid + 1), 1, now);
        }
        assert_eq!(waits, [0, 0, 0, 200, 400, 800, 1600, 3200, 6400, 10000, 10000, 10000]);
        now += SHORT_LIFE;
        children.died(Pid(13), KILLED, now);
        assert_eq!(children.next_due(), Some(now));
    }

    #[test]
    fn the_oldest_generations_beyond_the_limit_are_found() {
        let now = Instant::now();
        let mut children = Children::default();
        for generation in 1..=5 {
            children.born(Pid(generation as i32 * 2), generation, 0, now);
            children.born(Pid(generation as i32 * 2 + 1), generation, 1, now);
        }
        children.leave_before(5);
        assert_eq!(children.oldest_leaving(3), [1]);
        assert!(children.oldest_leaving(8).is_empty());
    }
}
