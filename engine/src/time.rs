//! Times on the wire and inside: the engine counts microseconds since 1970 and never reads a clock.

use prost_types::{Duration, Timestamp};

const MICROS_PER_SECOND: i64 = 1_000_000;
const NANOS_PER_MICRO: i32 = 1_000;
/// 0001-01-01T00:00:00Z, the first time that a Timestamp can say.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last time that a Timestamp can say.
const SECONDS_MAX: i64 = 253_402_300_799;
/// 10,000 years, the most that a Duration can say.
const DURATION_SECONDS_MAX: i64 = 315_576_000_000;

/// Microseconds since 1970, rounded down; `None` outside of the years 1 to 9999 or with nanoseconds out of range.
pub(crate) fn micros_of_timestamp(timestamp: &Timestamp) -> Option<i64> {
    let valid =
        (SECONDS_MIN..=SECONDS_MAX).contains(&timestamp.seconds) && (0..1_000_000_000).contains(&timestamp.nanos);
    valid.then(|| timestamp.seconds * MICROS_PER_SECOND + i64::from(timestamp.nanos / NANOS_PER_MICRO))
}

/// The timestamp of a number of microseconds since 1970.
pub(crate) fn timestamp_of_micros(micros: i64) -> Timestamp {
    Timestamp {
        seconds: micros.div_euclid(MICROS_PER_SECOND),
        nanos: micros.rem_euclid(MICROS_PER_SECOND) as i32 * NANOS_PER_MICRO,
    }
}

/// Microseconds of a duration of at least one microsecond and at most 10,000 years; `None` for all others.
pub(crate) fn micros_of_positive_duration(duration: &Duration) -> Option<i64> {
    let valid = (0..=DURATION_SECONDS_MAX).contains(&duration.seconds) && (0..1_000_000_000).contains(&duration.nanos);
    let micros = valid.then(|| duration.seconds * MICROS_PER_SECOND + i64::from(duration.nanos / NANOS_PER_MICRO));
    micros.filter(|micros| *micros > 0)
}

/// A later time; the last time that a Timestamp can say where it would be later than that.
pub(crate) fn later(micros: i64, by_micros: i64) -> i64 {
    micros.saturating_add(by_micros).min(SECONDS_MAX * MICROS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn micros_survive(micros in SECONDS_MIN * MICROS_PER_SECOND..=SECONDS_MAX * MICROS_PER_SECOND) {
            prop_assert_eq!(micros_of_timestamp(&timestamp_of_micros(micros)), Some(micros));
        }

        #[test]
        fn any_numbers_are_taken_or_refused(seconds: i64, nanos: i32) {
            let _ = micros_of_timestamp(&Timestamp { seconds, nanos });
            let positive = micros_of_positive_duration(&Duration { seconds, nanos });
            prop_assert!(positive.is_none_or(|micros| micros > 0));
        }
    }

    #[test]
    fn the_end_of_time_is_not_passed() {
        assert_eq!(later(0, 5), 5);
        assert!(micros_of_timestamp(&timestamp_of_micros(later(i64::MAX, 1))).is_some());
    }
}
