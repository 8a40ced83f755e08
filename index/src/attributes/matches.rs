//! Which memories match a filter, as far as the index can tell, and the same for a single memory.
//!
//! A condition on a field without an index is not known at all: for certain it holds for nobody, and possibly for everybody.
//! `not` turns the two around, so that a superset never becomes a subset.
//!
//! Sets are borrowed where the index has them as they are: a filter that leaves out nobody, and one that asks for a value that
//! many have, copy nothing.

use std::borrow::Cow;

use roaring::RoaringBitmap;

use crate::filter::Filter;
use crate::schema::Schema;

/// A set of live slots.
pub(super) type Slots<'a> = Cow<'a, RoaringBitmap>;

/// The memories that match a filter, as far as the index can tell.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches<'a> {
    possible: Slots<'a>,
    /// A part of `possible`; `None`: all of it.
    certain: Option<Slots<'a>>,
}

impl<'a> Matches<'a> {
    /// The very set.
    pub(crate) fn exactly(slots: Slots<'a>) -> Self {
        Self { possible: slots, certain: None }
    }

    /// Nothing is known.
    pub(crate) fn unknown(live: &'a RoaringBitmap) -> Self {
        Self::between(Cow::default(), Cow::Borrowed(live))
    }

    pub(super) fn between(certain: Slots<'a>, possible: Slots<'a>) -> Self {
        let certain = (certain != possible).then_some(certain);
        Self { possible, certain }
    }

    /// Slots of all memories that match, and, unless [`Self::is_exact`], of some that may.
    #[must_use]
    pub fn possible(&self) -> &RoaringBitmap {
        &self.possible
    }

    /// Those of [`Self::possible`] that match for certain; the records of the others must be tested.
    #[must_use]
    pub fn certain(&self) -> &RoaringBitmap {
        self.certain.as_ref().unwrap_or(&self.possible)
    }

    /// Whether all that may match do.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.certain.is_none()
    }

    /// Whether these are the matches of the partition with these slots, and nobody is left out.
    pub(crate) fn is_everybody(&self, live: &RoaringBitmap) -> bool {
        matches!(self.possible, Cow::Borrowed(possible) if std::ptr::eq(possible, live))
    }

    /// The same, known as everybody where it is.
    pub(super) fn settled(self, live: &'a RoaringBitmap) -> Self {
        let possible = if is_all(&self.possible, live) { Cow::Borrowed(live) } else { self.possible };
        Self { possible, ..self }
    }

    pub(super) fn and(self, other: Self, live: &RoaringBitmap) -> Self {
        self.combine(other, |a, b| intersection(a, b, live))
    }

    pub(super) fn or(self, other: Self, live: &RoaringBitmap) -> Self {
        self.combine(other, |a, b| union(a, b, live))
    }

    pub(super) fn not(self, live: &'a RoaringBitmap) -> Self {
        let possible = without(live, &self.possible);
        match self.certain {
            None => Self::exactly(possible),
            Some(certain) => Self::between(possible, without(live, &certain)),
        }
    }

    /// Whether it is known that nothing matches.
    pub(super) fn is_nothing(&self) -> bool {
        self.possible.is_empty()
    }

    fn combine(self, other: Self, combine: impl Fn(Slots<'a>, Slots<'a>) -> Slots<'a>) -> Self {
        if self.is_exact() && other.is_exact() {
            return Self::exactly(combine(self.possible, other.possible));
        }
        let ((certain_a, possible_a), (certain_b, possible_b)) = (self.into_pair(), other.into_pair());
        Self::between(combine(certain_a, certain_b), combine(possible_a, possible_b))
    }

    fn into_pair(self) -> (Slots<'a>, Slots<'a>) {
        (self.certain.unwrap_or_else(|| self.possible.clone()), self.possible)
    }
}

/// All sets are parts of `live`.
fn is_all(slots: &RoaringBitmap, live: &RoaringBitmap) -> bool {
    slots.len() == live.len()
}

fn intersection<'a>(a: Slots<'a>, b: Slots<'a>, live: &RoaringBitmap) -> Slots<'a> {
    match (a, b) {
        (a, b) if is_all(&b, live) => a,
        (a, b) if is_all(&a, live) => b,
        (Cow::Owned(a), b) => Cow::Owned(a & &*b),
        (a, Cow::Owned(b)) => Cow::Owned(b & &*a),
        (a, b) => Cow::Owned(&*a & &*b),
    }
}

pub(super) fn union<'a>(a: Slots<'a>, b: Slots<'a>, live: &RoaringBitmap) -> Slots<'a> {
    match (a, b) {
        (a, b) if b.is_empty() || is_all(&a, live) => a,
        (a, b) if a.is_empty() || is_all(&b, live) => b,
        (Cow::Owned(a), b) => Cow::Owned(a | &*b),
        (a, Cow::Owned(b)) => Cow::Owned(b | &*a),
        (a, b) => Cow::Owned(&*a | &*b),
    }
}

/// Those of `live` that are not in `slots`.
pub(super) fn without<'a>(live: &'a RoaringBitmap, slots: &RoaringBitmap) -> Slots<'a> {
    if slots.is_empty() { Cow::Borrowed(live) } else { Cow::Owned(live - slots) }
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
