//! Numbers of both kinds in one exact order.

use std::cmp::Ordering;

/// A number with one representation for each value: whole numbers within `i64` are `Integer`, whatever they were written as.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    /// A whole number.
    Integer(i64),
    /// A number that is not whole, or lies outside of `i64`. Never NaN.
    Double(f64),
}

/// 2^63, the first double above every `i64`.
const ABOVE_INTEGERS: f64 = 9_223_372_036_854_775_808.0;

impl Eq for Number {}

impl Number {
    pub(crate) fn from_integer(value: i64) -> Self {
        Self::Integer(value)
    }

    /// `None` for NaN, which has no place in the order.
    pub(crate) fn from_double(value: f64) -> Option<Self> {
        if value.is_nan() {
            return None;
        }
        let is_integer = value.fract() == 0.0 && (-ABOVE_INTEGERS..ABOVE_INTEGERS).contains(&value);
        Some(if is_integer { Self::Integer(value as i64) } else { Self::Double(value) })
    }
}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        match (*self, *other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            (Self::Double(a), Self::Double(b)) => a.total_cmp(&b),
            (Self::Integer(a), Self::Double(b)) => integer_to_double(a, b),
            (Self::Double(a), Self::Integer(b)) => integer_to_double(b, a).reverse(),
        }
    }
}

/// Compares a whole number with a double that is not whole or lies outside of `i64`; so they are never equal.
fn integer_to_double(integer: i64, double: f64) -> Ordering {
    if double >= ABOVE_INTEGERS {
        Ordering::Less
    } else if double < -ABOVE_INTEGERS {
        Ordering::Greater
    } else if integer <= double.floor() as i64 {
        Ordering::Less
    } else {
        Ordering::Greater
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_exact() {
        let double = |value| Number::from_double(value).unwrap();
        let integer = Number::from_integer;
        assert_eq!(integer(2), double(2.0));
        assert_eq!(double(-0.0), double(0.0));
        assert!(integer((1 << 53) + 1) > double(9_007_199_254_740_992.0));
        assert!(integer(i64::MAX) < double(ABOVE_INTEGERS));
        assert_eq!(integer(i64::MIN), double(-ABOVE_INTEGERS));
        assert!(double(-1e300) < integer(i64::MIN));
        assert!(double(-1.5) < integer(-1) && integer(-2) < double(-1.5));
        assert!(double(f64::INFINITY) > double(1e300) && double(f64::NEG_INFINITY) < integer(i64::MIN));
        assert!(Number::from_double(f64::NAN).is_none());
    }
}
