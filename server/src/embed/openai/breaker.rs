//! Keeps a node from asking a server that does not answer: after some failures in a row it is left alone for a while,
//! then one request tries it.
//!
//! ```text
//! closed --5 failures in a row--> open for 1 s --> one request may try --success--> closed
//!                                  ^                        |
//!                                  +---- twice as long -----+ failure
//! ```

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit.
const FAILURES_MAX: u32 = 5;

/// How long the first rest lasts.
const REST_MIN: Duration = Duration::from_secs(1);

/// How long a rest lasts at most.
const REST_MAX: Duration = Duration::from_secs(60);

/// See the module. Invariant: while `reopens` is set, at most one request is let through for each rest.
#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    rest: Duration,
    reopens: Option<Instant>,
}

impl Breaker {
    /// A closed circuit.
    pub(super) fn new() -> Self {
        Self { failures: 0, rest: REST_MIN, reopens: None }
    }

    /// Lets a request through.
    ///
    /// # Errors
    /// The circuit is open for this much longer.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.reopens {
            Some(reopens) if now < reopens => Err(reopens - now),
            // This request tries the server. Should it vanish without a word, another one may after the same time.
            Some(_) => {
                self.reopens = Some(now + self.rest);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The server has answered.
    pub(super) fn succeeded(&mut self) {
        *self = Self::new();
    }

    /// The server has not answered, or could not.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if self.reopens.is_some() {
            self.rest = (self.rest * 2).min(REST_MAX);
        }
        if self.failures >= FAILURES_MAX {
            self.reopens = Some(now + self.rest);
        }
    }

    /// Whether requests are being held back.
    pub(super) fn is_open(&self) -> bool {
        self.reopens.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_tries_and_closes() {
        let (mut breaker, start) = (Breaker::new(), Instant::now());
        for _ in 0..FAILURES_MAX {
            assert_eq!(breaker.admit(start), Ok(()));
            breaker.failed(start);
        }
        assert!(breaker.is_open());
        assert_eq!(breaker.admit(start), Err(REST_MIN));
        let later = start + REST_MIN;
        assert_eq!(breaker.admit(later), Ok(()), "one may try");
        assert!(breaker.admit(later).is_err(), "and one only");
        breaker.failed(later);
        assert_eq!(breaker.admit(later), Err(REST_MIN * 2), "it rests for longer");
        let later = later + REST_MIN * 2;
        assert_eq!(breaker.admit(later), Ok(()));
        breaker.succeeded();
        assert!(!breaker.is_open());
        assert_eq!(breaker.admit(later), Ok(()));
        assert_eq!(breaker.admit(later), Ok(()));
    }

    #[test]
    fn successes_in_between_keep_it_closed_and_rests_end() {
        let (mut breaker, mut now) = (Breaker::new(), Instant::now());
        for _ in 0..100 {
            breaker.failed(now);
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        for _ in 0..100 {
            breaker.failed(now);
            now += REST_MAX;
            assert_eq!(breaker.admit(now), Ok(()), "no rest is longer than a minute");
        }
    }
}
