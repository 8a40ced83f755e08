//! Durations and sizes as people write them in a configuration: `150ms`, `10s`, `64MiB`.
//!
//! One number and one unit; no sums (`1m30s`) and no fractions, so that each value has one obvious spelling.

use std::time::Duration;

/// Units of time, the largest first, with their length in milliseconds.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, the largest first, with their length in bytes.
const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// Splits `text` into its digits and its unit and multiplies them; `None` when it is not of that form or too large.
fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|character: char| character.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

/// Writes `value` with the largest unit that divides it.
fn format(value: u64, units: &[(&str, u64)]) -> String {
    let fits = |scale: u64| value != 0 && value.is_multiple_of(scale);
    match units.iter().find(|(_, scale)| fits(*scale)) {
        Some((name, scale)) => format!("{}{name}", value / scale),
        None => format!("0{}", units.last().map_or("", |(name, _)| name)),
    }
}

/// Reads a duration such as `150ms`, `10s`, `5m` or `1h`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, &TIME_UNITS).map(Duration::from_millis)
}

/// Reads a size such as `512KiB`, `64MiB`, `1GiB` or `100B`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    parse(text, &SIZE_UNITS)
}

/// For `#[serde(with)]` on a [`Duration`].
pub(crate) mod duration {
    use super::{Duration, TIME_UNITS, format, parse_duration};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let milliseconds = u64::try_from(value.as_millis()).unwrap_or(u64::MAX);
        serializer.serialize_str(&format(milliseconds, &TIME_UNITS))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(f64),
        }
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Written::Text(text) => parse_duration(&text).ok_or_else(|| D::Error::custom(EXPECTED)),
            Written::Number(number) => Err(D::Error::custom(format_args!("{EXPECTED}; {number} has no unit"))),
        }
    }

    const EXPECTED: &str = "expected a duration with its unit, such as 150ms, 10s, 5m or 1h";
}

/// For `#[serde(with)]` on a `u64` that counts bytes.
pub(crate) mod size {
    use super::{SIZE_UNITS, format, parse_size};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(crate) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*value, &SIZE_UNITS))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Text(String),
            Number(f64),
        }
        match Written::deserialize(deserializer).map_err(|_| D::Error::custom(EXPECTED))? {
            Written::Text(text) => parse_size(&text).ok_or_else(|| D::Error::custom(EXPECTED)),
            Written::Number(number) => Err(D::Error::custom(format_args!("{EXPECTED}; {number} has no unit"))),
        }
    }

    const EXPECTED: &str = "expected a size with its unit, such as 512KiB, 64MiB or 1GiB";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_back_as_written() {
        for text in ["0ms", "1ms", "150ms", "10s", "90s", "5m", "1h"] {
            let value = parse_duration(text).unwrap().as_millis() as u64;
            assert_eq!(format(value, &TIME_UNITS), text);
        }
        for text in ["0B", "1B", "1000B", "512KiB", "64MiB", "3GiB"] {
            assert_eq!(format(parse_size(text).unwrap(), &SIZE_UNITS), text);
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in
            ["", "s", "10", "-1s", "1.5s", "1m30s", "10 parsecs", "99999999999999999999h", "18446744073709551615h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for text in ["", "64", "64MB", "1e3B", "18446744073709551615GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
        assert_eq!(parse_duration("10 s"), Some(Duration::from_secs(10)));
    }
}
