//! Deadlines of callers.

use std::time::{Duration, Instant};

/// When to stop trying, so that the caller still gets an answer before its deadline: a tenth of the time that is left
/// earlier, at most a quarter of a second.
pub(crate) fn answer_by(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline - (left / 10).min(Duration::from_millis(250))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_before_the_deadline() {
        let now = Instant::now();
        let far = now + Duration::from_secs(60);
        assert!(answer_by(far) <= far - Duration::from_millis(250));
        let near = now + Duration::from_millis(100);
        assert!(answer_by(near) <= near);
        assert!(answer_by(now) <= now);
    }
}
