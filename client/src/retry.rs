//! When a call is tried again, and after what time. Pure: randomness and time come in as arguments.

use std::time::Duration;

use crate::error::{Error, ErrorKind};

/// How calls are retried: exponential backoff with full jitter, at least as long as the server asks, within the deadline.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// Tries in all, the first included; at least 1. The deadline usually ends a call before.
    pub attempts_max: u32,
    /// Upper end of the wait after the first failure.
    pub backoff_initial: Duration,
    /// Upper end of any wait.
    pub backoff_max: Duration,
    /// By how much the upper end grows with each failure; at least 1.
    pub multiplier: f64,
    /// Tries in a row without any connection after which a call gives up before its deadline, though not before it has
    /// tried every endpoint. Large for services, which wait for a restart; small for people, who would rather know.
    pub unreachable_max: u32,
}

impl Default for RetryPolicy {
    /// A failover takes about two seconds; with these values about six tries fall into it.
    fn default() -> Self {
        Self {
            attempts_max: 32,
            backoff_initial: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            multiplier: 2.0,
            unreachable_max: u32::MAX,
        }
    }
}

impl RetryPolicy {
    /// Never retries.
    pub fn none() -> Self {
        Self { attempts_max: 1, ..Self::default() }
    }

    /// The wait after the failure with this number (1 for the first), where `random` is uniform in 0..1: full jitter,
    /// so that many clients that failed together do not come back together.
    pub fn backoff(&self, failures: u32, random: f64) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
        let upper = self.backoff_initial.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        let upper = upper.min(self.backoff_max.as_secs_f64());
        Duration::from_secs_f64(upper * random.clamp(0.0, 1.0))
    }

    /// How long to wait before the next try; none where there must not be one. `attempts` have been made, the last of
    /// which ended in `error`; `remaining` is left until the deadline.
    pub(crate) fn next_wait(&self, error: &Error, attempts: u32, remaining: Duration, random: f64) -> Option<Duration> {
        if !error.is_retryable() || attempts >= self.attempts_max {
            return None;
        }
        // Jitter on top of what the server asks for, so that those it sent away do not return in one moment.
        let wait = error.retry_after().unwrap_or_default() + self.backoff(attempts, random);
        (wait < remaining).then_some(wait)
    }

    /// Whether nobody seems to be there: `unreachable` tries in a row found no connection.
    pub(crate) fn gives_up(&self, unreachable: u32, endpoints: usize) -> bool {
        let every_endpoint = u32::try_from(endpoints).unwrap_or(u32::MAX);
        unreachable >= self.unreachable_max.max(every_endpoint)
    }

    /// How long one try may take. While there is another node to ask, a node that hangs gets half of what is left only.
    pub(crate) fn attempt_timeout(remaining: Duration, endpoints: usize) -> Duration {
        if endpoints > 1 { remaining / 2 } else { remaining }
    }
}

/// What a failure says about the node that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The node, or the way to it: ask another one.
    Node,
    /// The request, or the load: any node would say the same.
    Request,
}

/// Whom a failure is to be blamed on.
pub(crate) fn blame(error: &Error) -> Blame {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::DeadlineExceeded => Blame::Node,
        _ => Blame::Request,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn unavailable() -> Error {
        Error::from_status(&Status::unavailable("no leader"))
    }

    #[test]
    fn the_wait_doubles_up_to_its_end() {
        let policy = RetryPolicy::default();
        let waits: Vec<u128> = (1..=7).map(|failures| policy.backoff(failures, 1.0).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(policy.backoff(u32::MAX, 1.0), Duration::from_secs(1));
    }

    #[test]
    fn the_servers_wish_is_a_lower_bound() {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(Duration::from_secs(2)));
        let busy = Error::from_status(&Status::with_error_details(Code::ResourceExhausted, "busy", details));
        let policy = RetryPolicy::default();
        assert_eq!(policy.next_wait(&busy, 1, MINUTE, 0.0), Some(Duration::from_secs(2)));
        // Waiting beyond the deadline would only delay the same error.
        assert_eq!(policy.next_wait(&busy, 1, Duration::from_secs(1), 0.0), None);
    }

    #[test]
    fn only_what_can_get_better_is_retried() {
        let policy = RetryPolicy::default();
        assert!(policy.next_wait(&unavailable(), 1, MINUTE, 0.5).is_some());
        assert_eq!(RetryPolicy::none().next_wait(&unavailable(), 1, MINUTE, 0.5), None);
        let codes = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::Aborted,
            Code::FailedPrecondition,
            Code::OutOfRange,
            Code::ResourceExhausted,
            Code::PermissionDenied,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::Internal,
            Code::DataLoss,
            Code::Unknown,
        ];
        for code in codes {
            let error = Error::from_status(&Status::new(code, "no"));
            assert_eq!(policy.next_wait(&error, 1, MINUTE, 0.5), None, "{code:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn waits_stay_in_bounds(failures: u32, random in 0.0..1.0_f64, initial in 0..5_000_u64, max in 0..5_000_u64) {
            let policy = RetryPolicy {
                backoff_initial: Duration::from_millis(initial),
                backoff_max: Duration::from_millis(max),
                ..RetryPolicy::default()
            };
            prop_assert!(policy.backoff(failures, random) <= policy.backoff_max);
        }
    }
}
