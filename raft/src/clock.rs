//! The time that commands are stamped with.
//!
//! A stamp is `max(wall clock, last stamp)`, so time never runs backwards in the log. A wall clock that has jumped ahead is
//! worse than one that lags: one stamp from next year would expire everything and could never be taken back. So
//!
//! - before its first stamp a node compares its wall clock with the last applied stamp and, where that is long ago, with
//!   its peers' clocks;
//! - from then on it compares its wall clock with the steady clock, and refuses to stamp while the difference is above a
//!   limit;
//! - a wall clock that has fallen back by more than that limit is not believed: time goes on by the steady clock, since
//!   nothing would expire until the wall clock is where it was.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

/// Where a node gets the time from; tests bring their own.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in microseconds since 1970.
    fn wall_micros(&self) -> i64;
    /// The time since some moment in the past, by a clock that never jumps and goes on while the machine is suspended.
    fn steady(&self) -> Duration;
}

/// The clocks of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// `Instant` stands still while a machine is suspended, so that waking up would look like a jump of the wall clock.
#[cfg(target_os = "linux")]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const STEADY: rustix::time::ClockId = rustix::time::ClockId::Monotonic;

impl Clock for SystemClock {
    fn wall_micros(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
    }

    fn steady(&self) -> Duration {
        Duration::try_from(rustix::time::clock_gettime(STEADY)).unwrap_or_default()
    }
}

/// Why a node's clock is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClockFault {
    /// The wall clock has run ahead of the steady clock.
    #[error(
        "the clock of this node has jumped {} s ahead, so it stamps no write: correct the clock, or restart the node if \
         the new time is right",
        ahead.as_secs()
    )]
    Jumped {
        /// How far it is ahead.
        ahead: Duration,
    },
    /// The wall clock was ahead of all peers' from the start.
    #[error(
        "the clock of this node is {} s ahead of its peers' clocks, so it stamps no write: correct the clock that is wrong",
        ahead.as_secs()
    )]
    AheadOfPeers {
        /// How far it is ahead of the furthest of them.
        ahead: Duration,
    },
    /// The last applied stamp is long ago, and no peer has told its time yet: a matter of a moment.
    #[error("the clock of this node has not been compared with those of its peers yet")]
    NotCompared,
}

impl ClockFault {
    /// Whether somebody has to mend it.
    pub(crate) fn is_lasting(self) -> bool {
        self != Self::NotCompared
    }
}

/// What the peers say of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerClocks {
    /// There are none.
    NoPeers,
    /// None of them was heard of yet.
    Unheard,
    /// The latest time among those that trust their clocks, in microseconds since 1970.
    Heard(Option<i64>),
}

/// Stamps commands in the order in which they enter the log.
pub(crate) struct Stamper {
    clock: Arc<dyn Clock>,
    jump_max: Duration,
    state: Mutex<State>,
}

struct State {
    /// Both clocks at one moment, when the wall clock was found right or, before that, when the node started.
    steady: Duration,
    wall_micros: i64,
    /// What the comparison with the peers has brought; `None`: it is fine.
    fault: Option<ClockFault>,
    last_micros: i64,
}

impl Stamper {
    /// A stamper that stamps nothing before [`compare`](Self::compare).
    #[must_use]
    pub(crate) fn new(clock: Arc<dyn Clock>, jump_max: Duration) -> Self {
        let (steady, wall_micros) = (clock.steady(), clock.wall_micros());
        let state = State { steady, wall_micros, fault: Some(ClockFault::NotCompared), last_micros: 0 };
        Self { clock, jump_max, state: Mutex::new(state) }
    }

    /// Decides whether the wall clock is right to begin with; once it is, only jumps matter. `applied_micros`: the last
    /// stamp that this node has applied, 0 for none.
    ///
    /// # Errors
    ///
    /// Why the clock is not to be used now.
    pub(crate) fn compare(&self, applied_micros: i64, peers: impl FnOnce() -> PeerClocks) -> Result<(), ClockFault> {
        let mut state = self.state.lock();
        if state.fault.is_none() {
            return self.checked_wall(&state).map(drop);
        }
        let wall_micros = self.clock.wall_micros();
        let ahead_of =
            |micros: i64| Duration::from_micros(u64::try_from(wall_micros.saturating_sub(micros)).unwrap_or(0));
        let fault = if ahead_of(applied_micros) <= self.jump_max {
            None
        } else {
            match peers() {
                PeerClocks::NoPeers | PeerClocks::Heard(None) => None,
                PeerClocks::Unheard => Some(ClockFault::NotCompared),
                PeerClocks::Heard(Some(latest)) => {
                    let ahead = ahead_of(latest);
                    (ahead > self.jump_max).then_some(ClockFault::AheadOfPeers { ahead })
                }
            }
        };
        state.fault = fault;
        if let Some(fault) = fault {
            return Err(fault);
        }
        (state.steady, state.wall_micros) = (self.clock.steady(), wall_micros);
        Ok(())
    }

    /// The next stamp: at least `applied_micros`, the last stamp that this node has applied.
    ///
    /// # Errors
    ///
    /// When the wall clock is not to be used.
    pub(crate) fn stamp(&self, applied_micros: i64) -> Result<i64, ClockFault> {
        let mut state = self.state.lock();
        let wall = self.checked_wall(&state)?;
        state.last_micros = state.last_micros.max(applied_micros).max(wall);
        Ok(state.last_micros)
    }

    /// The leader's time for a read: never behind a stamp that it gave.
    #[must_use]
    pub(crate) fn now(&self, applied_micros: i64) -> i64 {
        let state = self.state.lock();
        let wall = self.checked_wall(&state).unwrap_or(i64::MIN);
        state.last_micros.max(applied_micros).max(wall)
    }

    /// This node's time, for its peers; `None` while it is known to be wrong. Before it is compared it is told, since
    /// the comparison needs it.
    #[must_use]
    pub(crate) fn report(&self) -> Option<i64> {
        let state = self.state.lock();
        match state.fault {
            Some(ClockFault::NotCompared) => Some(self.clock.wall_micros()),
            _ => self.checked_wall(&state).ok().map(|wall| wall.max(state.last_micros)),
        }
    }

    fn checked_wall(&self, state: &State) -> Result<i64, ClockFault> {
        if let Some(fault) = state.fault {
            return Err(fault);
        }
        // The wall clock first: a pause between the two must not look like a jump.
        let wall = self.clock.wall_micros();
        let elapsed = self.clock.steady().saturating_sub(state.steady);
        let elapsed_micros = i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX);
        let expected = state.wall_micros.saturating_add(elapsed_micros);
        let above_zero = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        let ahead = above_zero(wall.saturating_sub(expected));
        if ahead > self.jump_max {
            return Err(ClockFault::Jumped { ahead });
        }
        let has_fallen_back = above_zero(expected.saturating_sub(wall)) > self.jump_max;
        Ok(if has_fallen_back { expected } else { wall })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone)]
    struct Hands {
        wall: Arc<Mutex<i64>>,
        steady: Arc<Mutex<Duration>>,
    }

    impl Hands {
        fn at(wall: i64) -> Self {
            Self { wall: Arc::new(Mutex::new(wall)), steady: Arc::new(Mutex::new(MINUTE)) }
        }

        fn pass(&self, time: Duration) {
            *self.steady.lock() += time;
            *self.wall.lock() += i64::try_from(time.as_micros()).unwrap();
        }

        /// A stamper that has not been compared yet.
        fn new_stamper(&self) -> Stamper {
            Stamper::new(Arc::new(self.clone()), MINUTE)
        }

        /// The stamper of a node without peers.
        fn stamper(&self) -> Stamper {
            let stamper = self.new_stamper();
            stamper.compare(0, || PeerClocks::NoPeers).unwrap();
            stamper
        }
    }

    impl Clock for Hands {
        fn wall_micros(&self) -> i64 {
            *self.wall.lock()
        }

        fn steady(&self) -> Duration {
            *self.steady.lock()
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);
    const HOUR: Duration = Duration::from_secs(3600);
    const HOUR_MICROS: i64 = 3_600_000_000;

    #[test]
    fn stamps_follow_the_wall_clock_and_never_run_backwards() {
        let hands = Hands::at(1_000);
        let stamper = hands.stamper();
        assert_eq!(stamper.stamp(0), Ok(1_000));
        hands.pass(Duration::from_micros(500));
        assert_eq!(stamper.stamp(0), Ok(1_500));
        *hands.wall.lock() = 200;
        assert_eq!(stamper.stamp(0), Ok(1_500));
        assert_eq!(stamper.now(0), 1_500);
    }

    #[test]
    fn a_stamp_is_never_below_what_an_earlier_leader_gave() {
        let stamper = Hands::at(1_000).stamper();
        assert_eq!(stamper.stamp(9_000), Ok(9_000));
        assert_eq!(stamper.stamp(0), Ok(9_000));
    }

    #[test]
    fn time_goes_on_when_the_clock_falls_far_back() {
        let hands = Hands::at(1_000_000_000);
        let stamper = hands.stamper();
        assert_eq!(stamper.stamp(0).unwrap(), 1_000_000_000);
        *hands.wall.lock() -= 600_000_000;
        hands.pass(Duration::from_secs(5));
        assert_eq!(stamper.stamp(0).unwrap(), 1_005_000_000);
        assert_eq!(stamper.now(0), 1_005_000_000);
        *hands.wall.lock() += 600_000_000;
        hands.pass(Duration::from_secs(1));
        assert_eq!(stamper.stamp(0).unwrap(), 1_006_000_000, "the clock is right again");
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_refused_until_it_is_back() {
        let hands = Hands::at(1_000);
        let stamper = hands.stamper();
        *hands.wall.lock() += HOUR_MICROS;
        assert_eq!(stamper.stamp(0), Err(ClockFault::Jumped { ahead: HOUR }));
        assert_eq!(stamper.now(0), 0, "a read must not see the future either");
        assert_eq!(stamper.report(), None, "nor must the peers");
        *hands.wall.lock() -= HOUR_MICROS;
        assert_eq!(stamper.stamp(0), Ok(1_000));
        assert_eq!(stamper.report(), Some(1_000));
    }

    #[test]
    fn days_that_really_pass_are_no_jump() {
        let hands = Hands::at(1_000);
        let stamper = hands.stamper();
        hands.pass(Duration::from_secs(30 * 24 * 3600));
        assert!(stamper.stamp(0).is_ok());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_steady_clock_goes_on_while_the_machine_is_suspended() {
        let boot_time = || {
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
        };
        let before = boot_time();
        let steady = SystemClock.steady();
        assert!(before <= steady && steady <= boot_time());
    }

    #[test]
    fn a_clock_that_was_wrong_before_the_start_is_refused() {
        let hands = Hands::at(2 * HOUR_MICROS);
        let stamper = hands.new_stamper();
        let peers = || PeerClocks::Heard(Some(HOUR_MICROS));
        assert_eq!(stamper.compare(HOUR_MICROS, peers), Err(ClockFault::AheadOfPeers { ahead: HOUR }));
        assert!(stamper.stamp(HOUR_MICROS).is_err());
        assert_eq!(stamper.now(HOUR_MICROS), HOUR_MICROS);
        assert_eq!(stamper.report(), None);
        // Once it is corrected, it is watched from there on.
        *hands.wall.lock() = HOUR_MICROS + 5;
        assert_eq!(stamper.compare(HOUR_MICROS, peers), Ok(()));
        assert_eq!(stamper.stamp(HOUR_MICROS), Ok(HOUR_MICROS + 5));
        *hands.wall.lock() += HOUR_MICROS;
        assert_eq!(stamper.stamp(0), Err(ClockFault::Jumped { ahead: HOUR }));
    }

    #[test]
    fn after_a_long_time_the_peers_decide() {
        let stamper = Hands::at(2 * HOUR_MICROS).new_stamper();
        assert_eq!(stamper.compare(HOUR_MICROS, || PeerClocks::Unheard), Err(ClockFault::NotCompared));
        assert_eq!(stamper.stamp(0), Err(ClockFault::NotCompared));
        assert_eq!(stamper.report(), Some(2 * HOUR_MICROS), "they decide by this");
        assert_eq!(stamper.compare(HOUR_MICROS, || PeerClocks::Heard(Some(2 * HOUR_MICROS))), Ok(()));
        assert_eq!(stamper.stamp(0), Ok(2 * HOUR_MICROS));
    }

    #[test]
    fn a_restart_within_the_limit_needs_no_peers() {
        let stamper = Hands::at(HOUR_MICROS + 1_000).new_stamper();
        assert_eq!(stamper.compare(HOUR_MICROS, || panic!("nobody need be asked")), Ok(()));
    }

    #[test]
    fn a_peer_that_does_not_trust_its_own_clock_is_no_witness() {
        let stamper = Hands::at(2 * HOUR_MICROS).new_stamper();
        assert_eq!(stamper.compare(0, || PeerClocks::Heard(None)), Ok(()));
    }
}
