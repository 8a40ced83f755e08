//! The time that a call has: the client's `grpc-timeout`, or the node's default, never more than the node's limit.

use std::time::Duration;

use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::config::LimitsSection;

/// The node answers this much earlier, at most, so that its own answer arrives rather than a broken call.
const MARGIN_MAX: Duration = Duration::from_millis(100);

/// When a call that arrives now must be answered.
pub(crate) fn deadline(metadata: &MetadataMap, limits: &LimitsSection) -> Instant {
    let asked = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    let time = asked.unwrap_or(limits.request_timeout).min(limits.request_timeout_max);
    Instant::now() + (time - MARGIN_MAX.min(time / 10))
}

/// Reads a `grpc-timeout`: up to 8 digits and a unit, as the gRPC protocol over HTTP/2 defines it.
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3_600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remaining(timeout: Option<&str>) -> Duration {
        let mut metadata = MetadataMap::new();
        if let Some(text) = timeout {
            metadata.insert("grpc-timeout", text.parse().unwrap());
        }
        deadline(&metadata, &LimitsSection::default()) - Instant::now()
    }

    #[test]
    fn the_client_chooses_within_limits() {
        assert_eq!(remaining(Some("2S")).as_millis().div_ceil(100), 19);
        assert_eq!(remaining(Some("500m")).as_millis().div_ceil(50), 9);
        assert_eq!(remaining(None).as_millis().div_ceil(100), 99, "the default is 10 s");
        assert_eq!(remaining(Some("99999999H")).as_secs_f64().ceil() as u64, 300, "the limit is 5 min");
        assert_eq!(remaining(Some("0n")), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn no_header_panics(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }
    }

    #[test]
    fn other_forms_are_no_timeout() {
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
