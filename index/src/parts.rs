//! Places in parts.

use std::ops::Range;

/// Places in parts of so many, in order; the last part may be smaller.
///
/// # Panics
/// Where a part is to have no places.
pub fn in_parts(places: Range<usize>, each: usize) -> impl Iterator<Item = Range<usize>> {
    let end = places.end;
    places.step_by(each).map(move |start| start..(start + each).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_is_in_one_part() {
        assert_eq!(in_parts(0..0, 3).count(), 0);
        assert_eq!(in_parts(2..9, 3).collect::<Vec<_>>(), [2..5, 5..8, 8..9]);
        assert_eq!(in_parts(0..6, 3).collect::<Vec<_>>(), [0..3, 3..6]);
    }
}
