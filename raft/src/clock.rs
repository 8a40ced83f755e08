//! The time that commands are stamped with.
//!
//! A stamp is `max(wall clock, last stamp)`, so time never runs backwards in the log. A wall clock that has jumped ahead is
//! worse than one that lags: one stamp from next year would expire everything and could never be taken back. The leader
//! therefore compares its wall clock with the steady clock since the start, and refuses to stamp while the difference is
//! above a limit.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where a node gets the time from; tests bring their own.
pub(crate) trait Clock: Send + Sync + 'static {
    /// The wall clock, in microseconds since 1970.
    fn wall_micros(&self) -> i64;
    /// A clock that never jumps.
    fn steady(&self) -> Instant;
}

/// The clocks of the machine.
#[derive(Debug, Default)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn wall_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn steady(&self) -> Instant {
        Instant::now()
    }
}

/// The leader's clock has run ahead of the steady clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock of this node has jumped {} s ahead, so it stamps no write: correct the clock, or restart the node if \
     the new time is right",
    ahead.as_secs()
)]
pub(crate) struct ClockJump {
    /// How far it is ahead.
    pub(crate) ahead: Duration,
}

/// Stamps commands in the order in which they enter the log.
pub(crate) struct Stamper {
    clock: Box<dyn Clock>,
    jump_max: Duration,
    started_at: Instant,
    started_wall_micros: i64,
    last_micros: Mutex<i64>,
}

impl Stamper {
    /// A stamper that trusts the wall clock as it is now.
    #[must_use]
    pub(crate) fn new(clock: Box<dyn Clock>, jump_max: Duration) -> Self {
        let started_at = clock.steady();
        let started_wall_micros = clock.wall_micros();
        Self { clock, jump_max, started_at, started_wall_micros, last_micros: Mutex::new(0) }
    }

    /// The next stamp: at least `applied_micros`, the last stamp that this node has applied.
    ///
    /// # Errors
    ///
    /// When the wall clock has jumped ahead.
    pub(crate) fn stamp(&self, applied_micros: i64) -> Result<i64, ClockJump> {
        let wall = self.checked_wall()?;
        let mut last = self.last_micros.lock();
        *last = (*last).max(applied_micros).max(wall);
        Ok(*last)
    }

    /// The leader's time for a read: never behind a stamp that it gave.
    #[must_use]
    pub(crate) fn now(&self, applied_micros: i64) -> i64 {
        let wall = self.checked_wall().unwrap_or(i64::MIN);
        (*self.last_micros.lock()).max(applied_micros).max(wall)
    }

    /// The wall clock as it is, for reports.
    #[must_use]
    pub(crate) fn wall_micros(&self) -> i64 {
        self.clock.wall_micros()
    }

    fn checked_wall(&self) -> Result<i64, ClockJump> {
        let wall = self.clock.wall_micros();
        let elapsed = self.clock.steady().saturating_duration_since(self.started_at);
        let elapsed_micros = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        let ahead = wall.saturating_sub(self.started_wall_micros.saturating_add(elapsed_micros));
        let ahead = Duration::from_micros(u64::try_from(ahead).unwrap_or(0));
        if ahead > self.jump_max { Err(ClockJump { ahead }) } else { Ok(wall) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Clone)]
    struct Hands {
        wall: Arc<Mutex<i64>>,
        steady: Arc<Mutex<Instant>>,
    }

    impl Hands {
        fn at(wall: i64) -> Self {
            Self { wall: Arc::new(Mutex::new(wall)), steady: Arc::new(Mutex::new(Instant::now())) }
        }

        fn pass(&self, time: Duration) {
            *self.steady.lock() += time;
            *self.wall.lock() += i64::try_from(time.as_micros()).unwrap();
        }
    }

    impl Clock for Hands {
        fn wall_micros(&self) -> i64 {
            *self.wall.lock()
        }

        fn steady(&self) -> Instant {
            *self.steady.lock()
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn stamps_follow_the_wall_clock_and_never_run_backwards() {
        let hands = Hands::at(1_000);
        let stamper = Stamper::new(Box::new(hands.clone()), MINUTE);
        assert_eq!(stamper.stamp(0), Ok(1_000));
        hands.pass(Duration::from_micros(500));
        assert_eq!(stamper.stamp(0), Ok(1_500));
        *hands.wall.lock() = 200;
        assert_eq!(stamper.stamp(0), Ok(1_500));
        assert_eq!(stamper.now(0), 1_500);
    }

    #[test]
    fn a_stamp_is_never_below_what_an_earlier_leader_gave() {
        let stamper = Stamper::new(Box::new(Hands::at(1_000)), MINUTE);
        assert_eq!(stamper.stamp(9_000), Ok(9_000));
        assert_eq!(stamper.stamp(0), Ok(9_000));
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_refused_until_it_is_back() {
        let hands = Hands::at(1_000);
        let stamper = Stamper::new(Box::new(hands.clone()), MINUTE);
        *hands.wall.lock() += 3_600_000_000;
        assert_eq!(stamper.stamp(0), Err(ClockJump { ahead: Duration::from_secs(3600) }));
        assert_eq!(stamper.now(0), 0, "a read must not see the future either");
        *hands.wall.lock() -= 3_600_000_000;
        assert_eq!(stamper.stamp(0), Ok(1_000));
    }

    #[test]
    fn days_that_really_pass_are_no_jump() {
        let hands = Hands::at(1_000);
        let stamper = Stamper::new(Box::new(hands.clone()), MINUTE);
        hands.pass(Duration::from_secs(30 * 24 * 3600));
        assert!(stamper.stamp(0).is_ok());
    }
}
