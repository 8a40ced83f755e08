//! [`Timestamp`]: a point in time, as Cairn keeps it.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time, in whole microseconds since 1970-01-01T00:00:00Z; earlier times are negative.
///
/// It prints and parses as RFC 3339 (`2025-06-01T12:30:00.5Z`); a bare date means its first moment, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a time such as 2025-06-01T12:30:00Z or 2025-06-01")]
pub struct ParseTimestampError {
    text: String,
}

impl Timestamp {
    /// The time that lies this many microseconds after the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// The time by this machine's clock.
    pub fn now() -> Self {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounds down to the microsecond; times beyond the range become its end.
    fn from(time: SystemTime) -> Self {
        let micros = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => i64::try_from(after.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                let nanos = before.duration().as_nanos();
                i64::try_from(nanos.div_ceil(1_000)).map_or(i64::MIN, |micros| -micros)
            }
        };
        Self(micros)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let distance = Duration::from_micros(time.0.unsigned_abs());
        if time.0 >= 0 { UNIX_EPOCH + distance } else { UNIX_EPOCH - distance }
    }
}

impl From<Timestamp> for prost_types::Timestamp {
    fn from(time: Timestamp) -> Self {
        Self { seconds: time.0.div_euclid(1_000_000), nanos: time.0.rem_euclid(1_000_000) as i32 * 1_000 }
    }
}

impl From<prost_types::Timestamp> for Timestamp {
    /// Rounds down to the microsecond; times beyond the range become its end.
    fn from(time: prost_types::Timestamp) -> Self {
        let seconds = time.seconds.saturating_mul(1_000_000);
        Self(seconds.saturating_add(i64::from(time.nanos).div_euclid(1_000)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        prost_types::Timestamp::from(*self).fmt(formatter)
    }
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: prost_types::Timestamp = text.parse().map_err(|_| ParseTimestampError { text: text.to_owned() })?;
        Ok(time.into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_date_means_its_first_moment_and_offsets_are_applied() {
        let day: Timestamp = "2025-06-01".parse().unwrap();
        assert_eq!(day, "2025-06-01T02:00:00+02:00".parse().unwrap());
        assert_eq!(day.to_string(), "2025-06-01T00:00:00Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
        assert!("2025-13-01".parse::<Timestamp>().is_err());
    }

    #[test]
    fn times_before_the_epoch_round_down() {
        let time = UNIX_EPOCH - Duration::from_nanos(1_500);
        assert_eq!(Timestamp::from(time).as_micros(), -2);
        assert_eq!(Timestamp::from(prost_types::Timestamp { seconds: -1, nanos: 999_998_500 }).as_micros(), -2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn every_time_survives_the_wire(micros: i64) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::from(prost_types::Timestamp::from(time)), time);
            prop_assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }

        #[test]
        fn times_of_our_age_survive_text(micros in -60_000_000_000_000_000_i64..250_000_000_000_000_000) {
            let time = Timestamp::from_micros(micros);
            prop_assert_eq!(time.to_string().parse::<Timestamp>(), Ok(time));
        }
    }
}
