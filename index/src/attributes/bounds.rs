//! Sets of slots that are known from both sides, and the same for a single memory.
//!
//! A condition on a field without an index is not known at all: for certain it holds for nobody, and possibly for everybody.
//! `not` turns the two around, so that a superset never becomes a subset.

use roaring::RoaringBitmap;

use super::Matches;
use crate::filter::Filter;
use crate::schema::Schema;

/// Which slots match: at least `certain`, at most `possible`.
pub(super) enum Bounds {
    /// Both are this set.
    Exact(RoaringBitmap),
    /// `certain` is a part of `possible`.
    Between { certain: RoaringBitmap, possible: RoaringBitmap },
}

impl Bounds {
    pub(super) fn new(certain: RoaringBitmap, possible: RoaringBitmap) -> Self {
        if certain == possible { Self::Exact(possible) } else { Self::Between { certain, possible } }
    }

    /// Nothing is known.
    pub(super) fn unknown(live: &RoaringBitmap) -> Self {
        Self::new(RoaringBitmap::new(), live.clone())
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.combine(other, |a, b| a & b)
    }

    pub(super) fn or(self, other: Self) -> Self {
        self.combine(other, |a, b| a | b)
    }

    pub(super) fn not(self, live: &RoaringBitmap) -> Self {
        match self {
            Self::Exact(set) => Self::Exact(live - set),
            Self::Between { certain, possible } => Self::Between { certain: live - possible, possible: live - certain },
        }
    }

    /// Whether it is known that nothing matches.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Exact(set) if set.is_empty())
    }

    fn combine(self, other: Self, combine: impl Fn(RoaringBitmap, RoaringBitmap) -> RoaringBitmap) -> Self {
        if let (Self::Exact(a), Self::Exact(b)) = (&self, &other) {
            return Self::Exact(combine(a.clone(), b.clone()));
        }
        let ((certain_a, possible_a), (certain_b, possible_b)) = (self.into_pair(), other.into_pair());
        Self::new(combine(certain_a, certain_b), combine(possible_a, possible_b))
    }

    fn into_pair(self) -> (RoaringBitmap, RoaringBitmap) {
        match self {
            Self::Exact(set) => (set.clone(), set),
            Self::Between { certain, possible } => (certain, possible),
        }
    }

    pub(super) fn into_matches(self) -> Matches {
        let exact = matches!(self, Self::Exact(_));
        let (certain, bitmap) = self.into_pair();
        Matches { bitmap, certain, exact }
    }
}

/// Whether one memory matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth {
    No,
    Unknown,
    Yes,
}

impl Truth {
    /// Decides a filter of which each condition on an indexed field is decided by `test`.
    pub(super) fn of(filter: &Filter, schema: &Schema, test: &impl Fn(&crate::filter::Condition) -> bool) -> Self {
        let each = |filters: &[Filter]| filters.iter().map(|filter| Self::of(filter, schema, test)).collect::<Vec<_>>();
        match filter {
            Filter::All(filters) => each(filters).into_iter().min().unwrap_or(Self::Yes),
            Filter::Any(filters) => each(filters).into_iter().max().unwrap_or(Self::No),
            Filter::Not(inner) => match Self::of(inner, schema, test) {
                Self::No => Self::Yes,
                Self::Unknown => Self::Unknown,
                Self::Yes => Self::No,
            },
            Filter::Where(condition) if schema.type_of(&condition.field).is_none() => Self::Unknown,
            Filter::Where(condition) if test(condition) => Self::Yes,
            Filter::Where(_) => Self::No,
        }
    }
}
