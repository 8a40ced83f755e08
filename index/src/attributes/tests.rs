//! The index of attributes against the plain definition of filters, over random documents, filters and histories.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::filter::{Condition, Field, Scalar, ScalarRef, Test};
use crate::schema::FieldType;

/// A document's values; `None` stands for a map.
type Document = Vec<(Field, Vec<Option<Scalar>>)>;

struct Source<'a>(&'a Document);

impl FieldSource for Source<'_> {
    fn any_value(&self, field: &Field, test: &mut dyn FnMut(ScalarRef<'_>) -> bool) -> bool {
        let values = self.0.iter().filter(|(name, _)| name == field).flat_map(|(_, values)| values);
        values.map(|value| value.as_ref().map_or(ScalarRef::Map, Scalar::as_ref)).any(test)
    }
}

fn schema() -> Schema {
    let fields = [
        ("word", FieldType::Keyword),
        ("deep.count", FieldType::Integer),
        ("ratio", FieldType::Float),
        ("done", FieldType::Bool),
        ("due", FieldType::Datetime),
    ];
    Schema::new(fields.map(|(path, field_type)| (path.to_owned(), field_type))).unwrap()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        Just(String::new()),
        Just("a/b".into()),
        "[ab]{1,3}".prop_map(|text| text),
        "a(/[ab]{1,2}){0,2}",
        Just("a\u{10ffff}".into()),
    ]
    .boxed()
}

fn number() -> BoxedStrategy<Scalar> {
    prop_oneof![
        (-3i64..4).prop_map(Scalar::Integer),
        (-6i64..7).prop_map(|half| Scalar::Double(half as f64 / 2.0)),
        Just(Scalar::Integer((1 << 53) + 1)),
        Just(Scalar::Double(9_007_199_254_740_992.0)),
        Just(Scalar::Integer(i64::MAX)),
        Just(Scalar::Double(9_223_372_036_854_775_808.0)),
        Just(Scalar::Double(-1e300)),
        Just(Scalar::Double(-0.0)),
    ]
    .boxed()
}

fn scalar_of(field_type: Option<FieldType>) -> BoxedStrategy<Scalar> {
    match field_type {
        Some(FieldType::Keyword) => text().prop_map(Scalar::String).boxed(),
        Some(FieldType::Integer | FieldType::Float) => number(),
        Some(FieldType::Bool) => any::<bool>().prop_map(Scalar::Bool).boxed(),
        Some(FieldType::Datetime) => (-2i64..3).prop_map(Scalar::Timestamp).boxed(),
        None => any_scalar(),
    }
}

fn any_scalar() -> BoxedStrategy<Scalar> {
    let types = vec![FieldType::Keyword, FieldType::Float, FieldType::Bool, FieldType::Datetime];
    proptest::sample::select(types).prop_flat_map(|field_type| scalar_of(Some(field_type))).boxed()
}

fn field() -> BoxedStrategy<Field> {
    let names = vec![
        "scope.agent_id",
        "scope.namespace",
        "kind",
        "created_at",
        "expires_at",
        "importance",
        "metadata.word",
        "metadata.deep.count",
        "metadata.ratio",
        "metadata.done",
        "metadata.due",
        "metadata.unindexed",
        "metadata.other",
    ];
    proptest::sample::select(names).prop_map(|name| Field::from_name(name).unwrap()).boxed()
}

/// Mostly values of the field's type, some of others, some maps.
fn document() -> BoxedStrategy<Document> {
    let values = field().prop_flat_map(|field| {
        let own = scalar_of(schema().type_of(&field)).prop_map(Some);
        let value = prop_oneof![8 => own, 1 => any_scalar().prop_map(Some), 1 => Just(None)];
        (Just(field), proptest::collection::vec(value, 0..4))
    });
    proptest::collection::vec(values, 0..8).boxed()
}

fn test_for(field_type: Option<FieldType>) -> BoxedStrategy<Test> {
    let operand = || scalar_of(field_type);
    let list = || proptest::collection::vec(scalar_of(field_type), 1..4);
    let plain = prop_oneof![
        operand().prop_map(Test::Eq),
        operand().prop_map(Test::Ne),
        list().prop_map(Test::In),
        list().prop_map(Test::Nin),
        any::<bool>().prop_map(Test::Exists),
    ];
    let ordered = prop_oneof![
        operand().prop_map(Test::Gt),
        operand().prop_map(Test::Gte),
        operand().prop_map(Test::Lt),
        operand().prop_map(Test::Lte),
    ];
    let textual =
        prop_oneof![text().prop_map(Test::Contains), text().prop_map(Test::Prefix), text().prop_map(Test::Within),];
    match field_type {
        Some(FieldType::Bool) => plain.boxed(),
        Some(FieldType::Keyword) => prop_oneof![plain, ordered, textual].boxed(),
        Some(_) => prop_oneof![plain, ordered].boxed(),
        None => prop_oneof![plain, textual].boxed(),
    }
}

fn filter() -> BoxedStrategy<Filter> {
    let condition = field().prop_flat_map(|field| {
        let test = test_for(schema().type_of(&field));
        test.prop_map(move |test| Filter::Where(Condition { field: field.clone(), test }))
    });
    condition
        .prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::All),
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::Any),
                inner.prop_map(|inner| Filter::Not(Box::new(inner))),
            ]
        })
        .boxed()
}

fn is_columns(attributes: &Attributes) -> bool {
    matches!(attributes.kept, Kept::Columns(_))
}

fn is_indexed(filter: &Filter) -> bool {
    match filter {
        Filter::All(filters) | Filter::Any(filters) => filters.iter().all(is_indexed),
        Filter::Not(inner) => is_indexed(inner),
        Filter::Where(condition) => schema().type_of(&condition.field).is_some(),
    }
}

/// Compares with the plain definition: equal where exact, else between certain and possible.
fn check(attributes: &Attributes, model: &BTreeMap<u32, Document>, filter: &Filter) -> Result<(), TestCaseError> {
    prop_assert_eq!(filter.check(&schema()), Ok(()));
    let matching = model.iter().filter(|(_, document)| filter.matches(&Source(document)));
    let expected: RoaringBitmap = matching.map(|(slot, _)| *slot).collect();
    let found = attributes.matches(filter);
    prop_assert!(expected.is_subset(found.possible()), "{filter:?}: {expected:?} is not within {found:?}");
    prop_assert!(found.certain().is_subset(&expected), "{filter:?}: {found:?} is not certain, it is {expected:?}");
    prop_assert!(found.possible().is_subset(attributes.live()));
    if found.is_exact() {
        prop_assert_eq!(found.possible(), &expected, "{:?}", filter);
    }
    prop_assert!(found.is_exact() || !is_indexed(filter), "indexed fields give exact answers");
    Ok(())
}

/// Replaces documents by slot, or removes them.
fn apply(attributes: &mut Attributes, model: &mut BTreeMap<u32, Document>, steps: Vec<(u32, Option<Document>)>) {
    for (slot, document) in steps {
        assert_eq!(attributes.remove(slot), model.remove(&slot).is_some());
        if let Some(document) = document {
            let row = attributes.read(&Source(&document));
            attributes.insert(slot, row);
            model.insert(slot, document);
        }
    }
}

fn history(slots: u32, steps: usize) -> impl Strategy<Value = Vec<(u32, Option<Document>)>> {
    proptest::collection::vec((0..slots, proptest::option::weighted(0.75, document())), 0..steps)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn small_partitions_match_the_plain_definition(
        steps in history(12, 24),
        filters in proptest::collection::vec(filter(), 1..12),
    ) {
        let (mut attributes, mut model) = (Attributes::new(schema()), BTreeMap::new());
        apply(&mut attributes, &mut model, steps);
        prop_assert!(!is_columns(&attributes));
        for filter in &filters {
            check(&attributes, &model, filter)?;
        }
    }

    #[test]
    fn large_partitions_match_the_plain_definition(
        common in proptest::collection::vec(document(), 80),
        steps in history(90, 60),
        filters in proptest::collection::vec(filter(), 1..12),
    ) {
        let (mut attributes, mut model) = (Attributes::new(schema()), BTreeMap::new());
        let all = (0..).zip(common).map(|(slot, document)| (slot, Some(document))).collect();
        apply(&mut attributes, &mut model, all);
        apply(&mut attributes, &mut model, steps);
        prop_assert!(is_columns(&attributes));
        for filter in &filters {
            check(&attributes, &model, filter)?;
        }
        let slots: Vec<u32> = model.keys().copied().collect();
        apply(&mut attributes, &mut model, slots.into_iter().map(|slot| (slot, None)).collect());
        prop_assert!(attributes.live().is_empty() && attributes.bytes() < 64, "{}", attributes.bytes());
    }
}

/// Enough distinct numbers and strings for several blocks, removed and added in another order.
#[test]
fn many_distinct_values_stay_in_order() {
    let mut attributes = Attributes::new(schema());
    let mut model = BTreeMap::new();
    let document = |number: i64| -> Document {
        let word = format!("w{:04}", number.rem_euclid(1000));
        vec![
            (Field::CreatedAt, vec![Some(Scalar::Timestamp(number))]),
            (Field::Metadata("deep.count".into()), vec![Some(Scalar::Integer(number)), Some(Scalar::Integer(-number))]),
            (Field::Metadata("word".into()), vec![Some(Scalar::String(word))]),
        ]
    };
    let scattered = |slot: u32| i64::from(slot) * 7919 % 3001;
    apply(&mut attributes, &mut model, (0..3000).map(|slot| (slot, Some(document(scattered(slot))))).collect());
    let removed = (0..3000).filter(|slot| slot % 3 != 1);
    apply(&mut attributes, &mut model, removed.map(|slot| (slot, None)).collect());
    let added = (500..1500).map(|slot| (slot, Some(document(scattered(slot + 17)))));
    apply(&mut attributes, &mut model, added.collect());
    let condition = |name: &str, test| Filter::Where(Condition { field: Field::from_name(name).unwrap(), test });
    for number in (-3001i64..3001).step_by(97) {
        let word = format!("w{:04}", number.rem_euclid(1000));
        let filters = [
            condition("created_at", Test::Lt(Scalar::Timestamp(number))),
            condition("created_at", Test::Gte(Scalar::Timestamp(number))),
            condition("metadata.deep.count", Test::Gt(Scalar::Double(number as f64 + 0.5))),
            condition("metadata.deep.count", Test::Lte(Scalar::Integer(number))),
            condition("metadata.deep.count", Test::Eq(Scalar::Integer(number))),
            condition("metadata.word", Test::Gt(Scalar::String(word.clone()))),
            condition("metadata.word", Test::Prefix(word[..3].into())),
            condition("metadata.word", Test::Eq(Scalar::String(word))),
        ];
        for filter in filters {
            check(&attributes, &model, &filter).unwrap();
        }
    }
}

#[test]
fn a_condition_that_is_not_indexed_stays_a_superset_under_not() {
    let mut attributes = Attributes::new(schema());
    let word = Field::Metadata("word".into());
    for (slot, text) in ["a", "b"].into_iter().enumerate() {
        let document = vec![(word.clone(), vec![Some(Scalar::String(text.into()))])];
        let row = attributes.read(&Source(&document));
        attributes.insert(slot as u32, row);
    }
    let unknown = || Filter::Where(Condition { field: Field::Metadata("x".into()), test: Test::Exists(true) });
    let is_a = || Filter::Where(Condition { field: word.clone(), test: Test::Eq(Scalar::String("a".into())) });
    let not = |filter| Filter::Not(Box::new(filter));
    let slots = |slots: &[u32]| slots.iter().copied().collect::<RoaringBitmap>();
    let found = attributes.matches(&not(unknown()));
    assert_eq!((found.is_exact(), found.certain(), found.possible()), (false, &slots(&[]), &slots(&[0, 1])));
    let found = attributes.matches(&not(Filter::All(vec![is_a(), unknown()])));
    assert_eq!((found.is_exact(), found.certain(), found.possible()), (false, &slots(&[1]), &slots(&[0, 1])));
    let found = attributes.matches(&Filter::Any(vec![is_a(), Filter::All(vec![]), unknown()]));
    assert_eq!((found.is_exact(), found.possible()), (true, &slots(&[0, 1])));
}

#[test]
fn who_leaves_out_nobody_is_known_without_a_copy() {
    let nobody = || Filter::Any(vec![]);
    let number = |test| Filter::Where(Condition { field: Field::Metadata("deep.count".into()), test });
    for documents in [3, 200] {
        let mut attributes = Attributes::new(schema());
        for slot in 0..documents {
            let value = Scalar::Integer(i64::from(slot));
            let document: Document = vec![(Field::Metadata("deep.count".into()), vec![Some(value)])];
            let row = attributes.read(&Source(&document));
            attributes.insert(slot, row);
        }
        let live = attributes.live();
        let everybody = [
            Filter::All(vec![]),
            Filter::Not(Box::new(nobody())),
            Filter::All(vec![Filter::All(vec![]), Filter::Not(Box::new(number(Test::Lt(Scalar::Integer(0)))))]),
            number(Test::Exists(true)),
            Filter::Any(vec![number(Test::Gte(Scalar::Integer(0))), nobody()]),
        ];
        for filter in everybody {
            assert!(attributes.matches(&filter).is_everybody(live), "{filter:?}");
        }
        for filter in [nobody(), number(Test::Gt(Scalar::Integer(0))), number(Test::Exists(false))] {
            assert!(!attributes.matches(&filter).is_everybody(live), "{filter:?}");
        }
    }
}
