//! A read-write lock for a partition that is searched all the time and changed in short sections.
//!
//! ```text
//!   search   read() ── a writer is about to get the lock? pause, at most 50 µs ── search
//!   planner  turn() ── turn.read() ── plan for as long as it takes
//!   writer   turn() ── turn.change() ── announce, try until the searches under way are over ── change ── let go
//! ```
//!
//! With a plain read-write lock, searches sleep in two cases. A writer that waits holds up all new readers, for as long as the
//! slowest reader under way takes, which is a planner; and whoever sleeps on a lock is woken late, by some tens of microseconds, where the
//! section that it slept for takes five. So planners and writers take turns among themselves first, where no search waits, and then a
//! writer keeps trying while new searches pause without sleeping. Neither lasts: a search that has paused long enough goes
//! ahead, and a writer that has tried long enough waits in the lock's own queue, which lets nobody starve.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a search pauses for a writer. Ten times what a write section takes, and half of what a search does.
const PAUSE_MAX: Duration = Duration::from_micros(50);
/// How long a writer tries before it waits, and new searches with it. Some searches' time.
const TRIES_MAX: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug, Default)]
pub struct SearchLock<T> {
    value: RwLock<T>,
    turns: Mutex<()>,
    /// Whether a writer tries to get the value, or has it.
    is_wanted: AtomicBool,
}

/// The right to be the next writer, or to read for long. One at a time has it.
#[derive(Debug)]
pub struct Turn<'a, T> {
    lock: &'a SearchLock<T>,
    turn: MutexGuard<'a, ()>,
}

/// The value, for a change.
#[derive(Debug)]
pub struct Change<'a, T> {
    // In the order in which they are let go.
    value: RwLockWriteGuard<'a, T>,
    _announced: Announced<'a>,
    _turn: MutexGuard<'a, ()>,
}

/// While it lives, new searches pause.
#[derive(Debug)]
struct Announced<'a>(&'a AtomicBool);

impl<T> SearchLock<T> {
    /// A lock around a value.
    pub fn new(value: T) -> Self {
        Self { value: RwLock::new(value), turns: Mutex::new(()), is_wanted: AtomicBool::new(false) }
    }

    /// The value, for a search or another short look. Waits for no planner.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        if self.is_wanted.load(Ordering::Acquire) {
            try_for(PAUSE_MAX, || (!self.is_wanted.load(Ordering::Acquire)).then_some(()));
        }
        self.value.read()
    }

    /// Waits for planners and writers, but for no search.
    pub fn turn(&self) -> Turn<'_, T> {
        Turn { lock: self, turn: self.turns.lock() }
    }

    /// The value, for a short change, once it is this thread's turn.
    pub fn change(&self) -> Change<'_, T> {
        self.turn().change()
    }
}

impl<'a, T> Turn<'a, T> {
    /// The value, for a planner: searches go on, and writers wait for their turn.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.lock.value.read()
    }

    /// The value, for a short change, once the searches under way are over.
    pub fn change(self) -> Change<'a, T> {
        let SearchLock { value, is_wanted, .. } = self.lock;
        let announced = Announced::new(is_wanted);
        let value = try_for(TRIES_MAX, || value.try_write()).unwrap_or_else(|| value.write());
        Change { value, _announced: announced, _turn: self.turn }
    }
}

impl<'a> Announced<'a> {
    fn new(is_wanted: &'a AtomicBool) -> Self {
        is_wanted.store(true, Ordering::Release);
        Self(is_wanted)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl<T> Deref for Change<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for Change<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// Tries again and again, without sleeping, and gives the core to others in between.
fn try_for<T>(time: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        let outcome = attempt();
        if outcome.is_some() || start.elapsed() >= time {
            return outcome;
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Long enough for a thread that was told to go on to block where it will block.
    const A_WHILE: Duration = Duration::from_millis(20);

    #[test]
    fn searches_go_on_while_a_writer_waits_for_a_planner() {
        let lock = SearchLock::new(1);
        std::thread::scope(|scope| {
            let turn = lock.turn();
            let planned = turn.read();
            let writer = scope.spawn(|| *lock.change() += 1);
            std::thread::sleep(A_WHILE);
            // With a plain lock, this would wait for the writer, which waits for the planner, which is this thread.
            assert_eq!(*lock.read(), 1);
            drop(planned);
            drop(turn);
            writer.join().unwrap();
        });
        assert_eq!(*lock.read(), 2);
    }

    #[test]
    fn a_writer_gets_through_searches_that_never_all_end() {
        let lock = SearchLock::new(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !is_over.load(Ordering::Relaxed) {
                        let _value = lock.read();
                        std::thread::sleep(TRIES_MAX);
                    }
                });
            }
            std::thread::sleep(A_WHILE);
            (0..10).for_each(|_| *lock.change() += 1);
            is_over.store(true, Ordering::Relaxed);
        });
        assert_eq!(*lock.read(), 10);
    }

    #[test]
    fn changes_are_alone_with_the_value() {
        // Halves that are equal for whoever is alone with a writer.
        let lock = SearchLock::new((0_u32, 0_u32));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let mut value = lock.change();
                        value.0 += 1;
                        std::thread::yield_now();
                        value.1 += 1;
                    }
                });
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        let value = lock.read();
                        assert_eq!(value.0, value.1);
                        drop(value);
                        let turn = lock.turn();
                        let planned = *turn.read();
                        // Nobody else has a turn meanwhile.
                        let now = turn.change();
                        assert_eq!(planned, *now);
                    }
                });
            }
        });
        assert_eq!(*lock.read(), (4_000, 4_000));
        assert!(!lock.is_wanted.load(Ordering::Relaxed));
    }

    #[test]
    fn a_panic_under_a_change_leaves_the_lock_to_others() {
        let lock = SearchLock::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _value = lock.change();
            panic!("in a write section");
        }));
        assert!(outcome.is_err());
        assert!(!lock.is_wanted.load(Ordering::Relaxed));
        *lock.change() += 1;
        assert_eq!(*lock.read(), 1);
    }
}
